"""Shows tables as HTML in a notebook: plain markup in the notebook's own colours, no script, nothing loaded.

Styles stand at the elements, since many notebooks and sites drop style sheets of outputs. Where they drop these too,
the tables can still be read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from html import escape

from instructmining.tables import Bar, Block, Facts, Line, Mark, Scatter, Spread, Table
from instructmining.tables.controls import visible

_TABLE = "border-collapse:collapse;text-align:right;font-variant-numeric:tabular-nums;margin:.6em 0"
_CAPTION = "caption-side:top;text-align:left;padding:.2em 0;color:inherit"
_CELL = "padding:.15em .6em"
_NUMBER = f"{_CELL};white-space:nowrap"
_HEAD = f"{_NUMBER};border-bottom:1px solid"
_NAME = f"{_CELL};text-align:left;font-weight:normal"
_LINE = "margin:.2em 0"
_MARK_WIDTH, _MARK_HEIGHT = 120, 14
_PLOT_WIDTH, _PLOT_HEIGHT, _PLOT_MARGIN = 420, 200, 8
_MOST_POINTS = 2000  # of a plot; of more, evenly spaced ones are drawn


def as_html(blocks: Iterable[Block]) -> str:
    """Return blocks as one element; every text in it is escaped."""
    return "\n".join(['<div dir="ltr">', *(_block(block) for block in blocks), "</div>"])


def _block(block: Block) -> str:
    match block:
        case Line():
            name = f"<strong><bdi>{_text(block.name)}</bdi></strong>: " if block.name else ""
            return f'<p style="{_LINE}">{name}{_text(block.text)}</p>'
        case Facts():
            return _scrolled(block.caption, _facts(block))
        case Table():
            return _scrolled(block.caption, _table(block))
        case Scatter():
            return _scatter(block)


def _scrolled(caption: str, lines: Iterable[str]) -> str:
    """Return a table that scrolls by itself where it is wider than the notebook."""
    head = (
        f'<div style="overflow-x:auto"><table style="{_TABLE}"><caption style="{_CAPTION}">{_text(caption)}</caption>'
    )
    return "\n".join([head, *lines, "</table></div>"])


def _facts(facts: Facts) -> Iterator[str]:
    yield "<tbody>"
    for label, value in facts.pairs:
        yield (
            f'<tr><th scope="row" style="{_NAME}">{_text(label)}</th>'
            f'<td style="{_CELL};text-align:left"><bdi>{_text(value)}</bdi></td></tr>'
        )
    yield "</tbody>"


def _table(table: Table) -> Iterator[str]:
    first, *others = table.header
    cells = [
        f'<th scope="col" style="{_HEAD};text-align:left">{_text(first)}</th>'
        if first
        else f'<td style="{_HEAD}"></td>',
        *(f'<th scope="col" style="{_HEAD}"><bdi>{_text(name)}</bdi></th>' for name in others),
    ]
    if table.marks:
        cells.insert(1, f'<td style="{_HEAD}"></td>')
    yield f"<thead><tr>{''.join(cells)}</tr></thead>"
    yield "<tbody>"
    for place, (name, *values) in enumerate(table.rows):
        unit = f" <small>{_text(table.units[place])}</small>" if table.units and table.units[place] else ""
        cells = [f'<th scope="row" style="{_NAME}"><bdi>{_text(name)}</bdi>{unit}</th>']
        cells += [f'<td style="{_NUMBER}">{_text(value)}</td>' for value in values]
        if table.marks:
            cells.insert(1, f'<td style="{_CELL}">{_mark(table.marks[place])}</td>')
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody>"


# Drawings, in the colour of the text; the numbers that they show stand beside them


def _mark(mark: Mark | None) -> str:
    drawn = _spread(mark) if isinstance(mark, Spread) else _bar(mark) if isinstance(mark, Bar) else ""
    if not drawn:
        return ""
    return (
        f'<svg aria-hidden="true" width="{_MARK_WIDTH}" height="{_MARK_HEIGHT}" '
        f'viewBox="0 0 {_MARK_WIDTH} {_MARK_HEIGHT}" style="vertical-align:middle">{drawn}</svg>'
    )


def _spread(spread: Spread) -> str:
    """Draw a line from the least to the greatest value, a bar over 90 % of them, one over half, and the median."""
    least, greatest = spread.quantiles[0], spread.quantiles[-1]
    if not math.isfinite(least) or not math.isfinite(greatest) or not greatest > least:
        return ""
    left, low, quarter, median, three_quarters, high, right = (
        1 + (value - least) / (greatest - least) * (_MARK_WIDTH - 2) for value in spread.quantiles
    )
    middle = _MARK_HEIGHT / 2
    return "".join(
        [
            f'<path d="M{left:.1f} {middle:g}H{right:.1f}" stroke="currentColor" stroke-opacity=".5"/>',
            _box(low, high, 6, ".25"),
            _box(quarter, three_quarters, 10, ".45"),
            f'<path d="M{median:.1f} 1V{_MARK_HEIGHT - 1}" stroke="currentColor" stroke-width="2"/>',
        ]
    )


def _bar(bar: Bar) -> str:
    if not math.isfinite(bar.value) or not 0 < bar.reach < math.inf:
        return ""
    zero = _MARK_WIDTH / 2
    end = zero + bar.value / bar.reach * (zero - 1)
    axis = f'<path d="M{zero:g} 0V{_MARK_HEIGHT}" stroke="currentColor" stroke-opacity=".5"/>'
    return axis + _box(min(zero, end), max(zero, end), 8, ".55")


def _box(left: float, right: float, height: int, opacity: str) -> str:
    top = (_MARK_HEIGHT - height) / 2
    return (
        f'<rect x="{left:.1f}" y="{top:g}" width="{right - left:.1f}" height="{height}" fill="currentColor" '
        f'fill-opacity="{opacity}"/>'
    )


def _scatter(plot: Scatter) -> str:
    step = -(-len(plot.labels) // _MOST_POINTS) or 1
    points = [
        point
        for point in list(zip(plot.across, plot.down, plot.labels, strict=True))[::step]
        if math.isfinite(point[0]) and math.isfinite(point[1])
    ]
    if not points:
        return ""
    least, greatest = min(x for x, _, _ in points), max(x for x, _, _ in points)
    reach = max(abs(y) for _, y, _ in points) or 1.0
    width, height = _PLOT_WIDTH - 2 * _PLOT_MARGIN, _PLOT_HEIGHT - 2 * _PLOT_MARGIN
    middle = _PLOT_HEIGHT / 2
    dots = [
        f'<circle cx="{_PLOT_MARGIN + (x - least) / ((greatest - least) or 1) * width:.1f}" '
        f'cy="{middle - y / reach * height / 2:.1f}" r="3"><title>{_text(label)}</title></circle>'
        for x, y, label in points
    ]
    caption = _text(plot.caption)
    return "\n".join(
        [
            f'<figure style="margin:.6em 0"><figcaption>{caption}</figcaption>',
            f'<svg role="img" aria-label="{caption}" width="{_PLOT_WIDTH}" height="{_PLOT_HEIGHT}" '
            f'viewBox="0 0 {_PLOT_WIDTH} {_PLOT_HEIGHT}" style="max-width:100%">',
            f'<path d="M0 {middle:g}H{_PLOT_WIDTH}" stroke="currentColor" stroke-opacity=".5"/>',
            f'<g fill="currentColor" fill-opacity=".55">{"".join(dots)}</g></svg></figure>',
        ]
    )


def _text(text: str) -> str:
    """Escape a text for an element or an attribute; half a surrogate pair, as in a file's name, is written out."""
    return escape(visible(text).encode("utf-8", "backslashreplace").decode())
