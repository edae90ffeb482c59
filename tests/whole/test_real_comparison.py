"""The figures of the committed comparison, as the page prints them."""

from __future__ import annotations

import csv
import json
import re

import pytest
from paths import ROOT

RESULTS = ROOT / "experiments" / "results" / "smollm2-135m"
PAGE = (ROOT / "docs" / "experiment.md").read_text(encoding="utf-8").partition("### A real comparison")[2]


def table(name: str) -> list[dict[str, str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("row", table("comparison.csv"), ids=lambda row: f"{row['evaluation_set']}-{row['method']}")
def test_the_page_has_the_figures_of_the_file(row: dict[str, str]) -> None:
    _, _, block = PAGE.partition(f"{row['evaluation_set']}: loss before training {float(row['base_loss']):.4f}")
    (line,) = re.findall(rf"^{row['method']}\b.*$", block.partition("\n\n")[0], re.MULTILINE)
    if row["method"] == "all":
        assert (
            line
            == f"all {float(row['rows']):.0f} rows once, {float(row['tokens']):,.0f} tokens: {float(row['loss']):.4f}"
        )
        return
    counts = [f"{float(row[name]):,.0f}" for name in ("rows", "tokens", "response_tokens", "runs")]
    shown = [row["method"], *counts, f"{float(row['loss']):.4f}", f"{float(row['sd_of_runs']):.4f}"]
    if row["method"] != "random":
        low, high = (f"{float(row[f'minus_random_{end}']):+.4f}" for end in ("low", "high"))
        shown += [f"{float(row['minus_random']):+.4f}", low, "to", high]
    assert line.split() == shown


def test_every_run_of_the_plan_is_there_and_finished() -> None:
    runs = {row["name"]: row for row in table("comparison-runs.csv")}
    kept = {file.stem for file in (RESULTS / "comparison").glob("*-[0-9].json")}
    assert kept == set(runs)
    assert {row["state"] for row in runs.values()} == {"finished"}
    for name, row in runs.items():
        result = json.loads((RESULTS / "comparison" / f"{name}.json").read_bytes())
        for evaluation_set, found in result["evaluation"].items():
            assert float(row[f"loss.{evaluation_set}"]) == found["loss"]
