"""Names that are not there: one message for all, with the nearest name and those that there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_MOST_LISTED = 40
_MOST_CHARACTERS = 60  # of a name in a list; what is longer is seldom one


def no_such(kind: str, wanted: str | Sequence[str], there: Iterable[str], *, listed: str | None = None) -> str:
    """``no column 'perplexty'; did you mean 'perplexity'? There are: …``.

    Args:
        kind: what is named, as "column".
        wanted: the name as it was given, or several.
        there: the names that there are.
        listed: how they are listed, where not one by one.
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
    """Names one by one, of many the first, of long ones their beginning."""
    more = len(names) - _MOST_LISTED
    return ", ".join(map(short, names[:_MOST_LISTED])) + (f" and {more:,} more" if more > 0 else "")


def short(name: str) -> str:
    """A name for a list of them, its end cut off where it is no name that anybody gave."""
    return name if len(name) <= _MOST_CHARACTERS else f"{name[:_MOST_CHARACTERS]}…"


def nearest(name: str, there: Iterable[str]) -> str | None:
    """The name that was probably meant, whatever its case; None where none is near."""
    by_lower = {other.lower(): other for other in there}
    found = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[found[0]] if found else None
