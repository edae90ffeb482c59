"""Draws a comparison: the loss of every run by method, on each evaluation set."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib as mpl
from matplotlib.figure import Figure

from instructmining_experiments.comparing.figures import MethodFigures
from instructmining_experiments.comparing.selections import RANDOM

_INCHES_A_METHOD, _INCHES_A_SET, _MARGIN_INCHES = 0.4, 4.5, 1.3


def drawing(figures: Sequence[MethodFigures], base: Mapping[str, float]) -> bytes:
    """Return the plot as SVG, with the same bytes for the same figures.

    Each run is a dot. The bar of a method is the interval of its difference from random rows, around its mean; the
    lines are the mean of random rows and the loss before training.

    Args:
        figures: of each method on each evaluation set.
        base: loss before training, by evaluation set.
    """
    sets = list(dict.fromkeys(one.evaluation_set for one in figures))
    methods = list(dict.fromkeys(one.method for one in figures))
    size = (_INCHES_A_SET * len(sets), _MARGIN_INCHES + _INCHES_A_METHOD * len(methods))
    with mpl.rc_context({"svg.hashsalt": "instructmining", "svg.fonttype": "none"}):
        figure = Figure(figsize=size, layout="constrained")
        for axes, name in zip(figure.subplots(1, len(sets), sharey=True, squeeze=False)[0], sets, strict=True):
            own = {one.method: one for one in figures if one.evaluation_set == name}
            axes.axvline(base[name], color="0.7", linestyle=":", label="before training")
            if RANDOM in own:
                axes.axvline(own[RANDOM].loss, color="0.5", linewidth=0.8, label="random rows")
            for place, method in enumerate(methods):
                if (one := own.get(method)) is None:
                    continue
                axes.plot(one.losses, [place] * one.runs, "o", color="tab:blue", alpha=0.35, markersize=4)
                axes.plot([one.loss], [place], "|", color="tab:blue", markersize=14)
                if one.minus_random is not None:
                    around = one.loss - one.minus_random.value
                    ends = [around + one.minus_random.low, around + one.minus_random.high]
                    axes.plot(ends, [place, place], color="tab:blue", linewidth=1.5)
            axes.set_yticks(range(len(methods)), methods)
            axes.set_title(name)
            axes.set_xlabel("loss, nats per response token")
        figure.axes[0].invert_yaxis()
        figure.axes[0].legend(fontsize="small")
        written = io.BytesIO()
        figure.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()
