"""Patterns of paths, with stars as a shell has them and ``**`` for any depth."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

ANY_DEPTH = "**"


def fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern; hidden names match only a leading dot."""
    if not pattern:
        return not parts
    if pattern[0] == ANY_DEPTH:
        shown = next((number for number, part in enumerate(parts) if part.startswith(".")), len(parts))
        return any(fits(parts[begin:], pattern[1:]) for begin in range(shown + 1))
    return (
        bool(parts)
        and fnmatchcase(parts[0], pattern[0])
        and (not parts[0].startswith(".") or pattern[0].startswith("."))
        and fits(parts[1:], pattern[1:])
    )
