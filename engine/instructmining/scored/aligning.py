"""Lays out text in columns and lines of a width; never cuts a number."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_GAP = "  "


def aligned(rows: Sequence[Sequence[str]], width: int | None = None) -> str:
    """Align columns: the first to the left, the others to the right, each as wide as its widest cell.

    Args:
        rows: the header and the lines, with the same number of cells.
        width: most characters per line. Columns beyond it follow in further blocks, which repeat the first column; each
            block has at least one other column, even where that is too wide. None makes one block.
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
    """Wrap a line between words; words longer than the width stay whole.

    Args:
        line: text without newlines.
        width: most characters per line; None leaves the line unchanged.
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
    """Shorten names to their ends; numbers them where two would become the same.

    Args:
        names: names such as paths, which differ at their ends.
        most: most characters per name, at least 8; None leaves them unchanged.
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
