from __future__ import annotations

from collections import OrderedDict
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import numpy as np
import orjson
import pandas as pd
import pytest

from instructmining import Reject, Rule, SelectionOptions, compare, describe, read_examples, rescore, select
from instructmining.errors import InputError, RowError, SelectionError
from instructmining.reading.options import ReadOptions
from instructmining.reading.rows import open_rows
from instructmining.types import SourceRow

ROW = {"instruction": "Name a colour.", "output": "Green."}


def fields_of(**fields: object) -> dict[str, object]:
    (row,) = open_rows([fields])
    assert isinstance(row, SourceRow), row
    assert orjson.loads(row.raw) == row.fields
    return dict(row.fields)


def test_rows_come_with_their_numbers_and_as_json() -> None:
    rows = list(open_rows([ROW, {"a": 1}]))
    assert rows[0] == SourceRow("rows", 1, 0, orjson.dumps(ROW), ROW)
    assert rows[1] == SourceRow("rows", 2, 1, b'{"a":1}', {"a": 1})


@pytest.mark.parametrize("kind", [list, tuple, iter])
def test_rows_in_memory_are_examples_of_their_format(kind: type) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    examples = list(read_examples(kind([{"messages": turns}, {"messages": turns}])))
    assert [example.response_texts for example in examples] == [["b"], ["b"]]
    assert [example.row and example.row.fields for example in examples] == [{"messages": turns}] * 2


def test_a_dict_without_an_example_is_a_reject_with_its_number() -> None:
    with pytest.raises(RowError, match="rows, line 2: no response: field 'output' is missing"):
        list(read_examples([ROW, {"instruction": "a"}]))
    rejects: list[Reject] = []
    assert len(list(read_examples([ROW, {"instruction": "a"}, ROW], on_reject=rejects.append))) == 2
    assert [(reject.line, reject.offset, reject.raw) for reject in rejects] == [(2, 1, b'{"instruction":"a"}')]


def test_rows_in_no_known_format_are_an_input_error() -> None:
    with pytest.raises(InputError, match="rows: no known format in the first row; fields found: a"):
        list(read_examples([{"a": 1}]))


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (float("nan"), None),
        (float("-inf"), None),
        (Decimal("1.50"), 1.5),
        (Decimal("NaN"), None),
        (datetime(2026, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=1))), "2026-01-02T03:04:00+01:00"),
        (date(2026, 1, 2), "2026-01-02"),
        (time(3, 4), "03:04:00"),
        (timedelta(seconds=1.5), "PT1.5S"),
        (b"text", "text"),
        (b"\xff", {"base64": "/w=="}),
        ((1, (2,)), [1, [2]]),
        (MappingProxyType({"a": OrderedDict(b=1)}), {"a": {"b": 1}}),
        (np.int8(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64("nan"), None),
        (np.bool_(True), True),
        (np.str_("x"), "x"),
        (np.datetime64("2026-01-02"), "2026-01-02"),
        (np.datetime64("2026-01-02T03:04:05.000001999"), "2026-01-02T03:04:05.000001"),
        (np.datetime64("NaT"), None),
        (np.timedelta64(1500, "ms"), "PT1.5S"),
        (np.array([[1.0, np.nan], [2.0, 3.0]])[:, ::-1], [[None, 1.0], [3.0, 2.0]]),
        (np.array(["a", {"b": b"c"}], dtype=object), ["a", {"b": "c"}]),
        (pd.Timestamp("2026-01-02T03:04:05"), "2026-01-02T03:04:05"),
        (pd.NaT, None),
        (pd.NA, None),
    ],
    ids=repr,
)
def test_a_value_that_json_has_not_is_written_as_those_of_tables(value: object, wanted: object) -> None:
    assert fields_of(value=value) == {"value": wanted}


def test_integers_beyond_64_bits_stay_what_they_are() -> None:
    assert fields_of(value=[2**70, {"a": -(2**70)}]) == {"value": [2**70, {"a": -(2**70)}]}


def test_conversations_that_pandas_has_made_arrays_of_are_read() -> None:
    turns = np.array([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], dtype=object)
    (example,) = read_examples([{"messages": turns}])
    assert example.response_texts == ["b"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({1, 2}, "a set is not written as JSON"),
        (10**400, "number is infinity"),
        ("\ud800", "not valid UTF-8"),
        ({1: 2}, "Dict key must be str"),
        (1j, "a complex is not written as JSON"),
        (np.longdouble(1), "recursion"),
    ],
    ids=repr,
)
def test_what_cannot_be_written_is_a_reject_with_its_reason_and_costs_no_other(value: object, reason: str) -> None:
    bad, good = open_rows([{"output": "a", "value": value}, ROW])
    assert isinstance(good, SourceRow)
    assert isinstance(bad, Reject)
    assert bad.reason.startswith("field 'value': ")
    assert reason in bad.reason
    assert (bad.line, bad.raw) == (1, b'{"output":"a"}')


def test_a_row_over_the_limit_is_a_reject() -> None:
    bad, good = open_rows([{"output": "x" * 2000}, ROW], ReadOptions(max_row_bytes=1500))
    assert isinstance(bad, Reject)
    assert (bad.reason, len(bad.raw)) == ("row is longer than 1500 bytes", 1000)
    assert isinstance(good, SourceRow)


def test_what_is_read_from_a_position_is_what_would_have_followed() -> None:
    rows = [ROW | {"id": number} for number in range(30)]
    windows = list(read_examples(rows).windows(7))
    assert windows[1].end is not None
    reader = read_examples(rows)
    reader.begin_after(windows[1].end)
    assert list(reader.windows(7)) == windows[2:]


def test_an_item_that_is_no_row_is_named_by_its_place_at_once_in_a_list_and_when_it_comes_from_an_iterator() -> None:
    with pytest.raises(InputError, match=r"rows: item 2 is 'x' \(str\), wanted a dict"):
        read_examples([ROW, "x"])  # type: ignore[list-item]
    examples = read_examples(iter([ROW, None]))  # type: ignore[list-item]
    with pytest.raises(InputError, match="rows: item 2 is None, wanted a dict"):
        list(examples)


def test_a_single_row_is_answered_with_how_it_is_given() -> None:
    with pytest.raises(InputError, match=r"a dict is neither a path nor a table; pass a single row as a list, \[row\]"):
        read_examples(ROW)  # type: ignore[arg-type]


def test_a_list_of_scored_rows_is_described_but_not_an_iterator_which_is_read_once() -> None:
    rows = [{"output": "a", "mtld": 1.0}, {"output": "b", "mtld": 2.0}]
    described = describe(rows)
    assert (described.name, described.columns["mtld"].mean) == ("rows", 1.5)
    with pytest.raises(SelectionError, match="can be read only once"):
        describe(iter(rows))


def test_a_list_of_scored_rows_is_compared_rescored_and_selected_from(tmp_path: Path) -> None:
    rows = [{"output": "a", "mtld": 1.0}, {"output": "b", "mtld": 2.0}]
    assert compare(rows, rows[:1]).left == 1
    assert rescore(rows, tmp_path / "rescored.jsonl", Rule("mine", 0.5, {"mtld": -1.0})).rows == 2
    predicted = [
        orjson.loads(line)["predicted_log_loss"] for line in (tmp_path / "rescored.jsonl").read_bytes().splitlines()
    ]
    assert predicted == [-0.5, -1.5]
    assert select(rows, tmp_path / "best.jsonl", SelectionOptions(top=1), by="mtld").kept == 1
    assert (tmp_path / "best.jsonl").read_bytes() == b'{"output":"a"}\n'
