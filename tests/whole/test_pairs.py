"""Preference pairs through all commands: two scored examples a row."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest
from cut_runs import cut_until

from instructmining import Example, Rule, Scorer, describe, read_examples, rescore, score_table, select, to_arrow
from instructmining.types import PAIR_COLUMNS, PREDICTION
from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch

Run = Callable[..., int]
WORDS = ["the train", "a colour", "green", "bread", "count", "seven", "noon", "dough"]


def pairs(rows: int) -> list[dict[str, object]]:
    rng = random.Random(0)

    def text(most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(1, most)))

    return [{"prompt": f"{n} {text(4)}", "chosen": text(20), "rejected": text(9), "n": n} for n in range(rows)]


@pytest.fixture
def scored(run: Run, small_bundle: Path, write_rows: Callable[..., Path], tmp_path: Path) -> Path:
    """Twelve pairs with all columns and a prediction."""
    out = tmp_path / "scored.jsonl"
    options = ["--bundle", small_bundle, "--device", "cpu", "--indicators", "all", "--rule", "paper-v1"]
    assert run("score", write_rows(*pairs(12)), "-o", out, *options) == 0
    return out


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_each_side_has_the_values_that_it_has_alone(small_bundle: Path, scored: Path) -> None:
    rows = lines(scored)
    columns = ["input_length", "output_length", "reward", "perplexity", "mtld", "ifd"]
    with Scorer.open(small_bundle, indicators=columns, device="cpu") as scorer:
        for side in ("chosen", "rejected"):
            alone = scorer.score(Example.of(str(row["prompt"]), str(row[side])) for row in rows)
            for row, values in zip(rows, alone, strict=True):
                for column in columns:
                    assert row[f"{side}.{column}"] == pytest.approx(values.columns[column], rel=1e-5), column
    for row in rows:
        assert row["margin.reward"] == row["chosen.reward"] - row["rejected.reward"]  # type: ignore[operator]
        assert {f"{part}.predicted_log_loss" for part in ("chosen", "rejected", "margin")} <= row.keys()
        assert "reward" not in row


def test_rows_are_counted_once(scored: Path) -> None:
    counts = orjson.loads(Path(f"{scored}.run.json").read_bytes())["counts"]
    assert (counts["rows_in"], counts["rows_out"]) == (12, 12)


def test_a_pair_of_which_one_side_is_empty_is_a_reject(
    run: Run, small_bundle: Path, write_rows: Callable[..., Path], tmp_path: Path
) -> None:
    first, second, third = pairs(3)
    out = tmp_path / "out.jsonl"
    path = write_rows(first, {**second, "rejected": " "}, third)
    assert run("score", path, "-o", out, "--bundle", small_bundle, "--indicators", "reward") == 3
    assert [row["n"] for row in lines(out)] == [0, 2]
    (reject,) = lines(Path(f"{out}.rejects.jsonl"))
    assert (reject["line"], reject["reason"]) == (2, "the rejected response is empty")


def test_the_best_margins_are_selected(run: Run, scored: Path, tmp_path: Path) -> None:
    best = tmp_path / "best.jsonl"
    assert run("select", scored, "-o", best, "--by", "margin.reward", "--descending", "--top", "3") == 0
    rows = sorted(lines(scored), key=lambda row: -float(str(row["margin.reward"])))
    assert [row["n"] for row in lines(best)] == [row["n"] for row in rows[:3]]
    assert lines(best)[0] == {name: rows[0][name] for name in ("prompt", "chosen", "rejected", "n")}
    kept = select(scored, by="margin.reward", descending=True, top=3).kept_rows
    assert [row["n"] for row in kept] == [row["n"] for row in rows[:3]]


def test_a_column_that_pairs_do_not_have_is_said_with_those_that_they_have(
    run: Run, scored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("select", scored, "-o", tmp_path / "best.jsonl", "--top", "3") == 1
    said = capsys.readouterr().err
    assert "no column 'predicted_log_loss'" in said
    assert "the rows are preference pairs; name chosen.predicted_log_loss" in said


def test_another_rule_predicts_both_sides(small_bundle: Path, scored: Path, run: Run, tmp_path: Path) -> None:
    rule = tmp_path / "mine.json"
    rule.write_bytes(orjson.dumps({"id": "mine", "intercept": 1.0, "terms": {"reward": 0.5, "mtld": 0.25}}))
    found = rescore(scored, tmp_path / "again.jsonl", rule)
    assert (found.rows, found.without_value) == (12, 0)
    wanted = tmp_path / "wanted.jsonl"
    options = ["--bundle", small_bundle, "--device", "cpu", "--indicators", "all", "--rule", rule]
    assert run("score", scored.parent / "rows.jsonl", "-o", wanted, *options) == 0
    assert (tmp_path / "again.jsonl").read_bytes() == wanted.read_bytes()


def test_what_has_no_term_on_one_side_has_no_prediction_there(scored: Path, tmp_path: Path) -> None:
    row = lines(scored)[0] | {"rejected.mtld": None, "score_notes": {"rejected.mtld": "no word"}}
    (tmp_path / "one.jsonl").write_bytes(orjson.dumps(row) + b"\n")
    found = rescore(tmp_path / "one.jsonl", tmp_path / "again.jsonl", Rule("mine", 1.0, {"mtld": 2.0}))
    assert found.without_value == 1
    (again,) = lines(tmp_path / "again.jsonl")
    assert again["chosen.predicted_log_loss"] == 1.0 + 2.0 * float(str(row["chosen.mtld"]))
    assert again["rejected.predicted_log_loss"] is again["margin.predicted_log_loss"] is None
    assert again["score_notes"] == {
        "rejected.mtld": "no word",
        "rejected.predicted_log_loss": "undefined: mtld",
        "margin.predicted_log_loss": "rejected.predicted_log_loss is null",
    }


def test_pairs_and_other_rows_do_not_stand_in_one_run(
    run: Run,
    small_bundle: Path,
    write_rows: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    first = write_rows(*pairs(5))
    second = write_rows({"prompt": "a", "response": "b c"}, name="others.jsonl")
    out = tmp_path / "out.jsonl"
    assert run("score", first, second, "-o", out, "--bundle", small_bundle, "--indicators", "mtld") == 1
    assert f"{first} holds preference pairs and {second} does not" in capsys.readouterr().err
    assert not out.exists()


def test_another_rule_tells_pairs_from_other_rows_of_a_table(small_bundle: Path, tmp_path: Path) -> None:
    """Such a table is somebody's own: columns of both kinds, those of the other kind null."""
    with Scorer.open(small_bundle, indicators="mtld", device="cpu") as scorer:
        table = to_arrow(scorer.score([Example.pair("a", "b c d", "e f"), Example.of("a", "b c d")]))
    pq.write_table(table, tmp_path / "both.parquet")
    rule = Rule("mine", 1.0, {"mtld": 2.0})
    assert rescore(tmp_path / "both.parquet", tmp_path / "out.jsonl", rule).without_value == 0
    pair, plain = lines(tmp_path / "out.jsonl")
    assert pair["chosen.predicted_log_loss"] == plain["predicted_log_loss"]
    assert pair["margin.predicted_log_loss"] == 2.0 * float(str(pair["margin.mtld"]))
    assert "predicted_log_loss" not in pair


def test_tables_take_pairs(small_bundle: Path, scored: Path) -> None:
    with Scorer.open(small_bundle, indicators="reward,mtld", device="cpu") as scorer:
        table = score_table(scorer, to_arrow(scorer.score(pairs(3))).select(["prompt", "chosen", "rejected"]))
        assert table.column_names[3:9] == [*PAIR_COLUMNS["reward"], *PAIR_COLUMNS["mtld"]]
        rows = list(scorer.score([Example.pair("a", "b c", "d"), Example.of("a", "b c")]))
    assert rows[0].columns["chosen.reward"] == pytest.approx(rows[1].columns["reward"], rel=1e-5)
    described = describe(scored)
    assert described.columns["margin.reward"].mean == pytest.approx(
        described.columns["chosen.reward"].mean - described.columns["rejected.reward"].mean
    )


def test_a_run_of_pairs_that_is_killed_goes_on_to_the_same_bytes(small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{**row, "rejected": ""} if n % 11 == 5 else row for n, row in enumerate(pairs(160))]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = ["score", str(path), "--bundle", str(small_bundle), "--device", "cpu"]
    found = cut_until(4, [*base, "--indicators", "perplexity,knn_6"], tmp_path, ".jsonl", random.Random(1))
    assert found.kills >= 4


def test_a_thread_of_messages_that_is_killed_goes_on_to_the_same_bytes(small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    with path.open("w") as file:
        for tree in range(40):
            for depth in range(4):
                row = {
                    "message_id": f"{tree}-{depth}",
                    "parent_id": f"{tree}-{depth - 1}" if depth else None,
                    "message_tree_id": f"{tree}-0",
                    "role": ("prompter", "assistant")[depth % 2],
                    "text": f"{tree} and {depth} " + "more words " * (tree % 5),
                    "lang": "en",
                }
                file.write(json.dumps(row) + "\n")
    base = ["score", str(path), "--bundle", str(small_bundle), "--device", "cpu"]
    found = cut_until(4, [*base, "--indicators", "perplexity,mtld"], tmp_path, ".jsonl", random.Random(1))
    assert found.kills >= 4
    run_file = orjson.loads((tmp_path / "whole.jsonl.run.json").read_bytes())
    assert run_file["counts"]["not_read"] == {str(path): {"lang": 80}}


def test_real_pairs_are_read_whole() -> None:
    fetch("dpo_en_demo.json", cache_folder() / "data")
    reader = read_examples(cache_folder() / "data" / "dpo_en_demo.json")
    examples = list(reader)
    assert len(examples) == 300
    assert set(reader.formats.values()) == {"preference"}
    assert not any(reader.unread.values())
    for example in examples:
        assert example.row is not None
        fields = example.row.fields
        assert example.turns[-1].text == fields["chosen"]["value"]  # type: ignore[index, call-overload]
        assert example.rejected is not None
        assert example.rejected[-1].text == fields["rejected"]["value"]  # type: ignore[index, call-overload]
        assert example.turns[:-1] == example.rejected[:-1]


def test_every_column_has_its_names_for_pairs() -> None:
    assert PAIR_COLUMNS[PREDICTION] == (
        "chosen.predicted_log_loss",
        "rejected.predicted_log_loss",
        "margin.predicted_log_loss",
    )


def test_sides_that_are_given_alone_are_examples(small_bundle: Path) -> None:
    given = [side for n in range(4) for side in Example.pair(f"a {n}", "b c", "d").sides if side.side == "chosen"]
    with Scorer.open(small_bundle, indicators="mtld", device="cpu") as scorer:
        assert [row.columns for row in scorer.score(given)] == [{"mtld": 2.0}] * 4
