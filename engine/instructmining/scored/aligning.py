"""Text in columns and lines of a width; numbers are never cut."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_GAP = "  "


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Columns as wide as their widest cell, the first to the left, the others to the right.

    Args:
        rows: the header and the lines, of equally many cells.
        width: most characters of a line: further columns stand in blocks below, each with the first column again. A
            block has at least one column, whatever its width. None: one block.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    blocks: list[list[int]] = []
    taken = 0
    for column in range(1, len(widths)):
        taken += len(_GAP) + widths[column]
        if not blocks or (width is not None and taken > width):
            blocks.append([])
            taken = widths[0] + len(_GAP) + widths[column]
        blocks[-1].append(column)
    return "\n\n".join(
        "\n".join(
            _GAP.join([row[0].ljust(widths[0]), *(row[at].rjust(widths[at]) for at in block)]).rstrip() for row in rows
        )
        for block in blocks or [[]]
    )


def wrapped(line: str, width: int | None = None, *, indent: int = 2) -> str:
    """A line broken between words, what follows the first one indented; longer words stay whole.

    Args:
        line: without newlines.
        width: most characters of a line; None leaves it as it is.
        indent: spaces before all lines but the first.
    """
    if width is None or len(line) <= width:
        return line
    lines = textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
        replace_whitespace=False,
    )
    return "\n".join(lines)


def shortened(names: Sequence[str], most: int | None) -> list[str]:
    """Names of at most so many characters, which keep their ends; numbered where two would be the same.

    Args:
        names: as paths, which differ at their ends.
        most: characters, 8 or more; None leaves them as they are.
    """
    if most is None or max(map(len, names), default=0) <= most:
        return list(names)
    short = [name if len(name) <= most else f"…{name[1 - most :]}" for name in names]
    if len(set(short)) == len(set(names)):
        return short
    marks = [f"{number}: " for number in range(1, len(names) + 1)]
    return [
        mark + (name if len(mark + name) <= most else f"…{name[1 - most + len(mark) :]}")
        for mark, name in zip(marks, names, strict=True)
    ]
