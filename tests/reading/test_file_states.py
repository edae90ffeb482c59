from __future__ import annotations

import os
from pathlib import Path

from instructmining.reading.file_states import state_of


def test_a_file_is_another_when_it_is_written_replaced_or_gone(tmp_path: Path) -> None:
    file, other = tmp_path / "a", tmp_path / "b"
    file.write_bytes(b"1")
    os.utime(file, ns=(1, 1))
    states = [state_of(file)]
    assert state_of(file) == states[0]
    file.write_bytes(b"2")
    states.append(state_of(file))
    other.write_bytes(b"2")
    os.utime(other, ns=(1, 1))
    other.replace(file)
    states.append(state_of(file))
    file.unlink()
    states.append(state_of(file))
    assert len(set(states)) == 4


def test_where_there_is_no_file_there_is_no_state() -> None:
    assert state_of(None) is None
    assert state_of("a\0b") is None
