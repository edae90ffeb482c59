from __future__ import annotations

import gzip
import io
import math
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError, OutputError, SelectionError
from instructmining.records import PREDICTION, Example, ScoredRow, SourceRow, Turn
from instructmining.selection import Choice, Selection, select
from instructmining.writers import splice

TURNS = (Turn("user", "a"), Turn("assistant", "b"))


def score_line(raw: bytes, loss: float | None, prefix: str = "") -> bytes:
    """A row as ``score`` writes it."""
    row = SourceRow("rows.jsonl", 1, 0, raw, orjson.loads(raw))
    notes = {} if loss is not None else {"mtld": "the response has no word", PREDICTION: "undefined: mtld"}
    columns = {"mtld": loss, PREDICTION: loss}
    return splice(ScoredRow(Example(TURNS, row), columns, (), notes), prefix) + b"\n"


def scored_file(folder: Path, losses: Sequence[float | None]) -> Path:
    path = folder / "scored.jsonl"
    path.write_bytes(b"".join(score_line(b'{"row":%d}' % row, loss) for row, loss in enumerate(losses)))
    return path


def kept(out: Path) -> list[int]:
    return [orjson.loads(line)["row"] for line in out.read_bytes().splitlines()]


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "best.jsonl"


# What is kept


def test_rows_come_in_ascending_predicted_loss(tmp_path: Path, out: Path) -> None:
    found = select(scored_file(tmp_path, [0.3, -0.1, 0.2, 1e-3]), out, Choice(top=3))
    assert kept(out) == [1, 3, 2]
    assert found == Selection(rows=4, without_value=0, kept=3, worst=0.2)


def test_equal_losses_keep_their_input_order(tmp_path: Path, out: Path) -> None:
    select(scored_file(tmp_path, [0.5, 0.2, 0.5, 0.2, 0.5, 0.2]), out, Choice(top=5))
    assert kept(out) == [1, 3, 5, 0, 2]


def test_rows_without_a_value_are_left_out_and_counted(tmp_path: Path, out: Path) -> None:
    found = select(scored_file(tmp_path, [None, 0.2, None, 0.1]), out, Choice(top=10))
    assert kept(out) == [3, 1]
    assert found == Selection(rows=4, without_value=2, kept=2, worst=0.2)


@pytest.mark.parametrize(
    ("fraction", "wanted"), [(1.0, [3, 1, 4, 0, 2]), (0.5, [3, 1, 4]), (0.4, [3, 1]), (0.2, [3]), (0.05, [])]
)
def test_a_fraction_is_of_the_rows_with_a_value_and_rounds_half_up(
    tmp_path: Path, out: Path, fraction: float, wanted: list[int]
) -> None:
    select(scored_file(tmp_path, [0.4, 0.2, 0.5, 0.1, 0.3, None, None]), out, Choice(fraction=fraction))
    assert kept(out) == wanted


@pytest.mark.parametrize(("max_loss", "wanted"), [(0.2, [3, 1]), (0.19, [3]), (-1, []), (9, [3, 1, 0, 2])])
def test_a_greatest_loss_keeps_all_rows_up_to_it_and_including_it(
    tmp_path: Path, out: Path, max_loss: float, wanted: list[int]
) -> None:
    select(scored_file(tmp_path, [0.4, 0.2, 0.5, 0.1]), out, Choice(max_loss=max_loss))
    assert kept(out) == wanted


def test_another_column_can_be_ordered_by(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b'{"row":0,"mtld":5,"predicted_log_loss":1}\n{"row":1,"mtld":4.5,"predicted_log_loss":2}\n')
    assert select(scored, out, Choice(top=1), by="mtld").worst == 4.5
    assert kept(out) == [1]


def test_nothing_kept_has_no_worst_value(tmp_path: Path, out: Path) -> None:
    found = select(scored_file(tmp_path, [0.4, 0.2]), out, Choice(max_loss=0.1))
    assert found == Selection(rows=2, without_value=0, kept=0, worst=None)
    assert out.read_bytes() == b""


def test_an_empty_file_gives_an_empty_choice(tmp_path: Path, out: Path) -> None:
    assert select(scored_file(tmp_path, []), out, Choice(top=5)) == Selection(0, 0, 0, None)


@settings(max_examples=40, deadline=None)
@given(
    losses=st.lists(st.none() | st.integers(-3, 3).map(lambda n: n / 4), min_size=1, max_size=12),
    top=st.integers(1, 14),
)
def test_any_choice_is_a_stable_sort_of_the_rows_with_a_value(
    tmp_path_factory: pytest.TempPathFactory, losses: list[float | None], top: int
) -> None:
    folder = tmp_path_factory.mktemp("select")
    known = [(loss, row) for row, loss in enumerate(losses) if loss is not None]
    out = folder / "best.jsonl"
    if not known:
        with pytest.raises(SelectionError, match="no row has a number"):
            select(scored_file(folder, losses), out, Choice(top=top))
        return
    found = select(scored_file(folder, losses), out, Choice(top=top))
    assert kept(out) == [row for _, row in sorted(known)][:top]
    assert found.without_value == len(losses) - len(known)
    assert found.kept == min(top, len(known))


# Bytes


@pytest.mark.parametrize(
    "raw",
    [
        b'{"row":0,"a":"\\u00e9 \xc3\xa9","n":1.50}',
        b'{ "row" : 0 , "meta": {"mtld": 3, "truncated": true} }',
        b'{"row":0,"a":",\\"mtld\\":7"}',
        b'{"row":0,"nested":{"a":1,"mtld":2}}',
    ],
)
@pytest.mark.parametrize("prefix", ["", "im_"])
def test_rows_come_back_as_they_were_before_scoring_byte_for_byte(
    tmp_path: Path, out: Path, raw: bytes, prefix: str
) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(raw, 0.25, prefix))
    select(scored, out, Choice(top=1), prefix=prefix)
    assert out.read_bytes() == raw + b"\n"


def test_a_row_without_scores_ordered_by_a_field_of_its_own_comes_back_byte_for_byte(tmp_path: Path, out: Path) -> None:
    raw = b'{"rating": 3}'
    row = SourceRow("rows.jsonl", 1, 0, raw, orjson.loads(raw))
    notes = {"ifd": "the response is a single token", "knn_6": "1 rows in the run"}  # the corpus pass comes last
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(splice(ScoredRow(Example(TURNS, row), {"knn_6": None, "ifd": None}, (), notes)) + b"\n")
    select(scored, out, Choice(top=1), by="rating")
    assert out.read_bytes() == raw + b"\n"


def test_scores_are_kept_where_asked(tmp_path: Path, out: Path) -> None:
    lines = [score_line(b'{"row":0}', 0.5), score_line(b'{"row":1}', 0.25)]
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b"".join(lines))
    select(scored, out, Choice(top=2), keep_scores=True)
    assert out.read_bytes() == lines[1] + lines[0]


def test_compressed_files_go_in_and_out(tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl.zst"
    scored.write_bytes(zstandard.compress(score_line(b'{"row":0}', 0.5) + score_line(b'{"row":1}', 0.25)))
    select(scored, tmp_path / "best.jsonl.gz", Choice(top=2))
    assert gzip.decompress((tmp_path / "best.jsonl.gz").read_bytes()) == b'{"row":1}\n{"row":0}\n'
    select(scored, tmp_path / "best.jsonl.zst", Choice(top=1))
    packed = io.BytesIO((tmp_path / "best.jsonl.zst").read_bytes())
    assert zstandard.ZstdDecompressor().stream_reader(packed).read() == b'{"row":1}\n'


# Choices and files that cannot be


@pytest.mark.parametrize("given", [{}, {"top": 1, "fraction": 0.5}, {"top": 1, "max_loss": 0.0}])
def test_exactly_one_way_of_choosing_is_wanted(given: dict[str, float]) -> None:
    with pytest.raises(SelectionError, match="exactly one of top, fraction and max_loss"):
        Choice(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top": 0}, "top is 0, wanted at least 1"),
        ({"fraction": 0.0}, "fraction is 0.0, wanted more than 0 and at most 1"),
        ({"fraction": 1.5}, "fraction is 1.5, wanted more than 0 and at most 1"),
        ({"fraction": math.nan}, "fraction is nan, wanted more than 0 and at most 1"),
        ({"max_loss": math.nan}, "max_loss is nan"),
    ],
)
def test_a_choice_out_of_range_is_a_selection_error(given: dict[str, float], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Choice(**given)  # type: ignore[arg-type]


def test_a_row_without_the_column_is_an_error_that_lists_those_it_has(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(b'{"row":0}', 0.5) + b'{"row":1,"label":2}\n')
    with pytest.raises(SelectionError, match=r"line 2: no column 'predicted_log_loss'; columns: row, label"):
        select(scored, out, Choice(top=1))
    assert not out.exists()


def test_a_column_that_holds_text_is_a_selection_error(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b'{"predicted_log_loss":"low"}\n')
    with pytest.raises(SelectionError, match="column 'predicted_log_loss' is 'low', wanted a number"):
        select(scored, out, Choice(top=1))


def test_a_line_that_is_no_row_is_a_selection_error(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(b'{"row":0}', 0.5) + b"oops\n")
    with pytest.raises(SelectionError, match=r"line 2: invalid JSON.*; wanted a file that score wrote"):
        select(scored, out, Choice(top=1))


def test_a_missing_scored_file_is_an_input_error(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        select(tmp_path / "gone.jsonl", out, Choice(top=1))


def test_an_out_that_exists_is_kept_unless_overwrite_is_given(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [0.5])
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        select(scored, out, Choice(top=1))
    assert out.read_bytes() == b"old"
    select(scored, out, Choice(top=1), overwrite=True)
    assert out.read_bytes() == b'{"row":0}\n'


def test_an_unknown_suffix_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"wanted a name ending in \.jsonl"):
        select(scored_file(tmp_path, [0.5]), tmp_path / "best.csv", Choice(top=1))


@pytest.mark.parametrize("parent", ["gone", "scored.jsonl"], ids=["missing folder", "a file"])
def test_an_out_that_cannot_be_made_is_an_output_error(tmp_path: Path, parent: str) -> None:
    with pytest.raises(OutputError, match=r"best\.jsonl: "):
        select(scored_file(tmp_path, [0.5]), tmp_path / parent / "best.jsonl", Choice(top=1))


def test_a_choice_that_fails_leaves_nothing_behind(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(b'{"row":0}', 0.5) + b"oops\n")
    with pytest.raises(SelectionError):
        select(scored, out, Choice(top=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scored.jsonl"]
