"""Plots residuals against fitted values as text and as SVG, with the same bytes on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

import numpy as np
from numpy.typing import NDArray

from instructmining.rules.fitting import Fit

_COLUMNS, _LINES = 64, 13  # of the sketch; the number of lines is odd, so that 0 has one
_MARKS = " .:+*#"  # by runs in a cell: 0, 1, 2, …, 5 and more
_WIDTH, _HEIGHT, _MARGIN = 640, 400, 60  # of the drawing, in pixels


def sketch(fitted: NDArray[np.float64], residuals: NDArray[np.float64]) -> Iterator[str]:
    """Yield the plot as lines of text; the axis of residuals is symmetric about 0.

    Args:
        fitted: float64 (runs,), fitted log loss.
        residuals: float64 (runs,), observed minus fitted log loss.
    """
    across, down, reach = _places(fitted, residuals)
    cells = np.zeros((_LINES, _COLUMNS), dtype=np.int64)
    at = np.rint(down * (_LINES - 1)).astype(np.int64), np.rint(across * (_COLUMNS - 1)).astype(np.int64)
    np.add.at(cells, at, 1)
    yield "residual of log loss against fitted log loss (one mark a place: . 1 run, : 2, + 3, * 4, # 5 and more)"
    for line, counts in enumerate(cells):
        name = {0: f"{reach:+.4f}", _LINES // 2: "0", _LINES - 1: f"{-reach:+.4f}"}.get(line, "")
        marks = "".join(_MARKS[min(count, len(_MARKS) - 1)] for count in counts.tolist())
        if line == _LINES // 2:
            marks = marks.replace(" ", "-")
        yield f"{name:>9} |{marks}".rstrip()
    least, greatest = f"{fitted.min():.4f}", f"{fitted.max():.4f}"
    yield " " * 11 + least + greatest.rjust(_COLUMNS - len(least))


def drawing(found: Fit) -> str:
    """Return the plot as an SVG document; each point has its run as title."""
    across, down, reach = _places(found.fitted, found.residuals)
    left, right, top, bottom = _MARGIN, _WIDTH - _MARGIN / 2, _MARGIN / 2, _HEIGHT - _MARGIN
    middle = (top + bottom) / 2
    points = zip(
        (left + across * (right - left)).tolist(),
        (top + down * (bottom - top)).tolist(),
        found.runs.labels,
        found.residuals.tolist(),
        strict=True,
    )
    texts = [
        _text(left - 6, top + 4, f"{reach:+.4f}", "end"),
        _text(left - 6, middle + 4, "0", "end"),
        _text(left - 6, bottom + 4, f"{-reach:+.4f}", "end"),
        _text(left, bottom + 18, f"{found.fitted.min():.4f}", "middle"),
        _text(right, bottom + 18, f"{found.fitted.max():.4f}", "middle"),
        _text((left + right) / 2, bottom + 36, "fitted log loss", "middle"),
        _text(left, top - 12, f"residual of log loss, rule {found.rule.id}, {len(found.runs)} runs", "start"),
    ]
    dots = [
        f'<circle cx="{x:.2f}" cy="{y:.2f}" r="3.5" fill="#1f5f99" fill-opacity="0.6">'
        f"<title>{escape(label)}: {residual:+.5f}</title></circle>"
        for x, y, label, residual in points
    ]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        'font-size="12">'
    )
    ground = [
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<path d="M{left} {top}V{bottom}H{right}M{left} {middle}H{right}" fill="none" stroke="#888"/>',
    ]
    return "\n".join([head, *ground, *texts, *dots, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def _places(
    fitted: NDArray[np.float64], residuals: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Return x from the left and y from the top as shares, float64 (runs,) each, and the residual at the top."""
    reach = float(np.abs(residuals).max()) or 1.0
    width = float(np.ptp(fitted)) or 1.0
    return (fitted - fitted.min()) / width, (1 - residuals / reach) / 2, reach
