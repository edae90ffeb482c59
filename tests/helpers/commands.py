"""All commands, with those of groups by both names: ``experiment design``."""

from __future__ import annotations

from typing import Any

from typer.main import get_command

from instructmining_cli.app import app


def commands_of(group: Any = None, before: str = "") -> dict[str, Any]:  # noqa: ANN401 - click's, of which typer has a copy
    """Return each command by its words."""
    found: dict[str, Any] = {}
    for name, command in (group or get_command(app)).commands.items():
        words = f"{before}{name}"
        found |= commands_of(command, f"{words} ") if hasattr(command, "commands") else {words: command}
    return found
