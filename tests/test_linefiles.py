from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from instructmining.errors import OutputError, SelectionError
from instructmining.linefiles import check_out, line_file


def test_lines_and_the_run_file_are_there_when_the_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl.gz"
    with line_file(target, run=lambda: b"{}") as stream:
        stream.write(b"{}\n")
        assert not target.exists()
    assert gzip.decompress(target.read_bytes()) == b"{}\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl.gz", "out.jsonl.gz.run.json"]


def test_a_block_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    target.write_bytes(b"old")

    def write() -> None:
        with line_file(target, run=lambda: b"{}") as stream:
            stream.write(b"{}\n")
            raise SelectionError("no row")

    with pytest.raises(SelectionError):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
    assert target.read_bytes() == b"old"


def test_out_is_never_a_file_that_is_read(tmp_path: Path) -> None:
    source = tmp_path / "a.jsonl"
    source.write_bytes(b"{}\n")
    with pytest.raises(OutputError, match="is the scored file itself"):
        check_out(source, overwrite=True, sources=[source])
    with pytest.raises(OutputError, match="exists; give --overwrite"):
        check_out(source, overwrite=False)
    with pytest.raises(OutputError, match="wanted a name ending in"):
        check_out(tmp_path / "a.csv", overwrite=True)
