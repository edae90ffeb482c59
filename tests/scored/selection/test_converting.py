"""Kept rows in the shapes that trainers read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import orjson
import pyarrow.parquet as pq
import pytest

from instructmining import Conversion, FieldOptions
from instructmining.errors import OutputError, SelectionError
from instructmining.reading.examples import read_examples
from instructmining.scored.selection import select
from instructmining.writing.shapes import TargetName

ADDED: dict[str, object] = {"predicted_log_loss": 0.5, "truncated": [], "score_notes": {}}
TURNS = [{"role": "user", "content": "Say hi."}, {"role": "assistant", "content": "Hi."}]


def scored(folder: Path, *rows: dict[str, object], run: object = None) -> Path:
    path = folder / "scored.jsonl"
    lines = [orjson.dumps(row | ADDED | {"predicted_log_loss": float(at)}) + b"\n" for at, row in enumerate(rows)]
    path.write_bytes(b"".join(lines))
    if run is not None:
        Path(f"{path}.run.json").write_bytes(orjson.dumps(run))
    return path


def rows_in(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_rows_of_several_formats_come_out_in_one(tmp_path: Path) -> None:
    path = scored(
        tmp_path,
        {"instruction": "Say hi.", "input": "", "output": "Hi."},
        {"prompt": "Say hi.", "completion": "Hi."},
        {"conversations": [{"from": "human", "value": "Say hi."}, {"from": "gpt", "value": "Hi."}]},
        {"messages": TURNS},
    )
    found = select(path, tmp_path / "out.jsonl", top=4, convert="messages")
    assert rows_in(tmp_path / "out.jsonl") == [{"messages": TURNS}] * 4
    assert found.remarks == ()


def test_the_rows_of_an_alpaca_file_keep_instruction_and_input(tmp_path: Path) -> None:
    path = scored(tmp_path, {"instruction": "Sort.", "input": "3 1", "output": "1 3"})
    select(path, tmp_path / "out.jsonl", top=1, convert="alpaca")
    wanted = {"instruction": "Sort.", "input": "3 1", "output": "1 3", "system": "", "history": []}
    assert rows_in(tmp_path / "out.jsonl") == [wanted]


def test_fields_that_the_shape_lacks_are_named_and_can_be_kept(tmp_path: Path) -> None:
    path = scored(tmp_path, {"id": 7, "prompt": "a", "completion": "b", "topic": "x", "note": None})
    found = select(path, tmp_path / "out.jsonl", top=1, convert=Conversion("messages", keep=("id",)))
    (row,) = rows_in(tmp_path / "out.jsonl")
    assert list(row) == ["messages", "id"]
    assert found.remarks == (
        "left out of rows written as messages: topic (1 row); --keep-fields id,topic keeps fields",
    )
    said = orjson.loads((tmp_path / "out.jsonl.selection.json").read_bytes())["converted"]
    assert said == {"as": "messages", "keep_fields": ["id"], "left_out": {"topic": 1}, "uneven": 0}


def test_the_scores_follow_all_other_fields(tmp_path: Path) -> None:
    path = scored(tmp_path, {"id": 7, "prompt": "a", "completion": "b"})
    convert = Conversion("alpaca", keep=("id",))
    select(path, tmp_path / "out.jsonl", top=1, keep_scores=True, convert=convert)
    (row,) = rows_in(tmp_path / "out.jsonl")
    assert list(row) == ["instruction", "input", "output", "system", "history", "id", *ADDED]


PAIR: dict[str, object] = {"prompt": "a", "chosen": "b", "rejected": "c"}
SINGLE: dict[str, object] = {"id": 1, "prompt": "a", "completion": "b"}


@pytest.mark.parametrize(
    ("convert", "rows", "reason"),
    [
        (Conversion("messages", keep=("idd",)), [SINGLE], "no field 'idd'; did you mean 'id'"),
        (Conversion("alpaca", keep=("input",)), [SINGLE, SINGLE | {"input": "c"}], "a field 'input' of its own"),
        ("preference", [PAIR, SINGLE], "line 2: cannot be written as preference: it is no preference pair.*messages"),
        ("messages", [SINGLE, {"text_": "a"}], "line 2: cannot be written as messages: .*no known format"),
    ],
)
def test_a_row_that_cannot_be_written_is_an_error_and_no_file_appears(
    tmp_path: Path, convert: Conversion, rows: list[dict[str, object]], reason: str
) -> None:
    path = scored(tmp_path, *rows)
    with pytest.raises(SelectionError, match=reason):
        select(path, tmp_path / "out.jsonl", top=2, convert=convert)
    assert [file.name for file in tmp_path.iterdir()] == ["scored.jsonl"]


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    path = scored(tmp_path, {"prompt": "a", "completion": "b"})
    with pytest.raises(OutputError, match="no shape 'chatml'"):
        select(path, tmp_path / "out.jsonl", top=1, convert="chatml")  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="convert is 3"):
        select(path, tmp_path / "out.jsonl", top=1, convert=3)  # type: ignore[arg-type]
    with pytest.raises(SelectionError, match="keep is 'id'"):
        Conversion("messages", keep="id")  # type: ignore[arg-type]


def test_rows_are_read_as_score_read_them(tmp_path: Path) -> None:
    mapped = {"settings": {"format": None, "map": {"prompt": "ask", "response": "say"}}}
    path = scored(tmp_path, {"ask": "Say hi.", "say": "Hi."}, run=mapped)
    select(path, tmp_path / "out.jsonl", top=1, convert="messages")
    assert rows_in(tmp_path / "out.jsonl") == [{"messages": TURNS}]
    given = Conversion("messages", FieldOptions(map={"prompt": "say", "response": "ask"}))
    select(path, tmp_path / "other.jsonl", top=1, convert=given)
    assert rows_in(tmp_path / "other.jsonl")[0]["messages"] != TURNS


def test_a_run_file_that_is_damaged_says_nothing(tmp_path: Path) -> None:
    path = scored(tmp_path, {"prompt": "Say hi.", "completion": "Hi."}, run={"settings": {"format": "new", "map": {}}})
    select(path, tmp_path / "out.jsonl", top=1, convert="messages")
    assert rows_in(tmp_path / "out.jsonl") == [{"messages": TURNS}]


def test_rows_that_do_not_alternate_are_counted(tmp_path: Path) -> None:
    path = scored(tmp_path, {"messages": TURNS}, {"messages": [TURNS[0], *TURNS]})
    found = select(path, tmp_path / "out.jsonl", top=2, convert="sharegpt")
    assert found.remarks[0].startswith("in 1 rows user and assistant do not speak in turn")


def test_the_random_baseline_is_converted_too(tmp_path: Path) -> None:
    from instructmining import Extras  # noqa: PLC0415 - as users import it

    path = scored(tmp_path, {"prompt": "Say hi.", "completion": "Hi."}, {"messages": TURNS})
    extras = Extras(random_baseline=tmp_path / "random.jsonl")
    select(path, tmp_path / "out.jsonl", top=2, convert="messages", extras=extras)
    assert rows_in(tmp_path / "random.jsonl") == [{"messages": TURNS}] * 2


def test_rows_are_returned_in_the_shape_where_no_file_is_named(tmp_path: Path) -> None:
    path = scored(tmp_path, {"prompt": "Say hi.", "completion": "Hi."})
    assert select(path, top=1, convert="messages").kept_rows == ({"messages": TURNS},)
    table = [{"prompt": "Say hi.", "completion": "Hi.", **ADDED}]
    assert select(table, top=1, convert="messages").kept_rows == ({"messages": TURNS},)


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"])
def test_every_kind_of_file_holds_the_same_examples(tmp_path: Path, suffix: str) -> None:
    path = scored(tmp_path, {"prompt": "Say hi.", "completion": "Hi."}, {"messages": [TURNS[0], *TURNS]})
    out = tmp_path / f"out{suffix}"
    select(path, out, top=2, convert="messages", keep_scores=True)
    assert [[turn.text for turn in example.turns] for example in read_examples(out)] == [
        ["Say hi.", "Hi."],
        ["Say hi.", "Say hi.", "Hi."],
    ]
    if suffix == ".parquet":
        assert pq.read_table(out).column("messages").to_pylist()[0] == TURNS


def test_the_command_writes_a_shape_to_standard_output(
    run: Callable[..., int], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    path = scored(tmp_path, {"id": 1, "prompt": "Say hi.", "completion": "Hi."})
    assert run("select", path, "-o", "-", "--top", "1", "--as", "messages", "--keep-fields", "id") == 0
    assert orjson.loads(capfdbinary.readouterr().out) == {"messages": TURNS, "id": 1}


def test_fields_to_keep_without_a_shape_are_wrong_usage(run: Callable[..., int], tmp_path: Path) -> None:
    path = scored(tmp_path, {"id": 1, "prompt": "Say hi.", "completion": "Hi."})
    assert run("select", path, "-o", "-", "--top", "1", "--keep-fields", "id") == 2
    assert run("select", path, "-o", "-", "--top", "1", "--as", "preference") == 1


@pytest.mark.parametrize(
    ("name", "shape", "said"), [("o.csv", "messages", 1), ("o.csv", "alpaca", 0), ("o.parquet", "messages", 0)]
)
def test_turns_in_delimited_text_are_cautioned_about(tmp_path: Path, name: str, shape: TargetName, said: int) -> None:
    path = scored(tmp_path, {"instruction": "Sort.", "input": "3 1", "output": "1 3"})
    found = select(path, tmp_path / name, top=1, convert=shape)
    assert len([remark for remark in found.remarks if "JSON text" in remark]) == said
