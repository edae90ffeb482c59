"""The plots of a report."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, to_rgb
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from instructmining_report.drawing.numbers import short
from instructmining_report.drawing.svg import FAINT, INK, PAPER, SETS, plot
from instructmining_report.figures.axes import Axis
from instructmining_report.figures.cuts import PERCENTS, Cuts
from instructmining_report.figures.densities import Density
from instructmining_report.figures.distributions import Distribution

_HEAT = "#5b8def"  # seen on light and on dark ground
_STEPS = {1: (1, 2, 5), 2: (1, 3), 3: (1,), 4: (1,)}
_MOST_LOG_TICKS = 6
_LABEL_WIDTH = 22  # characters of a name beside a plot


def histogram(distribution: Distribution, name: str, label: str, places: Sequence[int]) -> Markup:
    """Draw the histograms of all sets over each other, with a mark at each median.

    Args:
        distribution: the column.
        name: unique in the page.
        label: what the plot shows.
        places: place of each set among all sets, which decides its colour.
    """
    axis = distribution.axis
    if axis is None:
        return Markup("")
    with plot(160, left=56, bottom=24) as made:
        axes = made.axes
        for one, place in zip(distribution.sets, places, strict=True):
            colour = SETS[place % len(SETS)]
            alone = len(distribution.sets) == 1
            axes.stairs(100 * one.shares, axis.edges, fill=True, color=colour, alpha=0.28 if alone else 0.14, lw=0)
            axes.stairs(100 * one.shares, axis.edges, color=colour, lw=1.5)
        top = max(0.1, *(100 * float(one.shares.max(initial=0.0)) for one in distribution.sets)) * 1.12
        for one, place in zip(distribution.sets, places, strict=True):
            if one.summary.median is not None and axis.low <= one.summary.median <= axis.high:
                axes.plot([one.summary.median] * 2, [0, top], color=SETS[place % len(SETS)], lw=1, dashes=(3, 3))
        axes.set_ylim(0, top)
        axes.grid(axis="y")
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.set_ylabel("rows", fontsize=11)
        _scale(axes, axis)
        return made.svg(name, label)


def density(found: Density, name: str, label: str, titles: tuple[str, str]) -> Markup:
    """Draw the rows in the plane of two columns as shades, and running medians as a line."""
    with plot(260, left=56, bottom=42) as made:
        axes = made.axes
        counts = found.counts.astype(np.float64)
        shades = LogNorm(0.6, max(2.0, counts.max()))(np.maximum(counts, 0.6))
        image = np.zeros((*counts.shape, 4))
        image[..., :3] = to_rgb(_HEAT)
        image[..., 3] = np.where(counts > 0, 0.18 + 0.82 * np.asarray(shades), 0)
        across, up = found.across_axis, found.up_axis
        # In a plane of bins, so that one picture shows bins of any width.
        box = (0, counts.shape[1], 0, counts.shape[0])
        axes.imshow(image, origin="lower", aspect="auto", extent=box, interpolation="none", zorder=2)
        axes.set_xlim(0, counts.shape[1])
        axes.set_ylim(0, counts.shape[0])
        for axis, ticks in ((across, axes.xaxis), (up, axes.yaxis)):
            values = _tick_values(axis)
            ticks.set_major_locator(FixedLocator([_in_bins(axis, value) for value in values]))
            ticks.set_major_formatter(FuncFormatter(_labels([_in_bins(axis, value) for value in values], values)))
            ticks.set_minor_locator(NullLocator())
        axes.grid(visible=True)
        if found.medians:
            xs = [_in_bins(across, x) for x, _ in found.medians]
            ys = [_in_bins(up, y) for _, y in found.medians]
            axes.plot(xs, ys, color=PAPER, lw=4, zorder=3)
            axes.plot(xs, ys, color=SETS[1], lw=2, marker="o", markersize=4, zorder=4)
        axes.set_xlabel(titles[0], fontsize=11)
        axes.set_ylabel(titles[1], fontsize=11)
        return made.svg(name, label)


def intervals(
    names: Sequence[str], quantiles: Sequence[Sequence[float]], name: str, label: str, *, zero: bool = False
) -> Markup:
    """Draw an interval per name: 5 to 95 %, the middle half thick, the median as a dot.

    Args:
        names: what each interval is of, from top to bottom.
        quantiles: 5, 25, 50, 75 and 95 % of each.
        name: unique in the page.
        label: what the plot shows.
        zero: whether a line shows 0.
    """
    shown = [_shortened(text) for text in names]
    left = min(150, 14 + 6 * max((sum(map(_columns, text)) for text in shown), default=0))
    with plot(36 + 24 * len(names), left=left, bottom=26, top=6) as made:
        axes = made.axes
        for place, (low, first, middle, third, high) in enumerate(quantiles):
            axes.plot([low, high], [place] * 2, color=SETS[0], lw=1.4)
            axes.plot([first, third], [place] * 2, color=SETS[0], lw=6, alpha=0.55, solid_capstyle="butt")
            axes.plot([middle], [place], marker="o", markersize=5, color=INK, ls="none")
        if zero:
            axes.axvline(0, color=FAINT, lw=0.8)
        axes.set_yticks(range(len(names)), [f"text-{place}" for place in range(len(names))])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.grid(axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        return made.svg(name, label, {f"text-{place}": text for place, text in enumerate(shown)})


def cut_curve(cuts: Cuts, name: str, label: str, title: str) -> Markup:
    """Draw the value of the last row kept by the share of rows kept."""
    with plot(190, left=56, right=22, bottom=42) as made:
        axes = made.axes
        known = [(x, y) for x, y in zip(PERCENTS, cuts.border, strict=True) if y is not None]
        axes.plot([x for x, _ in known], [y for _, y in known], color=SETS[0], lw=2)
        axes.set_xlim(0, 100)
        axes.grid(axis="y")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_xlabel("rows kept", fontsize=11)
        axes.set_ylabel(title, fontsize=11)
        return made.svg(name, label)


def _shortened(text: str) -> str:
    """Return a text that fits beside a plot."""
    width = 0
    for place, character in enumerate(text):
        width += _columns(character)
        if width > _LABEL_WIDTH:
            return f"{text[: max(1, place - 1)]}…"
    return text


def _columns(character: str) -> int:
    """Return how wide a character is, in those of Latin."""
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _scale(axes: Axes, axis: Axis) -> None:
    """Give a plot the horizontal axis of a column."""
    ticks = axes.xaxis
    if axis.log:
        axes.set_xscale("log")
    axes.set_xlim(axis.low, axis.high)
    ticks.set_major_locator(FixedLocator(_tick_values(axis)))
    ticks.set_minor_locator(NullLocator())
    ticks.set_major_formatter(FuncFormatter(lambda value, _: short(value)))


def _tick_values(axis: Axis) -> list[float]:
    """Return round values on an axis."""
    if not axis.log:
        values = list(MaxNLocator(5, integer=axis.whole).tick_values(axis.low, axis.high))
        return [value for value in values if axis.low <= value <= axis.high]
    decades = math.log10(axis.high / axis.low)
    steps = _STEPS.get(math.ceil(decades), (1,))
    powers = range(math.floor(math.log10(axis.low)), math.ceil(math.log10(axis.high)) + 1)
    values = [step * 10.0**power for power in powers for step in steps]
    values = [value for value in values if axis.low <= value <= axis.high]
    if len(values) < 2:
        even = MaxNLocator(4).tick_values(axis.low, axis.high)
        return [value for value in even if axis.low <= value <= axis.high]
    every = math.ceil(len(values) / _MOST_LOG_TICKS)
    return values[::every]


def _in_bins(axis: Axis, value: float) -> float:
    """Return a value's place on an axis of bins."""
    return float(np.interp(value, axis.edges, np.arange(len(axis.edges))))


def _labels(places: Sequence[float], values: Sequence[float]) -> Callable[[float, object], str]:
    texts = dict(zip([round(place, 6) for place in places], values, strict=True))
    return lambda place, _: short(texts.get(round(place, 6), 0.0))
