"""Files of each kind, as our own commands and other programs load them; docs/outputs.md."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from paths import EXAMPLES, ROOT

from instructmining import describe, read_examples
from instructmining.scored.scored_file import ScoredRows
from instructmining.writing.shapes import GivenPrompt, target_name, written_as

Run = Callable[..., int]
NUMBERS = ("input_length", "output_length", "reward", "perplexity", "mtld", "predicted_log_loss")


@pytest.fixture
def scored(run: Run, small_bundle: Path, tmp_path: Path) -> Callable[..., Path]:
    """Score the examples of one or more formats, the same each time, to a file of that name."""

    def call(name: str, *others: str) -> Path:
        files = [EXAMPLES / file for file in ("alpaca.json", *others)]
        rule = tmp_path / "rule.json"
        rule.write_text(
            json.dumps({"id": "mine", "intercept": 1.0, "terms": {"reward": -0.1, "mtld": 0.01}, "reward_model": None})
        )
        options = ("--bundle", small_bundle, "--indicators", ",".join(NUMBERS[:-1]), "--rule", rule, "--device", "cpu")
        assert run("score", *files, "-o", tmp_path / name, *options) == 0
        return tmp_path / name

    return call


def values(path: Path) -> list[dict[str, object]]:
    """What score added to each row, as our own commands read it."""
    rows = list(ScoredRows(path).rows())
    return [{name: row.fields[name] for name in (*NUMBERS, "truncated", "score_notes")} for row in rows]


@pytest.mark.parametrize("name", ["out.parquet", "out.csv", "out.csv.gz", "out.tsv.zst"])
def test_every_kind_of_file_holds_the_same_scores_and_conversations(scored: Callable[..., Path], name: str) -> None:
    lines, other = scored("out.jsonl"), scored(name)
    assert values(other) == values(lines)
    described, wanted = (asdict(describe(path)) for path in (other, lines))
    assert {**described, "name": ""} == {**wanted, "name": ""}
    for found, example in zip(read_examples(other, format=None), read_examples(lines), strict=True):
        assert found.turns == example.turns


def test_pandas_and_polars_read_delimited_text_with_the_same_numbers(scored: Callable[..., Path]) -> None:
    wanted = pd.DataFrame(values(scored("out.jsonl")))[list(NUMBERS)].astype(float)
    pd.testing.assert_frame_equal(pd.read_csv(scored("out.csv"))[list(NUMBERS)].astype(float), wanted)
    frame = pl.read_csv(scored("out.csv.gz")).select(NUMBERS).cast(pl.Float64).fill_null(float("nan"))
    np.testing.assert_array_equal(frame.to_numpy(), wanted.to_numpy())


def test_what_is_selected_does_not_depend_on_the_kind_of_file(
    scored: Callable[..., Path], run: Run, tmp_path: Path
) -> None:
    kept = []
    for name in ("out.jsonl", "out.csv", "out.parquet"):
        path = scored(name, "messages.jsonl", "sharegpt.jsonl")
        best = tmp_path / f"best-{name}.jsonl"
        assert run("select", path, "-o", best, "--top", "5", "--where", "output_length>=2", "--as", "messages") == 0
        kept.append(best.read_bytes())
    assert kept[1:] == [kept[0]] * 2
    assert len(kept[0].splitlines()) == 5


def test_numbers_of_ones_own_are_read_from_delimited_text(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,mine,truncated,score_notes\na,b,2.5,[],{}\nc,d,,[],{}\ne,f,1,[],{}\n", "utf-8")
    assert run("select", path, "-o", tmp_path / "best.csv", "--by", "mine", "--top", "2") == 0
    assert (tmp_path / "best.csv").read_text("utf-8") == "prompt,completion,mine\ne,f,1\na,b,2.5\n"
    assert run("select", path, "-o", tmp_path / "other.csv", "--by", "prompt", "--top", "2") == 1


def test_delimited_text_is_rescored(scored: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    rule = tmp_path / "other.json"
    rule.write_text(json.dumps({"id": "other", "intercept": 0.0, "terms": {"mtld": 1.0}, "reward_model": None}))
    assert run("rescore", scored("out.csv"), "-o", tmp_path / "new.csv", "--rule", rule) == 0
    found = values(tmp_path / "new.csv")
    assert [row["predicted_log_loss"] for row in found] == [row["mtld"] for row in found]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_pairs_are_read_again_from_every_kind_of_file(
    run: Run, small_bundle: Path, tmp_path: Path, suffix: str
) -> None:
    source = EXAMPLES / "formats" / "preference_turns.jsonl"
    out, pairs = tmp_path / f"out{suffix}", tmp_path / f"pairs{suffix}"
    assert (
        run("score", source, "-o", out, "--bundle", small_bundle, "--indicators", "mtld,reward", "--device", "cpu") == 0
    )
    arguments = ("--by", "margin.reward", "--descending", "--top", "9")
    wanted = {example.turns: example.rejected for example in read_examples(source)}
    for target in ("preference", "sharegpt", "alpaca"):
        assert run("select", out, "-o", pairs, *arguments, "--as", target, "--overwrite") == 0
        assert {example.turns: example.rejected for example in read_examples(pairs)} == wanted


def metadata(path: Path) -> dict[str, Any]:
    found = pq.read_schema(path).metadata
    return {name.decode(): orjson.loads(text) for name, text in found.items() if name.startswith(b"instructmining.")}


def test_a_table_has_typed_columns_and_says_which_run_made_it(scored: Callable[..., Path], tmp_path: Path) -> None:
    path = scored("out.parquet")
    schema = pq.read_schema(path)
    kinds = {name: schema.field(name).type for name in (*NUMBERS, "truncated", "score_notes")}
    assert kinds == {
        **dict.fromkeys(NUMBERS, pa.float64()),
        **dict.fromkeys(("input_length", "output_length"), pa.int64()),
        "truncated": pa.list_(pa.string()),
        "score_notes": pa.string(),
    }
    (said,) = metadata(path).values()
    run_file = orjson.loads(Path(f"{path}.run.json").read_bytes())
    assert said["bundle"]["digest"] == run_file["bundle"]["digest"]
    assert said["rule"] == run_file["rule"]
    assert said["versions"] == {name: run_file["versions"][name] for name in ("instructmining", "onnxruntime")}
    assert said["settings"]["columns"] == list(NUMBERS)
    assert said["device"] == "cpu"
    assert str(tmp_path) not in json.dumps(said)


def test_a_selected_table_says_how_it_was_selected(scored: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    path, best = scored("out.jsonl"), tmp_path / "best.parquet"
    assert run("select", path, "-o", best, "--top", "3", "--random-baseline", tmp_path / "random.parquet") == 0
    said = metadata(best)
    assert set(said) == {"instructmining.run", "instructmining.selection"}
    assert said["instructmining.run"] == metadata(scored("other.parquet"))["instructmining.run"]
    wanted = orjson.loads(Path(f"{best}.selection.json").read_bytes())
    del wanted["scored"]["path"], wanted["random_baseline"]["file"]
    assert said["instructmining.selection"] == wanted
    assert set(metadata(tmp_path / "random.parquet")) == {"instructmining.run"}
    assert str(tmp_path) not in json.dumps(said)


def test_a_rescored_table_says_its_rule(scored: Callable[..., Path], run: Run, tmp_path: Path) -> None:
    assert run("rescore", scored("out.jsonl"), "-o", tmp_path / "new.parquet", "--rule", tmp_path / "rule.json") == 0
    assert metadata(tmp_path / "new.parquet")["instructmining.run"]["rule"]["id"] == "mine"


def test_pandas_and_polars_read_a_table(scored: Callable[..., Path]) -> None:
    path = scored("out.parquet")
    wanted = [row["mtld"] for row in values(path)]
    assert pd.read_parquet(path)["mtld"].astype(object).where(lambda column: column.notna(), None).tolist() == wanted
    assert pl.read_parquet(path)["mtld"].to_list() == wanted
    assert pl.read_parquet(path)["truncated"].dtype == pl.List(pl.String)


def blocks(language: str) -> list[str]:
    """The code in a language that docs/outputs.md shows."""
    text = (ROOT / "docs/outputs.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def test_the_commands_of_the_page_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {"id": number, "instruction": "Say hi.", "output": "Hi.", "reward": 0.5, "output_length": 2, "knn_6": 1.0}
        | {"predicted_log_loss": number / 10, "truncated": [], "score_notes": {}}
        for number in range(3)
    ]
    (tmp_path / "scored.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    commands = [shlex.split(line)[1:] for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) == 5
    for command in commands:
        assert run(*command) == 0, command
    (block,) = [text for text in blocks("python") if "read_schema" in text]
    capsys.readouterr()
    exec(block, {})
    assert "paper-v1" in capsys.readouterr().out


def test_the_rows_that_the_page_shows_are_rows_of_their_shape(tmp_path: Path) -> None:
    shown = [orjson.loads(text) for text in blocks("json") if '"file_name"' not in text]
    assert [next(iter(row)) for row in shown] == ["messages", "instruction", "conversations", "prompt"]
    for row in shown:
        path = tmp_path / "row.jsonl"
        path.write_bytes(orjson.dumps(row) + b"\n")
        (example,) = read_examples(path)
        target = {"instruction": "alpaca", "conversations": "sharegpt", "prompt": "preference"}.get(
            next(iter(row)), "messages"
        )
        given = GivenPrompt(str(row["instruction"]), str(row["input"])) if target == "alpaca" else None
        assert written_as(target_name(target), example, tools=row.get("tools"), given=given).fields == row
