"""Counts and times in words."""

from __future__ import annotations


def rows_of(count: int) -> str:
    """Return a number of rows as text."""
    return f"{count:,} row{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time as seconds, minutes or hours."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours} h {rest // 60:02d} min" if hours else f"{rest // 60} min {rest % 60:02d} s"


def size_of(count: int) -> str:
    """Return bytes in the unit that fits."""
    for power, unit, digits in ((30, "GiB", 1), (20, "MiB", 0), (10, "KiB", 0)):
        if count >= 1 << power:
            return f"{count / (1 << power):,.{digits}f} {unit}"
    return f"{count} bytes"
