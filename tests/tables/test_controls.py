from __future__ import annotations

from instructmining.tables.controls import visible


def test_what_would_control_a_terminal_or_turn_a_text_around_is_written_out_and_lines_stay() -> None:
    assert visible("a\x1b[2J\u202eb\u2069\x00\tc\n\u05d0") == "a\\u001b[2J\\u202eb\\u2069\\u0000\tc\n\u05d0"
