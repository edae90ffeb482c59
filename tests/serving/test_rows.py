from __future__ import annotations

import pytest

from instructmining.types import Example, Reject
from instructmining_serving.rows import Row, RowsRefusedError, accepted_window, reason_of, window_of, window_of_each

ALPACA: Row = {"instruction": "Name a colour.", "output": "Green."}
PAIR: Row = {"prompt": "Say hello.", "chosen": "Hello!", "rejected": "No."}
TURNS: Row = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}]}


def test_rows_of_one_request_have_one_format() -> None:
    assert all(isinstance(item, Example) for item in accepted_window([ALPACA, ALPACA]).items)
    with pytest.raises(RowsRefusedError, match="no known format"):
        accepted_window([{"x": 1}])


def test_each_row_of_a_stream_has_a_format_of_its_own_and_is_read_as_it_would_be_alone() -> None:
    rows: list[Row] = [ALPACA, ALPACA, {"x": 1}, {"x": 2}, PAIR, {"instruction": "a", "output": ""}, TURNS, ALPACA]
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
        (alone,) = window_of([row]).items
        assert isinstance(alone, Example)
        assert (item.turns, item.rejected) == (alone.turns, alone.rejected)
