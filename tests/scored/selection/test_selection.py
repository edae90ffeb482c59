from __future__ import annotations

import gzip
import hashlib
import io
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import orjson
import pytest
import zstandard
from balanced_html import read_html
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError, OutputError, SelectionError
from instructmining.scored import selection
from instructmining.scored.scored_file import ScoredRows
from instructmining.scored.selection import Selection, select
from instructmining.scored.selection.options import Extras, SelectionOptions
from instructmining.scored.selection.ranking import Ranking, rank
from instructmining.scored.selection.subsets import random_rows
from instructmining.types import PREDICTION, Example, ScoredRow, SourceRow, Turn
from instructmining.writing.run_writer import splice

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
    found = select(scored_file(tmp_path, [0.3, -0.1, 0.2, 1e-3]), out, SelectionOptions(top=3))
    assert kept(out) == [1, 3, 2]
    assert found == Selection(rows=4, without_value=0, kept=3, worst=0.2, left_out={"below the cut": 1})


def test_equal_losses_keep_their_input_order(tmp_path: Path, out: Path) -> None:
    select(scored_file(tmp_path, [0.5, 0.2, 0.5, 0.2, 0.5, 0.2]), out, SelectionOptions(top=5))
    assert kept(out) == [1, 3, 5, 0, 2]


def test_rows_without_a_value_are_left_out_and_counted(tmp_path: Path, out: Path) -> None:
    found = select(scored_file(tmp_path, [None, 0.2, None, 0.1]), out, SelectionOptions(top=10))
    assert kept(out) == [3, 1]
    left_out = {"predicted_log_loss is null": 2}
    remarks = ("2 of the 10 rows wanted",)
    assert found == Selection(rows=4, without_value=2, kept=2, worst=0.2, left_out=left_out, remarks=remarks)


@pytest.mark.parametrize(
    ("fraction", "wanted"), [(1.0, [3, 1, 4, 0, 2]), (0.5, [3, 1, 4]), (0.4, [3, 1]), (0.2, [3]), (0.05, [])]
)
def test_a_fraction_is_of_the_rows_with_a_value_and_rounds_half_up(
    tmp_path: Path, out: Path, fraction: float, wanted: list[int]
) -> None:
    select(scored_file(tmp_path, [0.4, 0.2, 0.5, 0.1, 0.3, None, None]), out, SelectionOptions(fraction=fraction))
    assert kept(out) == wanted


@pytest.mark.parametrize(("max_loss", "wanted"), [(0.2, [3, 1]), (0.19, [3]), (-1, []), (9, [3, 1, 0, 2])])
def test_a_greatest_loss_keeps_all_rows_up_to_it_and_including_it(
    tmp_path: Path, out: Path, max_loss: float, wanted: list[int]
) -> None:
    select(scored_file(tmp_path, [0.4, 0.2, 0.5, 0.1]), out, SelectionOptions(max_loss=max_loss))
    assert kept(out) == wanted


def test_another_column_can_be_ordered_by(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b'{"row":0,"mtld":5,"predicted_log_loss":1}\n{"row":1,"mtld":4.5,"predicted_log_loss":2}\n')
    assert select(scored, out, SelectionOptions(top=1), by="mtld").worst == 4.5
    assert kept(out) == [1]


def test_nothing_kept_has_no_worst_value(tmp_path: Path, out: Path) -> None:
    found = select(scored_file(tmp_path, [0.4, 0.2]), out, SelectionOptions(max_loss=0.1))
    left_out = {"predicted_log_loss is more than 0.1": 2}
    assert found == Selection(
        rows=2, without_value=0, kept=0, worst=None, left_out=left_out, remarks=("nothing was kept",)
    )
    assert out.read_bytes() == b""


def test_an_empty_file_gives_an_empty_choice(tmp_path: Path, out: Path) -> None:
    assert select(scored_file(tmp_path, []), out, SelectionOptions(top=5)) == Selection(0, 0, 0, None)


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
            select(scored_file(folder, losses), out, SelectionOptions(top=top))
        return
    found = select(scored_file(folder, losses), out, SelectionOptions(top=top))
    assert kept(out) == [row for _, row in sorted(known)][:top]
    assert found.without_value == len(losses) - len(known)
    assert found.kept == min(top, len(known))


# Ways that go together


def row_of(loss: float | None, **fields: object) -> dict[str, object]:
    return {PREDICTION: loss} | fields


def chosen(out: Path) -> list[object]:
    return [orjson.loads(line)["n"] for line in out.read_bytes().splitlines()]


def test_a_token_budget_takes_rows_in_order_up_to_the_first_that_exceeds_it(
    write_rows: Callable[..., Path], out: Path
) -> None:
    lengths = [(1, 4), (2, 3), (5, 1), (1, 1)]  # 5, 5, 6 and 2 tokens
    rows = [row_of(n / 8, n=n, input_length=a, output_length=b) for n, (a, b) in enumerate(lengths)]
    found = select(write_rows(*rows), out, SelectionOptions(tokens=13))
    assert chosen(out) == [0, 1]  # the last row would fit, but stands behind the one that does not
    assert found.tokens == 10
    assert found.left_out == {"beyond the token budget": 2}
    select(write_rows(*rows), out, SelectionOptions(tokens=16), overwrite=True)
    assert chosen(out) == [0, 1, 2]


def test_rows_of_unknown_length_do_not_count_as_free(write_rows: Callable[..., Path], out: Path) -> None:
    rows = [row_of(0.1, n=0, input_length=None, output_length=2), row_of(0.2, n=1, input_length=1, output_length=2)]
    assert select(write_rows(*rows), out, SelectionOptions(tokens=3)).left_out == {
        "input_length or output_length is null": 1
    }
    assert chosen(out) == [1]


def test_several_limits_keep_what_is_within_all_of_them(write_rows: Callable[..., Path], out: Path) -> None:
    rows = [row_of(n / 8, n=n, input_length=1, output_length=1) for n in range(8)]
    for choice, wanted in [
        (SelectionOptions(top=5, tokens=6), 3),
        (SelectionOptions(top=2, tokens=6), 2),
        (SelectionOptions(fraction=0.5, max_loss=0.25), 3),  # half of the eight, and of these up to 0.25
        (SelectionOptions(fraction=0.25, max_loss=9), 2),
        (SelectionOptions(top=7, fraction=0.5, max_loss=0.75, tokens=100), 4),
    ]:
        select(write_rows(*rows), out, choice, overwrite=True)
        assert chosen(out) == list(range(wanted)), choice


def test_conditions_say_which_rows_a_fraction_is_of(write_rows: Callable[..., Path], out: Path) -> None:
    rows = [row_of(n / 8, n=n, mtld=n % 4, rating=None if n == 2 else n) for n in range(8)]
    rows[6].pop("rating")
    found = select(write_rows(*rows), out, SelectionOptions(fraction=0.5, where=["mtld>=2", "rating != 3"]))
    assert chosen(out) == [7]  # of 2, 3, 6 and 7 one has a null, one the wrong rating, one no rating at all
    assert found.left_out == {"fails mtld>=2": 4, "rating is null": 2, "fails rating!=3": 1}


def test_columns_with_a_prefix_are_named_without_it_and_fields_of_the_rows_as_they_are(
    write_rows: Callable[..., Path], out: Path
) -> None:
    rows = [{"n": n, "rating": n, "mtld": 0, "im_mtld": n, "im_predicted_log_loss": n / 8} for n in range(6)]
    select(write_rows(*rows), out, SelectionOptions(where=["mtld>1", "rating<5"]), prefix="im_")
    assert chosen(out) == [2, 3, 4]


def test_top_and_fraction_hold_in_each_group(write_rows: Callable[..., Path], out: Path) -> None:
    sources: list[object] = ["a", "b", "a", "a", 5, "a", None, "b"]
    rows = [row_of(n / 8, n=n, source=source) for n, source in enumerate(sources)]
    del rows[6]["source"]  # missing is a group of its own
    scored = write_rows(*rows)
    found = select(scored, out, SelectionOptions(top=1, group_by="source"))
    assert chosen(out) == [0, 1, 4, 6]
    assert found.left_out == {"the group is full": 4}
    select(scored, out, SelectionOptions(fraction=0.5, group_by="source"), overwrite=True)
    assert chosen(out) == [0, 1, 2, 4, 6]  # 2 of 4, 1 of 2, and one row's half is rounded up
    groups = orjson.loads(Path(f"{out}.selection.json").read_bytes())["counts"]["groups"]
    assert groups["a"] == {"candidates": 4, "at_most": 2, "kept": 2}
    assert list(groups) == ["a", "b", "5", "null"]


def test_quotas_stand_in_place_of_top_and_other_groups_keep_nothing_without_one(
    write_rows: Callable[..., Path], out: Path
) -> None:
    rows = [row_of(n / 16, n=n, source="abc"[n % 3]) for n in range(12)]
    scored = write_rows(*rows)
    found = select(scored, out, SelectionOptions(group_by="source", quotas={"a": 3, "b": 9}))
    assert chosen(out) == [0, 1, 3, 4, 6, 7, 10]
    assert found.left_out == {"the group has no quota": 4, "the group is full": 1}
    assert found.remarks == ("group 'b': 4 of its quota of 9",)
    select(scored, out, SelectionOptions(group_by="source", quotas={"a": 3}, top=1), overwrite=True)
    assert chosen(out) == [0, 1, 2, 3, 6]


ROWS = st.lists(
    st.tuples(st.none() | st.integers(-3, 3), st.integers(0, 5), st.sampled_from("ab"), st.none() | st.integers(0, 3)),
    min_size=1,
    max_size=12,
).filter(lambda rows: any(row[0] is not None for row in rows))


@settings(max_examples=60, deadline=None)
@given(
    rows=ROWS,
    top=st.none() | st.integers(1, 6),
    tokens=st.none() | st.integers(1, 20),
    max_loss=st.none() | st.integers(-2, 2),
    grouped=st.booleans(),
)
def test_any_combination_is_the_rows_taken_one_by_one(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int | None, int, str, int | None]],
    top: int | None,
    tokens: int | None,
    max_loss: int | None,
    grouped: bool,
) -> None:
    folder = tmp_path_factory.mktemp("select")
    fields = [
        row_of(loss, n=n, input_length=length, output_length=1, source=source, rating=rating)
        for n, (loss, length, source, rating) in enumerate(rows)
    ]
    (folder / "scored.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in fields))
    choice = SelectionOptions(
        top=top, tokens=tokens, max_loss=max_loss, where=["rating>=1"], group_by="source" if grouped else None
    )
    extras = Extras(explain=folder / "why.jsonl", random_baseline=folder / "random.jsonl")
    found = select(folder / "scored.jsonl", folder / "best.jsonl", choice, extras=extras)
    wanted: list[int] = []
    of_group: dict[str, int] = {}
    for loss, n in sorted((row[0], n) for n, row in enumerate(rows) if row[0] is not None and (row[3] or 0) >= 1):
        group = rows[n][2] if grouped else ""
        if max_loss is not None and loss > max_loss:
            continue
        if top is not None and of_group.get(group, 0) == top:
            continue
        if tokens is not None and sum(rows[row][1] + 1 for row in wanted) + rows[n][1] + 1 > tokens:
            break
        of_group[group] = of_group.get(group, 0) + 1
        wanted.append(n)
    assert chosen(folder / "best.jsonl") == wanted
    assert found.kept + sum(found.left_out.values()) == found.rows == len(rows)
    why = [orjson.loads(line) for line in (folder / "why.jsonl").read_bytes().splitlines()]
    assert [line["row"] - 1 for line in sorted(why, key=lambda line: line["place"] or 99) if line["kept"]] == wanted
    assert all((line["reason"] is None) == line["kept"] == (line["row"] - 1 in wanted) for line in why)
    drawn = chosen(folder / "random.jsonl")
    assert len(drawn) == len(wanted)
    assert set(drawn) <= {n for n, row in enumerate(rows) if row[0] is not None}


# A random subset of equal size, and the selection file


def test_the_random_baseline_has_as_many_rows_of_all_that_have_a_value(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [None if n % 5 == 0 else n / 64 for n in range(50)])
    drawn = []
    for seed in (0, 0, 1):
        extras = Extras(random_baseline=tmp_path / "random.jsonl", seed=seed)
        select(scored, out, SelectionOptions(max_loss=0.2), extras=extras, overwrite=True)
        drawn.append(kept(tmp_path / "random.jsonl"))
    assert drawn[0] == drawn[1] != drawn[2]
    assert drawn[0] == sorted(set(drawn[0]))
    assert len(drawn[0]) == len(kept(out)) == 10
    assert not any(row % 5 == 0 for row in drawn[0])
    assert max(drawn[0]) > 12  # not the best, which end there
    said = orjson.loads(Path(f"{out}.selection.json").read_bytes())["random_baseline"]
    assert said == {"file": str(tmp_path / "random.jsonl"), "seed": 1, "rows": 10}


def test_a_smaller_random_baseline_is_a_part_of_a_larger_one(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [n / 64 for n in range(40)])
    drawn = []
    for top in (5, 20):
        extras = Extras(random_baseline=tmp_path / "random.jsonl", seed=3)
        select(scored, out, SelectionOptions(top=top), extras=extras, overwrite=True)
        drawn.append(set(kept(tmp_path / "random.jsonl")))
    assert drawn[0] < drawn[1]


def test_every_row_is_drawn_as_often_as_another() -> None:
    candidates = np.arange(0, 40, 2)
    counts = np.zeros(40)
    for seed in range(2000):
        counts[random_rows(candidates, 5, seed)] += 1
    expected, spread = 2000 * 5 / 20, math.sqrt(2000 * 0.25 * 0.75)
    assert np.abs(counts[candidates] - expected).max() < 4.5 * spread
    assert counts[1::2].sum() == 0


def test_the_same_selection_gives_the_same_bytes_in_every_file(tmp_path: Path) -> None:
    scored = scored_file(tmp_path, [None, 0.25, 0.125, 0.25, -1.0, 0.5])
    written = []
    for _ in range(2):
        extras = Extras(explain=tmp_path / "why.jsonl.gz", random_baseline=tmp_path / "random.jsonl", seed=7)
        select(scored, tmp_path / "best.jsonl.zst", SelectionOptions(top=3), extras=extras, overwrite=True)
        written.append({path.name: path.read_bytes() for path in tmp_path.iterdir()})
    assert written[0] == written[1]
    assert sorted(written[0]) == [
        "best.jsonl.zst",
        "best.jsonl.zst.selection.json",
        "random.jsonl",
        "scored.jsonl",
        "why.jsonl.gz",
    ]


def test_the_selection_file_tells_the_input_the_settings_and_the_counts(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [None, 0.25, 0.125, 0.5])
    select(scored, out, SelectionOptions(top=2, where=["mtld <= 0.250"]), keep_scores=True)
    said = orjson.loads(Path(f"{out}.selection.json").read_bytes())
    assert said["scored"]["sha256"] == hashlib.sha256(scored.read_bytes()).hexdigest()
    assert said["choice"]["top"] == 2
    assert said["choice"]["where"] == ["mtld<=0.25"]
    assert (said["by"], said["descending"], said["keep_scores"]) == (PREDICTION, False, True)
    counts = {"rows": 4, "candidates": 2, "kept": 2, "groups": None}
    assert said["counts"] == counts | {"left_out": {"predicted_log_loss is null": 1, "fails mtld<=0.25": 1}}


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
    select(scored, out, SelectionOptions(top=1), prefix=prefix)
    assert out.read_bytes() == raw + b"\n"


def test_a_row_without_scores_ordered_by_a_field_of_its_own_comes_back_byte_for_byte(tmp_path: Path, out: Path) -> None:
    raw = b'{"rating": 3}'
    row = SourceRow("rows.jsonl", 1, 0, raw, orjson.loads(raw))
    notes = {"ifd": "the response is a single token", "knn_6": "1 rows in the run"}  # the corpus pass comes last
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(splice(ScoredRow(Example(TURNS, row), {"knn_6": None, "ifd": None}, (), notes)) + b"\n")
    select(scored, out, SelectionOptions(top=1), by="rating")
    assert out.read_bytes() == raw + b"\n"


def test_scores_are_kept_where_asked(tmp_path: Path, out: Path) -> None:
    lines = [score_line(b'{"row":0}', 0.5), score_line(b'{"row":1}', 0.25)]
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b"".join(lines))
    select(scored, out, SelectionOptions(top=2), keep_scores=True)
    assert out.read_bytes() == lines[1] + lines[0]


def test_compressed_files_go_in_and_out(tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl.zst"
    scored.write_bytes(zstandard.compress(score_line(b'{"row":0}', 0.5) + score_line(b'{"row":1}', 0.25)))
    select(scored, tmp_path / "best.jsonl.gz", SelectionOptions(top=2))
    assert gzip.decompress((tmp_path / "best.jsonl.gz").read_bytes()) == b'{"row":1}\n{"row":0}\n'
    select(scored, tmp_path / "best.jsonl.zst", SelectionOptions(top=1))
    packed = io.BytesIO((tmp_path / "best.jsonl.zst").read_bytes())
    assert zstandard.ZstdDecompressor().stream_reader(packed).read() == b'{"row":1}\n'


def test_fewer_rows_than_wanted_are_told(write_rows: Callable[..., Path], out: Path) -> None:
    scored = write_rows(*(row_of(at, n=at) for at in range(4)))
    assert select(scored, out, top=4).remarks == ()
    assert select(scored, out, top=1000, overwrite=True).remarks == ("4 of the 1,000 rows wanted",)
    assert select(scored, out, top=1000, fraction=0.5, overwrite=True).remarks == ()  # the other limit is meant


# Choices and files that cannot be


@pytest.mark.parametrize("given", [{}, {"group_by": "source"}])
def test_at_least_one_way_of_choosing_is_wanted(given: dict[str, str]) -> None:
    with pytest.raises(SelectionError, match="at least one of top, fraction, max_loss, tokens, where, quotas"):
        SelectionOptions(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"top": 0}, "top is 0, wanted at least 1"),
        ({"fraction": 0.0}, "fraction is 0.0, wanted more than 0 and at most 1"),
        ({"fraction": 1.5}, "fraction is 1.5, wanted more than 0 and at most 1"),
        ({"fraction": math.nan}, "fraction is nan, wanted more than 0 and at most 1"),
        ({"max_loss": math.nan}, "max_loss is nan"),
        ({"tokens": 0}, "tokens is 0, wanted at least 1"),
        ({"where": ["mtld=3"]}, "condition 'mtld=3': wanted NAME OP VALUE"),
        ({"quotas": {"a": 1}}, "give group_by"),
        ({"group_by": "a", "quotas": {"a": -1}}, "quota of 'a' is -1, wanted at least 0"),
        ({"top": 2**63}, "top is 9223372036854775808 .*, wanted at most 9223372036854775807"),
        ({"group_by": "a", "quotas": {"a": 2**63}}, "quota of 'a' is .*, wanted at most"),
        ({"where": ["mtld>0"] * 20_000}, "where has 20,000 conditions, wanted at most 10,000"),
    ],
)
def test_a_choice_out_of_range_is_a_selection_error(given: dict[str, float], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        SelectionOptions(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (SelectionOptions(where=["perplexty<=3"]), "no column 'perplexty'. There are: predicted_log_loss, text, list"),
        (SelectionOptions(where=["text<=3"]), "line 1: column 'text' is 'a', wanted a number"),
        (SelectionOptions(top=1, group_by="sauce"), "no column 'sauce'"),
        (SelectionOptions(top=1, group_by="list"), "line 1: column 'list' is not a single value to group by"),
        (SelectionOptions(group_by="text", quotas={"c": 3}), r"--quota c=3: no group 'c'. There are: a, b"),
        (SelectionOptions(tokens=9), "line 1: no column 'input_length'"),
    ],
)
def test_a_choice_that_the_rows_cannot_answer_is_a_selection_error(
    write_rows: Callable[..., Path], out: Path, choice: SelectionOptions, message: str
) -> None:
    rows = [{PREDICTION: 0.5, "text": text, "list": [1]} for text in "ab"]
    with pytest.raises(SelectionError, match=message):
        select(write_rows(*rows), out, choice)
    assert not out.exists()


@pytest.mark.parametrize("name", ["best.jsonl", "scored.jsonl", "baseline.txt"])
def test_an_extra_that_would_replace_another_file_is_an_output_error(tmp_path: Path, out: Path, name: str) -> None:
    scored = scored_file(tmp_path, [0.5])
    before = scored.read_bytes()
    with pytest.raises(OutputError, match=r"is named for two|which this command reads|wanted a name ending in"):
        select(scored, out, SelectionOptions(top=1), extras=Extras(random_baseline=tmp_path / name), overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scored.jsonl"]
    assert scored.read_bytes() == before


def test_standard_input_cannot_be_selected_from(out: Path) -> None:
    with pytest.raises(InputError, match="standard input and pipes cannot be read twice"):
        select("-", out, SelectionOptions(top=1))


def test_a_row_without_the_column_is_an_error_that_lists_those_it_has(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(b'{"row":0}', 0.5) + b'{"row":1,"label":2}\n')
    with pytest.raises(SelectionError, match=r"line 2: no column 'predicted_log_loss'. There are: row, label"):
        select(scored, out, SelectionOptions(top=1))
    assert not out.exists()


def test_a_column_that_holds_text_is_a_selection_error(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(b'{"predicted_log_loss":"low"}\n')
    with pytest.raises(SelectionError, match="column 'predicted_log_loss' is 'low', wanted a number"):
        select(scored, out, SelectionOptions(top=1))


def test_a_line_that_is_no_row_is_a_selection_error(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(b'{"row":0}', 0.5) + b"oops\n")
    with pytest.raises(SelectionError, match=r"line 2: invalid JSON.*; wanted a file that score wrote"):
        select(scored, out, SelectionOptions(top=1))


def test_a_missing_scored_file_is_an_input_error(tmp_path: Path, out: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        select(tmp_path / "gone.jsonl", out, SelectionOptions(top=1))


def test_an_out_that_exists_is_kept_unless_overwrite_is_given(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [0.5])
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        select(scored, out, SelectionOptions(top=1))
    assert out.read_bytes() == b"old"
    select(scored, out, SelectionOptions(top=1), overwrite=True)
    assert out.read_bytes() == b'{"row":0}\n'


def test_an_unknown_suffix_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"wanted a name ending in \.jsonl"):
        select(scored_file(tmp_path, [0.5]), tmp_path / "best.txt", SelectionOptions(top=1))


def test_an_out_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"best\.jsonl.*: Not a directory"):
        select(scored_file(tmp_path, [0.5]), tmp_path / "scored.jsonl" / "best.jsonl", SelectionOptions(top=1))


def test_a_folder_for_out_is_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "best.jsonl"
    select(scored_file(tmp_path, [0.5]), out, SelectionOptions(top=1))
    assert sorted(path.name for path in out.parent.iterdir()) == ["best.jsonl", "best.jsonl.selection.json"]


def test_a_choice_that_fails_leaves_nothing_behind(tmp_path: Path, out: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(score_line(b'{"row":0}', 0.5) + b"oops\n")
    with pytest.raises(SelectionError):
        select(scored, out, SelectionOptions(top=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scored.jsonl"]


# The command line


def lines(path: Path) -> list[dict[str, object]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_the_command_combines_budgets_conditions_and_quotas(
    run: Callable[..., int], write_rows: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [row_of(n / 16, n=n, source="ab"[n % 2], mtld=n, input_length=1, output_length=1) for n in range(12)]
    scored = write_rows(*rows)
    arguments = ("--where", "mtld>=2", "--group-by", "source", "--quota", "a=3", "--quota", "b=1", "--tokens", 6)
    assert run("select", scored, "-o", out, *arguments) == 0
    assert chosen(out) == [2, 3, 4]
    said = capsys.readouterr()
    assert said.out == ""
    assert "kept 3 of 12 rows, predicted_log_loss up to 0.2500, 6 of 6 tokens" in said.err
    assert "left out: 2, fails mtld>=2" in said.err
    assert "caution: group 'a': 2 of its quota of 3" in said.err


def test_quotas_can_stand_in_a_file(run: Callable[..., int], write_rows: Callable[..., Path], out: Path) -> None:
    scored = write_rows(*[row_of(n / 16, n=n, source="ab"[n % 2]) for n in range(8)])
    quotas = out.parent / "quotas.json"
    quotas.write_text('{"a": 1, "b": 2}')
    assert run("select", scored, "-o", out, "--group-by", "source", "--quota", quotas) == 0
    assert chosen(out) == [0, 1, 3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give at least one of --top, --fraction"),
        (("--where", "mtld~3"), "wanted NAME OP VALUE"),
        (("--quota", "a=3"), "give group_by (--group-by)"),
        (("--group-by", "source", "--quota", "gone.json"), "wanted GROUP=N or a JSON file"),
        (("--fraction", "0"), "0: wanted more than 0 and at most 1"),
        (("--fraction", "25"), "25: wanted more than 0 and at most 1; 25% is 0.25"),
        (("--distinct", "0"), "wanted more than 0 and at most 2"),
        (("--max-loss", "1", "--descending"), "cannot be used with --descending"),
    ],
)
def test_a_choice_that_cannot_be_meant_is_wrong_usage(
    run: Callable[..., int],
    write_rows: Callable[..., Path],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    assert run("select", write_rows(row_of(0.5, n=0)), "-o", out, *arguments) == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not out.exists()


def test_text_conditions_keep_the_rows_of_a_category(
    run: Callable[..., int], write_rows: Callable[..., Path], out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    categories = ["science", "open qa", None, "science"]
    scored = write_rows(*(row_of(n / 16, n=n, category=category) for n, category in enumerate(categories)))
    assert run("select", scored, "-o", out, "--where", 'category=="open qa"') == 0
    assert chosen(out) == [1]
    assert run("select", scored, "-o", out, "--where", "category!=science", "--overwrite") == 0
    assert chosen(out) == [1]
    said = capsys.readouterr().err
    assert "left out: 2, fails category!=science" in said
    assert "left out: 1, category is null" in said
    assert run("select", scored, "-o", out, "--where", "category>=science", "--overwrite") == 2
    assert "compares numbers, and 'science' is none" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--where", "perplexty<3"), "no column 'perplexty'; did you mean 'perplexity'?"),
        (("--group-by", "categry", "--top", "1"), "no column 'categry'; did you mean 'category'?"),
        (("--by", "predicted_loss"), "no column 'predicted_loss'; did you mean 'predicted_log_loss'?"),
    ],
)
def test_a_misspelt_column_is_said_before_a_bundle_is_opened(
    run: Callable[..., int],
    write_rows: Callable[..., Path],
    out: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    message: str,
) -> None:
    scored = write_rows(row_of(0.5, n=0, category="a", perplexity=2.0))
    assert run("select", scored, "-o", out, "--distinct", "0.3", "--bundle", "not-there", *options) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "There are: n, category, perplexity, predicted_log_loss" in said or "There are: predicted_log_loss" in said


def test_rows_go_to_standard_output_alone(
    run: Callable[..., int], write_rows: Callable[..., Path], tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    scored = write_rows(*(row_of(n / 16, n=n) for n in range(4)))
    why = tmp_path / "why.jsonl"
    assert run("select", scored, "-o", "-", "--top", "2", "--explain", why) == 0
    said = capfdbinary.readouterr()
    assert said.out == b'{"n": 0}\n{"n": 1}\n'
    assert b"kept 2 of 4 rows" in said.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.jsonl", "why.jsonl"]


def test_a_reader_that_goes_away_ends_the_command_quietly(tmp_path: Path) -> None:
    scored = tmp_path / "scored.jsonl"
    scored.write_bytes(
        b"".join(score_line(b'{"row":%d,"x":"%s"}' % (n, b"y" * 200), n / 16) + b"\n" for n in range(9000))
    )
    code = "from instructmining_cli.main import main; main()"
    for arguments in (["select", str(scored), "--top", "9000"], ["rescore", str(scored), "--rule", "rule.json"]):
        (tmp_path / "rule.json").write_text('{"intercept": 1, "terms": {"x_length": 1}}', encoding="utf-8")
        scored.write_bytes(scored.read_bytes().replace(b'"x":"', b'"x_length":1,"x":"'))
        command = [sys.executable, "-c", code, *arguments, "-o", "-"]
        with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(b'{"row":0')
            process.stdout.close()
            assert b"rror" not in process.stderr.read()
        assert process.returncode == 141


def test_the_choice_can_be_said_by_its_fields(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [0.5, 0.25, None, 0.75])
    assert select(scored, out, top=2, where=["predicted_log_loss<0.6"]).kept == 2
    assert kept(out) == [1, 0]
    assert select(scored, out, top=np.int64(3), overwrite=True).kept == 3  # type: ignore[arg-type]


def test_without_out_the_rows_are_in_the_result(tmp_path: Path) -> None:
    scored = scored_file(tmp_path, [0.5, 0.25, 0.75])
    found = select(scored, top=2)
    assert [row["row"] for row in found.kept_rows] == [1, 0]
    assert found.kept == 2
    assert [path.name for path in tmp_path.iterdir()] == [scored.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"top": "3"}, r"top is '3' \(str\), wanted a whole number of rows"),
        ({"top": 2.5}, r"top is 2.5 \(float\)"),
        ({"top": True}, r"top is True \(bool\)"),
        ({"fraction": "half"}, r"fraction is 'half' \(str\), wanted a share"),
        ({"max_loss": "1"}, r"max_loss is '1' \(str\), wanted a number"),
        ({"tokens": 1e3}, r"tokens is 1000.0 \(float\)"),
        ({"where": "mtld<3"}, r"where is 'mtld<3' \(str\), wanted a list of conditions"),
        ({"where": [3]}, r"where is 3 \(int\), wanted conditions as text"),
        ({"group_by": 3, "top": 1}, r"group_by is 3 \(int\), wanted the name of a column"),
        ({"group_by": "a", "quotas": ["a"]}, "quotas is a list, wanted a mapping"),
        ({"group_by": "a", "quotas": {"a": "1"}}, r"quota of 'a' is '1' \(str\)"),
        ({"distinct": 0.3}, r"distinct is 0.3 \(float\), wanted a Distinct"),
        ({"choice": 3}, r"choice is 3 \(int\), wanted a SelectionOptions, as SelectionOptions\(top=3\)"),
        ({"choice": SelectionOptions(top=1), "where": ["a<3"]}, "both a SelectionOptions and where are given"),
        ({"top": 1, "out": 3}, r"out is 3 \(int\), wanted a path"),
        ({"top": 1, "by": None}, "by is None, wanted the name of a column"),
        ({"top": 1, "extras": "why.jsonl"}, r"extras is 'why.jsonl' \(str\), wanted Extras"),
        ({}, "give at least one of top, fraction"),
    ],
)
def test_a_wrong_argument_is_named_with_what_was_wanted(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        select("not-there.jsonl", **arguments)  # type: ignore[arg-type]


def test_a_file_that_changes_between_its_readings_is_an_error_and_leaves_nothing(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = scored_file(tmp_path, [0.1, 0.2, 0.3])
    lines = scored.read_bytes().splitlines(keepends=True)

    def and_then_reversed(source: ScoredRows, choice: SelectionOptions, *, by: str, descending: bool) -> Ranking:
        found = rank(source, choice, by=by, descending=descending)
        scored.write_bytes(b"".join(reversed(lines)) + b"\n")
        return found

    monkeypatch.setattr(selection, "rank", and_then_reversed)
    with pytest.raises(InputError, match="was changed while it was read"):
        select(scored, out, top=1)
    assert not out.exists()


def test_what_is_no_name_of_a_group_is_an_error(write_rows: Callable[..., Path], out: Path) -> None:
    rows = write_rows({PREDICTION: 0.5, "text": "a"}, {PREDICTION: 0.5, "text": 1001 * "b"})
    with pytest.raises(SelectionError, match="line 2: column 'text' has 1,001 characters, wanted a group's name"):
        select(rows, out, top=1, group_by="text")


def test_a_run_file_that_names_what_cannot_be_a_file_is_passed_over(tmp_path: Path, out: Path) -> None:
    scored = scored_file(tmp_path, [0.1, 0.2])
    run = {"rule": {"id": "a\0b", "digest": ""}, "settings": {}}
    Path(f"{scored}.run.json").write_bytes(orjson.dumps(run))
    found = select(scored, out, top=1, extras=Extras(explain=tmp_path / "why.jsonl"))
    assert "names a rule that is not there" in found.remarks[0]


def test_in_a_notebook_a_selection_says_what_was_left_out_and_why_but_shows_no_row(
    write_rows: Callable[..., Path],
) -> None:
    rows = [{"text": f"<b>{n}", PREDICTION: n / 4, "input_length": 0, "output_length": 5} for n in range(4)]
    kept = select(write_rows(*rows, rows[0] | {PREDICTION: None}), top=2, where=['text!="<b>0"'], tokens=10)
    found = read_html(kept._repr_html_())
    assert found.text.strip().splitlines()[0] == "kept 2 of 5 rows, the last at 0.5000, 10 tokens"
    assert found.tables == [[["reason", "rows"], *([why, str(rows)] for why, rows in kept.left_out.items())]]
    assert any("<b>0" in why for why in kept.left_out)
    assert "b" not in found.elements
