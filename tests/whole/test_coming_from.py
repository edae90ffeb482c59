"""What docs/coming-from.md shows runs: our commands on a small bundle, the peers' snippets at least parse."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from paths import ROOT

PAGE = (ROOT / "docs" / "coming-from.md").read_text(encoding="utf-8")
SCRIPTS = sorted((ROOT / "benchmarks" / "peers" / "coming_from").glob("*.py"))


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, object]]:
    """The page's files: Alpaca rows with ids, and what each tool would have written of them."""
    rows = json.loads((ROOT / "examples" / "alpaca.json").read_bytes())
    rows = [row | {"id": f"row-{number}"} for number, row in enumerate(rows)]
    by_wana = [row | {"wana": {"scores": {"ifd": 0.7 + at / 20, "length": at + 2.0}}} for at, row in enumerate(rows)]
    by_oda = [
        {"id": row["id"], "scores": {"MtldScorer": {"score": at - 1.0}, "IFDScorer": {"score": 0.9}}}
        for at, row in enumerate(rows)
    ]
    by_data_juicer = [row | {"text": row["output"], "__dj__stats__": {"num_token": 3}} for row in rows]
    by_curator = [row | {"text": row["output"], "tokens": at + 3, "words": at + 2} for at, row in enumerate(rows)]
    for name, lines in {
        "rows.jsonl": rows,
        "wana.jsonl": by_wana,
        "pointwise_scores.jsonl": by_oda,
        "data-juicer/kept.jsonl": by_data_juicer,
        "curated/part-0.jsonl": by_curator,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    return rows


def test_every_command_of_ours_runs_in_the_order_of_the_page(
    run: Callable[..., int],
    small_bundle: Path,
    rows: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    ran = []
    for language, block in re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL):
        if language == "python" and "wana.jsonl" in block:
            exec(block, {})
        for command in block.splitlines() if language == "sh" else ():
            if not command.startswith("instructmining "):
                continue
            _, *arguments = shlex.split(command)
            with_models = arguments[0] == "score" or "--distinct" in arguments
            bundle = ["--bundle", str(small_bundle), "--device", "cpu"] if with_models else []
            assert run(*arguments, *bundle) == 0, (command, capsys.readouterr().err)
            ran.append(tmp_path / arguments[arguments.index("-o") + 1])
    assert len(ran) == 11
    assert all(out.is_file() for out in ran)

    by_theirs = [json.loads(line)["id"] for line in Path("by-theirs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert by_theirs == ["row-6", "row-5", "row-4", "row-3"]  # of seven rows with an IFD of at most 1
    assert len(Path("diverse-half.jsonl").read_text(encoding="utf-8").splitlines()) == 4  # of seven without -1, rounded
    scored = [json.loads(line) for line in Path("curated-scored.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["words"] for row in scored] == list(range(2, 10))
    assert len(json.loads(Path("oda-scores.jsonl").read_text(encoding="utf-8").splitlines()[0])["scores"]) >= 5
    assert rows


def test_the_snippets_of_the_others_parse() -> None:
    for block in blocks("python"):
        compile(block, "coming-from.md", "exec")
    yaml = importlib.import_module("yaml")
    recipes = [yaml.safe_load(block) for block in blocks("yaml")]
    recipes.append(yaml.safe_load((ROOT / "benchmarks/peers/coming_from/data_juicer.yaml").read_text(encoding="utf-8")))
    steps = [step for recipe in recipes for step in recipe.get("process", recipe.get("scorers"))]
    assert len(steps) >= 12
    assert all(isinstance(step, dict) for step in steps)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_the_scripts_that_ran_them_compile_and_are_named_on_the_page(script: Path) -> None:
    compile(script.read_text(encoding="utf-8"), script.name, "exec")
    assert f"{script.name}" in PAGE or script.stem in PAGE
