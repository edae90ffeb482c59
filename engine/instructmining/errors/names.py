"""Messages for unknown names, with the nearest name and a list of the known ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path

_MOST_LISTED = 40
_MOST_FILES = 5000  # of a folder are looked at for the one that was meant
_MOST_CHARACTERS = 60  # longest name in a list, in characters; a longer one is seldom a name


def no_such(kind: str, wanted: str | Sequence[str], there: Iterable[str], *, listed: str | None = None) -> str:
    """Return ``no column 'perplexty'; did you mean 'perplexity'? There are: …``.

    Args:
        kind: what is named, such as "column".
        wanted: the unknown name, or several.
        there: the known names.
        listed: how to list them, where not one by one.
    """
    names = list(dict.fromkeys(there))
    several = [wanted] if isinstance(wanted, str) else wanted
    near = list(dict.fromkeys(found for name in several if (found := nearest(name, names)) is not None))
    said = f"no {kind} {', '.join(map(repr, several))}"
    if not names:
        return f"{said}; there are none"
    suggestion = f"; did you mean {', '.join(map(repr, near))}?" if near else "."
    return f"{said}{suggestion} There are: {listed or few(names)}"


def few(names: Sequence[str]) -> str:
    """List names: only the first of many, and only the start of long ones."""
    more = len(names) - _MOST_LISTED
    return ", ".join(map(short, names[:_MOST_LISTED])) + (f" and {more:,} more" if more > 0 else "")


def short(name: str) -> str:
    """Shorten a name for a list."""
    return name if len(name) <= _MOST_CHARACTERS else f"{name[:_MOST_CHARACTERS]}…"


def nearest(name: str, there: Iterable[str]) -> str | None:
    """Return the known name that was probably meant, ignoring case; None where none is near."""
    by_lower = {other.lower(): other for other in there}
    found = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None


def not_opened(path: str, error: OSError) -> str:
    """Return ``alpca.json: No such file or directory; did you mean 'alpaca.json'?``.

    Args:
        path: the file of the message; a store's address gets no suggestion.
        error: why it was not opened; only a file that is not there gets one.
    """
    said = f"{path}: {error.strerror}"
    if not isinstance(error, FileNotFoundError) or "://" in path:
        return said
    folder, name = os.path.split(path)
    try:
        with os.scandir(folder or ".") as entries:
            there = [entry.name for entry in islice(entries, _MOST_FILES)]
    except OSError:  # there is no such folder either
        return said
    names = [other for other in there if other != name]  # a link that leads nowhere has it
    stem = nearest(_stem(name), map(_stem, names))  # a common suffix makes no two names alike
    near = None if stem is None else nearest(name, (other for other in names if _stem(other) == stem))
    return said if near is None else f"{said}; did you mean {str(Path(folder, near))!r}?"


def _stem(file: str) -> str:
    return file.partition(".")[0]
