from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError, RowError
from instructmining.reading import blocks
from instructmining.reading.example_reader import DETECTION_ROWS, ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.reading.options import ReadOptions
from instructmining.types import COLUMNS, InputWindow, Position, Reject

ALPACA = {"instruction": "a", "input": "", "output": "b"}
MESSAGES = {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}


def lines(*rows: object) -> bytes:
    return b"".join((row if isinstance(row, bytes) else orjson.dumps(row)) + b"\n" for row in rows)


def write(path: Path, *rows: object) -> Path:
    path.write_bytes(lines(*rows))
    return path


def test_examples_come_in_the_order_of_the_files_with_their_rows(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", ALPACA, {**ALPACA, "output": "x"})
    second = tmp_path / "b.json.gz"
    second.write_bytes(gzip.compress(orjson.dumps([MESSAGES])))
    examples = list(read_examples([first, str(second)]))
    assert [example.response_texts for example in examples] == [["b"], ["x"], ["d"]]
    assert [example.row and (example.row.source, example.row.line) for example in examples] == [
        (str(first), 1),
        (str(first), 2),
        (str(second), 1),
    ]


def test_one_path_needs_no_list(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ALPACA)
    assert len(list(read_examples(path))) == len(list(read_examples(str(path)))) == 1


def test_the_format_is_detected_in_each_file_and_holds_for_all_its_rows(tmp_path: Path) -> None:
    rejects: list[Reject] = []
    first = write(tmp_path / "a.jsonl", ALPACA, MESSAGES)
    second = write(tmp_path / "b.jsonl", MESSAGES)
    examples = list(read_examples([first, second], on_reject=rejects.append))
    assert [example.response_texts for example in examples] == [["b"], ["d"]]
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "field 'instruction' is missing")]


def test_a_format_that_is_given_is_not_detected(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**ALPACA, **MESSAGES})
    (example,) = read_examples(path, format="messages")
    assert example.response_texts == ["d"]


def test_an_unknown_format_name_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(InputError, match=r"no format 'vicuna'. There are: preference, alpaca, sharegpt, messages, "):
        read_examples(path, format="vicuna")  # type: ignore[arg-type]


def test_a_file_in_no_known_format_is_an_input_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"title": "a"}, {"title": "b"})
    with pytest.raises(InputError, match=r"a\.jsonl: no known format in the first 2 rows; fields found: title"):
        list(read_examples(path))


def test_bad_rows_do_not_hide_the_format(tmp_path: Path) -> None:
    rejects: list[Reject] = []
    path = write(tmp_path / "a.jsonl", b"{", {"text": "?"}, ALPACA)
    assert len(list(read_examples(path, on_reject=rejects.append))) == 1
    assert [reject.line for reject in rejects] == [1, 2]


def test_a_file_that_begins_with_many_bad_rows_is_still_read(tmp_path: Path) -> None:
    rejects: list[Reject] = []
    path = write(tmp_path / "a.jsonl", *[b"{"] * (DETECTION_ROWS + 1), MESSAGES)
    (example,) = read_examples(path, on_reject=rejects.append)
    assert example.response_texts == ["d"]
    assert len(rejects) == DETECTION_ROWS + 1


# Counts


def test_rows_rejects_and_blank_lines_are_counted_over_all_files(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", ALPACA, b"", b"{", ALPACA, b"  ")
    second = write(tmp_path / "b.jsonl", b"", MESSAGES, {**MESSAGES, "messages": []})
    rejects: list[Reject] = []
    reader = read_examples([first, second], on_reject=rejects.append)
    assert (reader.rows, reader.rejected, reader.blank) == (0, 0, 0)
    assert len(list(reader)) == 3
    assert (reader.rows, reader.rejected, reader.blank) == (5, 2, 3)
    assert [(reject.source, reject.line, reject.offset) for reject in rejects] == [
        (str(first), 3, len(lines(ALPACA, b""))),
        (str(second), 3, len(lines(b"", MESSAGES))),
    ]


def test_an_empty_file_has_no_examples(tmp_path: Path) -> None:
    reader = read_examples(write(tmp_path / "a.jsonl"))
    assert list(reader) == []
    assert (reader.rows, reader.share_read) == (0, 1.0)


def test_the_share_read_grows_to_one_over_all_files(tmp_path: Path) -> None:
    paths = [write(tmp_path / name, *[ALPACA] * 10) for name in ("a.jsonl", "b.jsonl", "c.jsonl")]
    reader = read_examples(paths)
    assert reader.share_read == 0.0
    shares: list[float | None] = [reader.share_read for _ in reader]
    known = [share for share in shares if share is not None]
    assert len(known) == 30
    assert known == sorted(known)
    assert reader.share_read == 1.0


# Limit


@pytest.mark.parametrize(("limit", "wanted"), [(0, 0), (1, 1), (3, 2), (5, 4), (9, 5)])
def test_a_limit_counts_rows_over_all_files_bad_ones_included(tmp_path: Path, limit: int, wanted: int) -> None:
    paths = [
        write(tmp_path / "a.jsonl", ALPACA, b"{", ALPACA, ALPACA),
        write(tmp_path / "b.jsonl", MESSAGES, MESSAGES),
    ]
    rejects: list[Reject] = []
    reader = read_examples(paths, limit=limit, on_reject=rejects.append)
    assert len(list(reader)) == wanted
    assert reader.rows == min(limit, 6)
    assert len(rejects) == (1 if limit > 1 else 0)


def test_a_limit_beyond_the_rows_that_show_the_format_holds(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *[ALPACA] * (DETECTION_ROWS + 10))
    assert len(list(read_examples(path, limit=DETECTION_ROWS + 5))) == DETECTION_ROWS + 5


def test_a_file_behind_the_limit_is_not_looked_at(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.jsonl", ALPACA, ALPACA), write(tmp_path / "b.jsonl", {"text": "no format"})]
    assert len(list(read_examples(paths, limit=2))) == 2


# Rejects


def test_without_anyone_to_take_it_the_first_bad_row_raises_its_place_and_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ALPACA, {"instruction": "a", "output": " "}, ALPACA)
    examples = iter(read_examples(path))
    next(examples)
    with pytest.raises(RowError, match=r"a\.jsonl, line 2: the response is empty"):
        next(examples)


def test_a_reject_keeps_the_bytes_of_its_row(tmp_path: Path) -> None:
    rejects: list[Reject] = []
    path = write(tmp_path / "a.jsonl", ALPACA, b'{"instruction" : "a","output": null}', b'{"a":"\xff"}')
    list(read_examples(path, on_reject=rejects.append))
    assert [reject.raw for reject in rejects] == [b'{"instruction" : "a","output": null}', b'{"a":"\xff"}']


def test_a_row_over_the_limit_of_bytes_is_a_reject(tmp_path: Path) -> None:
    rejects: list[Reject] = []
    path = write(tmp_path / "a.jsonl", ALPACA, {**ALPACA, "output": "x" * 100}, ALPACA)
    assert len(list(read_examples(path, options=ReadOptions(60), on_reject=rejects.append))) == 2
    assert [(reject.line, reject.reason) for reject in rejects] == [(2, "row is longer than 60 bytes")]


# Names that are taken


def test_a_taken_column_name_is_an_input_error_that_offers_a_prefix(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ALPACA, {**ALPACA, "mtld": 3})
    with pytest.raises(InputError, match=r"a\.jsonl, line 2: the row has a field 'mtld'.*give --prefix"):
        list(read_examples(path, columns=COLUMNS))


def test_a_taken_column_name_in_a_later_row_is_a_reject(tmp_path: Path) -> None:
    rejects: list[Reject] = []
    path = write(tmp_path / "a.jsonl", *[ALPACA] * DETECTION_ROWS, {**ALPACA, "mtld": 3}, ALPACA)
    assert len(list(read_examples(path, columns=COLUMNS, on_reject=rejects.append))) == DETECTION_ROWS + 1
    assert [reject.line for reject in rejects] == [DETECTION_ROWS + 1]
    assert "field 'mtld' is also a column of score; --prefix" in rejects[0].reason


def test_a_field_that_no_column_hides_is_fine(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {**ALPACA, "mtld": 3})
    assert len(list(read_examples(path, columns=["im_mtld", "perplexity"]))) == 1


# Files


def test_a_missing_file_or_an_empty_folder_is_an_input_error_before_anything_is_read(tmp_path: Path) -> None:
    good = write(tmp_path / "a.jsonl", ALPACA)
    with pytest.raises(InputError, match=r"gone\.jsonl: No such file"):
        read_examples([good, tmp_path / "gone.jsonl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: the folder holds no file of rows"):
        read_examples([good, tmp_path / "empty"])


# Going on from a position


def every(reader: ExampleReader, rows: int) -> list[InputWindow]:
    return list(reader.windows(rows))


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_what_is_read_from_a_position_is_what_would_have_followed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("input")
    bad = st.sampled_from([b"{", b"[1]", b"\xff", b'{"instruction": "a"}', b'"text"', b"5"])
    good = st.builds(lambda text: json.dumps({"instruction": text, "output": f"{text}."}).encode(), st.text(max_size=9))
    paths = []
    for number in range(data.draw(st.integers(1, 3))):
        rows = data.draw(st.lists(st.one_of(good, good, bad), max_size=30))
        kind = data.draw(st.sampled_from([".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz"]))
        blank = data.draw(st.sampled_from([b"\n", b"\n\n", b"\r\n", b"\n \n"]))
        mark = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"]))
        in_array = kind in {".json", ".json.gz"}
        content = mark + (b"[" + b",\n".join(rows) + b"]" if in_array else blank.join(rows) + blank)
        pack = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(Path(kind).suffix, bytes)
        paths.append(folder / f"{number}{kind}")
        paths[-1].write_bytes(pack(content))
    limit = data.draw(st.one_of(st.none(), st.integers(1, 40)))
    size = data.draw(st.integers(1, 7))
    whole = read_examples(paths, format="alpaca", limit=limit)
    windows = every(whole, size)
    for number, window in enumerate(windows):
        assert window.end is not None
        again = read_examples(paths, format="alpaca", limit=limit)
        again.begin_after(window.end)
        assert every(again, size) == windows[number + 1 :]
        assert (again.rows, again.rejected, again.blank) == (whole.rows, whole.rejected, whole.blank)
        assert again.formats.items() <= whole.formats.items()


def test_the_format_that_was_detected_holds_from_a_position_on(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ALPACA, MESSAGES, MESSAGES)
    first, *rest = every(read_examples(path), 1)
    again = read_examples(path)
    assert first.end is not None
    again.begin_after(first.end)
    assert every(again, 1) == rest
    assert all(isinstance(window.items[0], Reject) for window in rest)
    assert again.share_read == 1.0


def test_standard_input_has_no_positions_to_go_on_from() -> None:
    reader = read_examples("-")
    with pytest.raises(InputError, match="standard input cannot be read again"):
        reader.begin_after(Position(0, 1, 0, 1, 0, 0, {}))


def test_a_position_among_messages_counts_each_blank_line_and_each_reject_once(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    rows = []
    for number in range(30):
        row = {"message_id": f"m{number}", "parent_id": f"m{number - 1}" if number else None, "text": "a"}
        rows.append({**row, "role": ("prompter", "assistant")[number % 2], **({"reward": 1} if number == 24 else {})})
    path.write_bytes(b"\n\n".join(orjson.dumps(row) for row in rows) + b"\n")
    options = {"columns": ["reward"], "on_reject": lambda _: None}
    windows = every(read_examples(path, **options), 1)  # type: ignore[arg-type]
    for number, window in enumerate(windows):
        again = read_examples(path, **options)  # type: ignore[arg-type]
        assert window.end is not None
        again.begin_after(window.end)
        assert every(again, 1) == windows[number + 1 :]
        assert (again.blank, again.rejected) == (29, 18)


def test_a_window_closes_when_its_rows_have_so_many_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**ALPACA, "output": "x" * size} for size in (10, 500, 10, 10, 900, 10)]
    path = write(tmp_path / "a.jsonl", *rows)
    monkeypatch.setattr(blocks, "WINDOW_BYTES", 500)
    windows = every(read_examples(path), 4)
    assert [len(window.items) for window in windows] == [2, 3, 1]
    assert [window.end and window.end.rows for window in windows] == [2, 5, 6]
    again = read_examples(path)
    assert windows[0].end is not None
    again.begin_after(windows[0].end)
    assert every(again, 4) == windows[1:]


def test_long_rows_are_held_a_few_at_a_time_and_not_those_that_showed_the_format(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        for number in range(60):
            file.write(lines({**ALPACA, "output": f"{number} " + "x" * 4_000_000}))
    tracemalloc.start()
    try:
        reader = read_examples(path)
        reader.look()
        _, looked = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        assert sum(1 for _ in reader) == 60
        _, read = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert max(looked, read) < 100_000_000  # of twice 240 MB
