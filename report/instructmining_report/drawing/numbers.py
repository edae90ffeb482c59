"""Writes numbers short enough for axes and tables."""

from __future__ import annotations

import math

_UNITS = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_DIGITS = 4


def number(value: float | None) -> str:
    """Return a number with four significant digits, whole ones in full; – where there is none."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    size = math.floor(math.log10(abs(value)))
    if size >= 15 or size < -4:
        return f"{value:.{_DIGITS - 1}e}".replace("-", "−")
    return f"{value:,.{max(0, _DIGITS - 1 - size)}f}".replace("-", "−")


def short(value: float) -> str:
    """Return a number for an axis: 1,500 is 1.5k."""
    for unit, letter in _UNITS:
        if abs(value) >= unit:
            return f"{value / unit:.4g}{letter}".replace("-", "−")
    return f"{value:.4g}".replace("-", "−")


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as percent; – where there is none."""
    if share is None or math.isnan(share):
        return "–"
    return f"{100 * share:.{digits}f} %".replace("-", "−")


def fixed(value: float | None, digits: int = 2) -> str:
    """Return a number with so many decimals; – where there is none."""
    return "–" if value is None or math.isnan(value) else _without_minus_0(f"{value:.{digits}f}")


def signed(value: float | None, digits: int = 2) -> str:
    """Return a number with its sign and so many decimals; – where there is none."""
    return "–" if value is None or math.isnan(value) else _without_minus_0(f"{value:+.{digits}f}")


def _without_minus_0(text: str) -> str:
    return text.lstrip("+-") if not text.strip("+-0.") else text.replace("-", "−")
