from __future__ import annotations

import pytest

from instructmining.errors import InputError
from instructmining.reading.formats import FieldOptions
from instructmining.types import Example, Reject
from instructmining_serving.rows import Row, reason_of, window_of, window_of_each

ALPACA: Row = {"instruction": "Name a colour.", "output": "Green."}
PAIR: Row = {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}
TURNS: Row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}


def test_rows_of_a_batch_have_one_format() -> None:
    rows: list[Row] = [ALPACA, TURNS]
    assert [type(item) for item in window_of(rows, FieldOptions()).items] == [Example, Reject]
    with pytest.raises(InputError, match="no known format"):
        window_of([{"x": 1}], FieldOptions())


def test_each_row_of_a_request_has_a_format_of_its_own_and_is_read_as_it_would_be_alone() -> None:
    both: Row = {**TURNS, "prompt": "", "response": "b"}
    one: Row = {"messages": [], "prompt": "a", "response": "b"}
    rows: list[Row] = [ALPACA, ALPACA, {"x": 1}, {"x": 2}, PAIR, {"instruction": "a", "output": ""}, TURNS, both, one]
    items = window_of_each(rows).items
    bad = {2: "no known format", 3: "no known format", 5: "the response is empty"}
    for place, (row, item) in enumerate(zip(rows, items, strict=True)):
        if isinstance(item, Reject):
            number, why = reason_of(item)
            assert (number, bad[place] in why) == (place, True)
            continue
        assert place not in bad
        assert item.row is not None
        assert (item.row.line, item.row.fields) == (place + 1, row)
        (alone,) = window_of([row], FieldOptions()).items
        assert isinstance(alone, Example)
        assert (item.turns, item.rejected) == (alone.turns, alone.rejected)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"foo": 1, "bar": 2},
            "no known format; fields found: bar, foo; wanted for example instruction and output, prompt and response, "
            "or messages",
        ),
        ({"instruction": "a"}, "no response: field 'output' is missing"),
        ({"prompt": "a", "colour": "b"}, "no field for a response (format prompt_response)"),
        ({"output": "a"}, "field 'instruction' is missing"),
        ({"prompt": "a", "chosen": "b"}, "field 'rejected' is missing"),
        ([1], "found a list, wanted an object"),
        (None, "found null, wanted an object"),
        ("a", "found text, wanted an object"),
    ],
)
def test_a_row_without_an_example_says_in_short_what_it_lacks(row: object, reason: str) -> None:
    rejects = window_of_each([ALPACA, row, row]).items[1:]
    assert [reason_of(reject) for reject in rejects if isinstance(reject, Reject)] == [(1, reason), (2, reason)]


def test_text_that_is_not_read_is_named_for_each_row(caplog: pytest.LogCaptureFixture) -> None:
    rows: list[Row] = [{**ALPACA, "response": "Red."}, {**ALPACA, "response": "Green."}, ALPACA, {**PAIR, "note": "b"}]
    items = [item for item in window_of_each(rows).items if isinstance(item, Example)]
    assert [item.unread for item in items] == [("response",), (), (), ("note",)]
    assert Example.of_sides(*items[3].sides).unread == ("note",)
    assert not caplog.records
