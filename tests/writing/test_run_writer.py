from __future__ import annotations

import base64
import contextlib
import gzip
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import OutputError, ResumeError
from instructmining.types import ColumnValue, Example, Reject, ScoredRow, SourceRow, Turn
from instructmining.writing.atomic import Placement
from instructmining.writing.run_writer import RunWriter, added_names, reject_line, splice

READ: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": lambda content: content,
    ".jsonl.gz": gzip.decompress,
    ".jsonl.zst": lambda content: zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content)).read(),
}
ENDS = ("", ".rejects.jsonl", ".run.json")
TURNS = (Turn("user", "a"), Turn("assistant", "b"))


def scored(
    raw: bytes = b'{"prompt": "a", "response": "b"}',
    columns: Mapping[str, ColumnValue] | None = None,
    *,
    truncated: tuple[str, ...] = (),
    notes: Mapping[str, str] | None = None,
) -> ScoredRow:
    row = SourceRow("rows.jsonl", 1, 0, raw, orjson.loads(raw))
    return ScoredRow(Example(TURNS, row), dict(columns or {"mtld": 2.5}), truncated, dict(notes or {}))


def write_and_fail(out: Path, *, overwrite: bool = False) -> None:
    with RunWriter(str(out), overwrite=overwrite) as writer:
        writer.begin()
        writer.write([scored()])
        raise ZeroDivisionError


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Splicing


def test_columns_stand_behind_the_rows_own_bytes() -> None:
    line = splice(scored(b'{"b":1.50, "a" :"\\u00e9 \xc3\xa9","c":{"d":[]}}', {"output_length": 3, "mtld": 2.5}))
    assert line == (
        b'{"b":1.50, "a" :"\\u00e9 \xc3\xa9","c":{"d":[]},"output_length":3,"mtld":2.5,"truncated":[],"score_notes":{}}'
    )


def test_a_missing_value_is_null_with_its_reason_beside_it() -> None:
    row = scored(columns={"mtld": None}, notes={"mtld": "the response has no word"}, truncated=("reward", "embedding"))
    value = orjson.loads(splice(row))
    assert value["mtld"] is None
    assert value["score_notes"] == {"mtld": "the response has no word"}
    assert value["truncated"] == ["reward", "embedding"]


def test_a_prefix_stands_before_every_name_that_is_added() -> None:
    row = scored(b'{"mtld":1}', {"mtld": None}, notes={"mtld": "why"})
    assert splice(row, "im_") == b'{"mtld":1,"im_mtld":null,"im_truncated":[],"im_score_notes":{"im_mtld":"why"}}'
    assert added_names(("mtld",), "im_") == ["im_mtld", "im_truncated", "im_score_notes"]


def test_an_example_from_no_file_is_written_as_messages() -> None:
    row = ScoredRow(Example(TURNS), {"mtld": 1.0}, (), {})
    assert orjson.loads(splice(row)) == {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "mtld": 1.0,
        "truncated": [],
        "score_notes": {},
    }


SPACE = st.text(alphabet=" \t", max_size=2).map(str.encode)
FIELDS = st.dictionaries(st.text(max_size=5), st.none() | st.integers(-99, 99) | st.text(max_size=9), min_size=1)


@settings(max_examples=60, deadline=None)
@given(fields=FIELDS, inside=SPACE, value=st.none() | st.integers(0, 9) | st.floats(-1e6, 1e6))
def test_a_spliced_line_begins_with_the_rows_bytes_and_holds_all_names_added(
    fields: dict[str, object], inside: bytes, value: ColumnValue
) -> None:
    raw = b"{" + inside + orjson.dumps(fields)[1:-1] + inside + b"}"
    names = added_names(("mtld",), "added_")
    line = splice(scored(raw, {"mtld": value}), "added_")
    assert line.startswith(raw[:-1])
    assert b"\n" not in line
    parsed = orjson.loads(line)
    assert {name: parsed[name] for name in fields} == fields
    assert [name for name in parsed if name not in fields] == names
    assert parsed["added_mtld"] == value


# Rejects


def test_a_reject_says_where_and_why_and_keeps_the_row_as_text() -> None:
    line = reject_line(Reject("rows.jsonl", 3, 41, "invalid JSON", b'{"a": \xc3\xa9'))
    assert line.endswith(b"\n")
    assert orjson.loads(line) == {
        "source": "rows.jsonl",
        "line": 3,
        "offset": 41,
        "reason": "invalid JSON",
        "row": '{"a": é',
    }


def test_a_reject_that_is_not_utf8_is_kept_as_base64() -> None:
    value = orjson.loads(reject_line(Reject("rows.jsonl", 1, 0, "not UTF-8", b'{"a":"\xff\x00"}')))
    assert "row" not in value
    assert base64.b64decode(value["row_base64"]) == b'{"a":"\xff\x00"}'


@settings(max_examples=40, deadline=None)
@given(raw=st.binary(max_size=20))
def test_the_bytes_of_any_reject_can_be_had_back(raw: bytes) -> None:
    value = orjson.loads(reject_line(Reject("rows", 1, 0, "why", raw)))
    assert (value["row"].encode() if "row" in value else base64.b64decode(value["row_base64"])) == raw


# A run's files


@pytest.mark.parametrize("suffix", READ)
def test_a_finished_run_leaves_its_rows_its_rejects_and_its_run_file(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    with RunWriter(str(out)) as writer:
        writer.begin()
        writer.write([scored(b'{"a":1}', {"mtld": 1.0})])
        writer.write([], [Reject("rows.jsonl", 2, 8, "why", b"[")])
        writer.write([scored(b'{"a":3}', {"mtld": 3.0})])
        writer.finish({"rows": 2})
    assert left(tmp_path) == sorted([out.name, f"{out.name}.rejects.jsonl", f"{out.name}.run.json"])
    assert READ[suffix](out.read_bytes()) == (
        b'{"a":1,"mtld":1.0,"truncated":[],"score_notes":{}}\n{"a":3,"mtld":3.0,"truncated":[],"score_notes":{}}\n'
    )
    assert Path(f"{out}.rejects.jsonl").read_bytes() == reject_line(Reject("rows.jsonl", 2, 8, "why", b"["))
    assert orjson.loads(Path(f"{out}.run.json").read_bytes()) == {"rows": 2}


@pytest.mark.parametrize("suffix", READ)
def test_a_run_without_rows_leaves_a_readable_empty_file(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out{suffix}"
    with RunWriter(str(out)) as writer:
        writer.begin()
        writer.finish({})
    assert READ[suffix](out.read_bytes()) == b""


@pytest.mark.parametrize("suffix", READ)
def test_two_runs_over_the_same_rows_write_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    for name in ("a", "b"):
        with RunWriter(str(tmp_path / f"{name}{suffix}")) as writer:
            writer.begin()
            for number in range(200):
                writer.write([scored(b'{"a":%d}' % number, {"mtld": number / 7})])
            writer.finish({})
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_the_writer_puts_its_prefix_before_the_columns(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with RunWriter(str(out), prefix="im_") as writer:
        writer.begin()
        writer.write([scored(b'{"a":1}', {"mtld": 1.0})])
        writer.finish({})
    assert out.read_bytes() == b'{"a":1,"im_mtld":1.0,"im_truncated":[],"im_score_notes":{}}\n'


def test_out_appears_only_when_the_run_is_finished(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with RunWriter(str(out)) as writer:
        writer.begin()
        writer.write([scored()])
        assert not out.exists()
        writer.finish({})
        assert out.exists()


@pytest.mark.parametrize("suffix", READ)
def test_a_run_that_fails_leaves_nothing_behind(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(ZeroDivisionError):
        write_and_fail(tmp_path / f"out{suffix}")
    assert left(tmp_path) == []


def test_a_run_that_fails_leaves_the_old_files_as_they_were(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        write_and_fail(out, overwrite=True)
    assert left(tmp_path) == ["out.jsonl"]
    assert out.read_bytes() == b"old"


def test_an_out_that_exists_is_an_output_error_and_stays(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"old")
    with pytest.raises(OutputError, match=r"out\.jsonl: exists; give --overwrite"):
        RunWriter(str(out))
    assert left(tmp_path) == ["out.jsonl"]
    assert out.read_bytes() == b"old"


def test_overwrite_replaces_all_files_of_the_run(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    for rows, overwrite in ((2, False), (1, True)):
        with RunWriter(str(out), overwrite=overwrite) as writer:
            writer.begin()
            for _ in range(rows):
                writer.write([scored(b'{"a":1}')])
                writer.write([], [Reject("rows", 1, 0, "why", b"")])
            writer.finish({"rows": rows})
    assert out.read_bytes().count(b"\n") == 1
    assert Path(f"{out}.rejects.jsonl").read_bytes().count(b"\n") == 1
    assert orjson.loads(Path(f"{out}.run.json").read_bytes()) == {"rows": 1}


def test_an_out_that_is_an_input_is_an_output_error_even_with_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":1}\n')
    (tmp_path / "link.jsonl").symlink_to(path)
    for out in (path, tmp_path / "link.jsonl"):
        with pytest.raises(OutputError, match=r"rows\.jsonl, which this command reads; name another output"):
            RunWriter(str(out), overwrite=True, inputs=["-", str(tmp_path / "gone.jsonl"), str(path)])
    assert path.read_bytes() == b'{"a":1}\n'
    assert left(tmp_path) == ["link.jsonl", "rows.jsonl"]


def test_an_example_that_cannot_be_scored_goes_to_the_rejects_with_its_place(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    example = Example(TURNS, SourceRow("rows.jsonl", 7, 99, b'{"a":1}', {"a": 1}))
    with RunWriter(str(out)) as writer:
        writer.begin()
        writer.write([], [Reject.of(example, "no place for a turn")])
        writer.finish({})
    line = Path(f"{out}.rejects.jsonl").read_bytes()
    assert line == reject_line(Reject("rows.jsonl", 7, 99, "no place for a turn", b'{"a":1}'))


def test_two_runs_cannot_write_the_same_out(tmp_path: Path) -> None:
    out = str(tmp_path / "out.jsonl")
    with RunWriter(out) as first:
        first.begin()
        with pytest.raises(OutputError, match="another run writes there"):
            RunWriter(out)
        first.write([scored(b'{"a":1}')])
        first.finish({})
    assert Path(out).read_bytes().count(b"\n") == 1


def test_no_other_command_writes_what_a_run_writes(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with RunWriter(str(out)) as run:
        run.begin()
        with pytest.raises(OutputError, match="another run writes there"):
            Placement([out], overwrite=True)
        run.finish({})
    with Placement([out], overwrite=True), pytest.raises(OutputError, match="another run writes there"):
        RunWriter(str(out), overwrite=True)
    assert left(tmp_path) == sorted(f"out.jsonl{end}" for end in ENDS)


@pytest.mark.parametrize("name", ["out", "out.json", "out.txt.gz", "out.jsonl.bz2"])
def test_an_unknown_suffix_is_an_output_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match=r"wanted a name ending in \.jsonl, \.jsonl\.gz, \.jsonl\.zst"):
        RunWriter(str(tmp_path / name))
    assert left(tmp_path) == []


def test_an_out_below_a_file_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="Not a directory"):
        RunWriter(str(tmp_path / "file" / "out.jsonl"))


def test_a_folder_for_out_is_made(tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "out.jsonl"
    with RunWriter(str(out)) as writer:
        writer.begin()
        writer.finish({})
    assert out.read_bytes() == b""


def test_standard_output_takes_rows_and_standard_error_rejects(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with RunWriter("-") as writer:
        writer.begin()
        writer.write([scored(b'{"a":1}', {"mtld": 1.0})])
        writer.write([], [Reject("rows.jsonl", 2, 8, "why", b"[")])
        writer.finish({"rows": 1})
    caught = capfdbinary.readouterr()
    assert caught.out == b'{"a":1,"mtld":1.0,"truncated":[],"score_notes":{}}\n'
    assert caught.err == reject_line(Reject("rows.jsonl", 2, 8, "why", b"["))


# Resuming


def cut(out: Path, rows: int, committed: int) -> None:
    """A run that was cut behind some rows, of which the first were committed."""
    with contextlib.suppress(ZeroDivisionError), RunWriter(str(out)) as writer:
        writer.begin({"input": "a"})
        for number in range(rows):
            writer.write([scored(b'{"a":%d}' % number)], [Reject("rows", number, 0, "why", b"")])
            if number + 1 == committed:
                writer.commit({"windows": committed})
        raise ZeroDivisionError


@pytest.mark.parametrize("suffix", READ)
@pytest.mark.parametrize("committed", [1, 3])
def test_a_resumed_run_writes_behind_the_last_commit(tmp_path: Path, suffix: str, committed: int) -> None:
    whole, out = tmp_path / f"whole{suffix}", tmp_path / f"out{suffix}"
    with RunWriter(str(whole)) as writer:
        writer.begin()
        for number in range(5):
            writer.write([scored(b'{"a":%d}' % number)], [Reject("rows", number, 0, "why", b"")])
        writer.finish({})
    cut(out, 3, committed)
    assert left(tmp_path) == sorted([*(f"whole{suffix}{end}" for end in ENDS), f"out{suffix}.partial"])
    with RunWriter(str(out), resume=True) as writer:
        assert writer.journal is not None
        assert writer.journal.identity == {"input": "a"}
        assert writer.journal.marks["written"]["windows"] == committed
        writer.begin()
        for number in range(committed, 5):
            writer.write([scored(b'{"a":%d}' % number)], [Reject("rows", number, 0, "why", b"")])
        writer.finish({})
        assert writer.finished
    for end in ENDS:
        assert Path(f"{out}{end}").read_bytes() == Path(f"{whole}{end}").read_bytes()


def test_a_run_that_was_cut_is_neither_gone_on_with_nor_lost_unasked(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    cut(out, 3, 2)
    with pytest.raises(OutputError, match=r"out\.jsonl\.partial: a run was interrupted there; give --resume"):
        RunWriter(str(out))
    assert left(tmp_path) == ["out.jsonl.partial"]
    with RunWriter(str(out), overwrite=True) as writer:
        assert writer.journal is None
        writer.begin()
        writer.finish({})
    assert out.read_bytes() == b""


def test_without_anything_to_resume_a_run_begins(tmp_path: Path) -> None:
    with RunWriter(str(tmp_path / "out.jsonl"), resume=True) as writer:
        assert (writer.journal, writer.finished) == (None, False)


def test_a_finished_run_is_finished_when_it_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_bytes(b"done")
    with RunWriter(str(out), resume=True) as writer:
        assert writer.finished
    assert left(tmp_path) == ["out.jsonl"]
    assert out.read_bytes() == b"done"


@pytest.mark.parametrize("suffix", READ)
@pytest.mark.parametrize("moved", range(4))
def test_a_run_cut_while_its_files_are_moved_is_resumed_by_moving_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, moved: int
) -> None:
    out = tmp_path / f"out{suffix}"
    replace, moves = Path.replace, 0

    def some(self: Path, target: str | Path) -> Path:
        nonlocal moves
        if str(target).startswith(str(out)) and ".partial" not in str(target):
            moves += 1
            if moves > moved:
                raise OSError(5, "Input/output error")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", some)
    with contextlib.suppress(OutputError), RunWriter(str(out)) as writer:
        writer.begin()
        writer.write([scored(b'{"a":1}')])
        writer.finish({"rows": 1})
    monkeypatch.setattr(Path, "replace", replace)
    with RunWriter(str(out), resume=True) as writer:
        assert writer.finished
    assert left(tmp_path) == sorted(f"out{suffix}{end}" for end in ENDS)
    assert READ[suffix](out.read_bytes()).startswith(b'{"a":1,')


def test_rows_shorter_than_the_commit_says_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    cut(out, 3, 2)
    (tmp_path / "out.jsonl.partial" / "rows").write_bytes(b"")
    with RunWriter(str(out), resume=True) as writer, pytest.raises(ResumeError, match="rows: is shorter"):
        writer.begin()


@pytest.mark.parametrize(("out", "inputs"), [("-", ["rows.jsonl"]), ("out.jsonl", ["-"])])
def test_a_stream_cannot_be_resumed(tmp_path: Path, out: str, inputs: list[str]) -> None:
    with pytest.raises(OutputError, match=r"standard (in|out)put"):
        RunWriter(out if out == "-" else str(tmp_path / out), resume=True, inputs=inputs)
    assert left(tmp_path) == []


def test_a_run_over_standard_input_leaves_nothing_when_it_is_cut(tmp_path: Path) -> None:
    with contextlib.suppress(ZeroDivisionError), RunWriter(str(tmp_path / "out.jsonl"), inputs=["-"]) as writer:
        writer.begin()
        writer.commit({})
        raise ZeroDivisionError
    assert left(tmp_path) == []
