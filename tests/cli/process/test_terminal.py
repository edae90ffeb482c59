from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from typer.testing import CliRunner

from instructmining.tables.controls import visible
from instructmining_cli.app import app
from instructmining_cli.process.terminal import VisibleFormatter

CLEAR_SCREEN = "\x1b[2J"


@pytest.mark.parametrize("text", ["plain", "two\nlines", "a\ttab", "«é» 漢字 \U0001f600 ⟨⟩ ⏎", ""])
def test_a_text_without_commands_to_a_terminal_is_left_as_it_is(text: str) -> None:
    assert visible(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (CLEAR_SCREEN, "\\u001b[2J"),
        ("a\rb", "a\\u000db"),
        ("\x9b1A", "\\u009b1A"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\x07\x7f\0", "\\u0007\\u007f\\u0000"),
    ],
)
def test_what_a_terminal_would_obey_is_shown_as_json_writes_it(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert json.loads(f'"{visible(text)}"') == text


def test_a_field_of_a_row_cannot_clear_the_screen(small_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"instruction": "a", "output": "b", f"{CLEAR_SCREEN}topic": "text"}) + "\n")
    found = CliRunner().invoke(app, ["inspect", str(path), "--bundle", str(small_bundle)], color=True)
    assert found.exit_code == 0
    assert "not read: \\u001b[2Jtopic (1)" in found.output
    scored = ["score", str(path), "-o", str(tmp_path / "out.jsonl"), "--bundle", str(small_bundle)]
    said = CliRunner().invoke(app, [*scored, "--indicators", "output_length"], color=True).output
    assert "not read: \\u001b[2Jtopic (1 row)" in said
    assert CLEAR_SCREEN not in said


def test_a_log_record_cannot_clear_the_screen() -> None:
    record = logging.LogRecord("name", logging.WARNING, "", 0, "%s: text that is not read", (CLEAR_SCREEN,), None)
    assert VisibleFormatter("%(levelname)s %(message)s").format(record) == "WARNING \\u001b[2J: text that is not read"
