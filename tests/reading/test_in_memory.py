"""What Scorer.score takes besides examples, and what it says of anything else."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from instructmining import Example, Reject, Scorer, Statistics, read_examples
from instructmining.errors import InputError, RowError

ROWS = [{"prompt": f"Say {number}.", "response": f"It is said {number} times."} for number in range(5)]
TABLE = pa.Table.from_pylist(ROWS)
ONE = Example.of("a", "b")


class Dataset:
    """As ``datasets.IterableDataset``: rows by batches, and no number of them."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table

    def with_format(self, type: str | None) -> Dataset:  # noqa: A002
        assert type == "arrow"
        return self

    def iter(self, batch_size: int) -> Iterator[pa.Table]:
        yield from (pa.Table.from_batches([batch]) for batch in self.table.to_batches(batch_size))


@pytest.fixture(scope="module")
def scorer(small_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(small_bundle, indicators="output_length,mtld", device="cpu") as opened:
        yield opened


@pytest.mark.parametrize(
    "make",
    [
        lambda: ROWS,
        lambda: tuple(ROWS),
        lambda: iter(ROWS),
        lambda: TABLE,
        TABLE.to_reader,
        lambda: TABLE.to_batches()[0],
        TABLE.to_pandas,
        lambda: pl.from_arrow(TABLE),
        lambda: Dataset(TABLE),
        lambda: read_examples(TABLE),
        lambda: read_examples(ROWS),
    ],
    ids=["list", "tuple", "iterator", "table", "reader", "batch", "pandas", "polars", "datasets", "examples", "rows"],
)
def test_rows_are_scored_from_whatever_holds_them(scorer: Scorer, make: Callable[[], list[dict[str, str]]]) -> None:
    wanted = [row.columns for row in scorer.score([Example.of(row["prompt"], row["response"]) for row in ROWS])]
    found = list(scorer.score(make()))
    assert [row.columns for row in found] == wanted
    assert [row.example.row and row.example.row.fields for row in found] == ROWS
    assert [row.example.row and row.example.row.line for row in found] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "nothing",
    [[], (), iter([]), TABLE.slice(0, 0), Dataset(TABLE.slice(0, 0))],
    ids=["list", "tuple", "iterator", "table", "dataset"],
)
def test_nothing_gives_no_rows(scorer: Scorer, nothing: list[Example]) -> None:
    assert list(scorer.score(nothing)) == []


@pytest.mark.parametrize("make", [list, iter, pa.Table.from_pylist], ids=["list", "iterator", "table"])
def test_a_row_without_an_example_raises_its_number_or_goes_to_who_takes_rejects(
    scorer: Scorer, make: Callable[[list[dict[str, str | None]]], list[dict[str, str]]]
) -> None:
    rows: list[dict[str, str | None]] = [*ROWS[:1], {"prompt": "a", "response": None}, {"prompt": "a", "response": " "}]
    with pytest.raises(RowError, match="line 2: no response: field 'response' is null"):
        list(scorer.score(make(rows)))
    rejects: list[Reject] = []
    counts = Statistics()
    assert len(list(scorer.score(make(rows), on_reject=rejects.append, statistics=counts))) == 1
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (2, "no response: field 'response' is null"),
        (3, "the response is empty"),
    ]
    assert (counts.rows_taken, counts.rows_scored, counts.rows_rejected) == (3, 1, 2)


def test_rows_in_no_known_format_are_an_input_error(scorer: Scorer) -> None:
    with pytest.raises(InputError, match="rows: no known format in the first row; fields found: a"):
        list(scorer.score([{"a": 1}]))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (None, r"what is scored is None; wanted examples \(Example, read_examples\), dicts that are rows"),
        (3, r"what is scored is 3 \(int\); wanted examples"),
        (b"x", r"what is scored is b'x' \(bytes\); wanted examples"),
        ("rows.jsonl", r"the path 'rows.jsonl'; give read_examples\('rows.jsonl'\)"),
        (Path("rows.jsonl"), r"the path 'rows.jsonl'; give read_examples\('rows.jsonl'\)"),
        (io.StringIO("{}"), r"an open file, a StringIO; give read_examples\(PATH\)"),
        (ROWS[0], r"a single dict; give a list of it: \[row\]"),
        (ONE, r"a single Example; give a list of it: \[row\]"),
        ({"train": TABLE, "test": TABLE}, r"several splits \(train, test\); give one of them"),
        (pl.LazyFrame(ROWS), r"a LazyFrame, which has no rows yet; give frame.collect\(\)"),
        ([ONE, None], "item 2 of what is scored is None; wanted examples"),
        (["rows.jsonl"], r"item 1 of what is scored is 'rows.jsonl' \(str\); wanted examples"),
        ([ONE, ROWS[0]], "item 2 of what is scored is a dict; wanted examples"),
        ([ROWS[0], ONE], "rows: item 2 is an Example, wanted a dict"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_scored_is_said_at_once(scorer: Scorer, given: list[Example], message: str) -> None:
    with pytest.raises(InputError, match=message):
        scorer.score(given)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([ONE, ONE, 3], r"item 3 of what is scored is 3 \(int\); wanted examples"),
        ([None], "item 1 of what is scored is None; wanted examples"),
        ([ROWS[0], 3], r"rows: item 2 is 3 \(int\), wanted a dict"),
    ],
)
def test_a_generator_that_yields_something_else_is_said_with_the_place_and_the_type(
    scorer: Scorer, items: list[Example], message: str
) -> None:
    rows = scorer.score(item for item in items)
    with pytest.raises(InputError, match=message):
        list(rows)


def test_a_generator_is_not_taken_from_before_rows_are(scorer: Scorer) -> None:
    taken: list[int] = []

    def rows() -> Iterator[dict[str, str]]:
        for number, row in enumerate(ROWS):
            taken.append(number)
            yield row

    found = scorer.score(rows())
    assert taken == []
    assert len(list(found)) == len(taken) == 5


@pytest.mark.parametrize("name", ["on_reject", "on_progress", "statistics"])
def test_other_arguments_of_a_wrong_type_are_said_at_once(scorer: Scorer, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} is 3 \(int\), wanted a"):
        scorer.score([ONE], **{name: 3})  # type: ignore[arg-type]


def test_embeddings_and_budgets_take_rows_too(small_bundle: Path) -> None:
    with Scorer.open(small_bundle, indicators="knn_6", device="cpu") as scorer:
        (vectors,) = scorer.embeddings(ROWS)
        assert vectors.shape == (5, 32)
        assert scorer.calibrate(ROWS) == scorer.batching
