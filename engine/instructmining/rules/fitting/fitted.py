"""A fitted rule with its figures, and how they are shown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.rules import Rule
from instructmining.rules.fitting.regression import Subset
from instructmining.rules.fitting.term_choice import PAPER_P, Choose
from instructmining.rules.fitting.training_runs import Runs
from instructmining.tables import Block, Facts, Line, Scatter, Table
from instructmining.tables.html import as_html
from instructmining.types import unit

_SHOWN_SUBSETS = 5
_FAR = 3  # runs with the largest residuals to name
_FIGURES = ("coefficient", "std. error", "t", "p", "95 % interval", "bootstrap 95 %", "VIF", "range in the runs")
_SUBSETS = ("terms", "R2", "adj. R2", "LOO R2", "LOO error")
_HOW = {
    "loo": "the subset with the smallest leave-one-out error",
    "adjusted-r2": "the subset with the highest adjusted R2",
    "paper": f"starts with all terms (the highest R2) and drops the largest p until all are < {PAPER_P}",
    "all": "all terms, without a choice",
}


@dataclass(frozen=True, slots=True)
class Coefficient:
    """A coefficient of ordinary least squares, in log loss per unit of its column.

    ``p`` and ``interval`` assume that the terms were fixed beforehand.
    """

    name: str  # the column, or "intercept"
    value: float
    standard_error: float
    t: float
    p: float  # two-sided, of the hypothesis that the coefficient is 0
    interval: tuple[float, float]  # 95 %, by Student's t
    bootstrap_interval: tuple[float, float] | None  # 95 %, percentiles over resampled runs; None without resamples
    vif: float | None  # variance inflation factor; None for the intercept

    def cells(self, means: NDArray[np.float64] | None) -> tuple[str, ...]:
        """Return the line of the table of coefficients.

        Args:
            means: float64 (runs,), the column in the runs; None for the intercept.
        """
        return (
            self.name,
            f"{self.value:.4g}",
            f"{self.standard_error:.3g}",
            f"{self.t:.2f}",
            f"{self.p:.2g}",
            _interval(self.interval),
            "" if self.bootstrap_interval is None else _interval(self.bootstrap_interval),
            "" if self.vif is None else f"{self.vif:.2f}",
            "" if means is None else f"{means.min():.4g} to {means.max():.4g}",
        )


@dataclass(frozen=True, slots=True)
class Quality:
    """How well the rule fits its runs and predicts others."""

    r2: float
    adjusted_r2: float
    loo_r2: float  # each run predicted by a fit of the same terms to the others
    loo_error: float  # root mean square of these errors, in log loss
    nested_loo_r2: float | None  # each run predicted by terms chosen without it; None for "all", or over 1,000 runs
    residual_sd: float  # in log loss, with the degrees of freedom as divisor
    f: float
    f_p: float  # p-value of the hypothesis that no term has an effect
    aic: float
    bic: float
    condition_number: float  # of the columns centred and scaled to variance 1

    def facts(self) -> Facts:
        """Return the figures with their names."""
        pairs = [
            ("R2", f"{self.r2:.3f}"),
            ("adjusted R2", f"{self.adjusted_r2:.3f}"),
            ("leave-one-out R2", f"{self.loo_r2:.3f}, these terms refitted without each run"),
        ]
        if self.nested_loo_r2 is not None:
            chosen_anew = f"{self.nested_loo_r2:.3f}, terms chosen anew without each run"
            pairs.append(("leave-one-out R2, nested", chosen_anew))
        pairs += [
            ("leave-one-out error", f"{self.loo_error:.4g} of log loss, root mean square"),
            ("residual standard deviation", f"{self.residual_sd:.4g} of log loss"),
            ("F", f"{self.f:.4g}, p {self.f_p:.2g}"),
            ("AIC, BIC", f"{self.aic:.2f}, {self.bic:.2f}"),
            ("condition number", f"{self.condition_number:.2f}, terms centred and scaled to variance 1"),
        ]
        return Facts("how well it fits, and predicts runs that it has not seen", tuple(pairs))


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted rule, with how it was estimated and how good it is."""

    rule: Rule
    choose: Choose
    considered: tuple[str, ...]
    intercept: Coefficient
    coefficients: tuple[Coefficient, ...]  # one per term, in the order of the columns
    quality: Quality
    resamples: int  # of the runs, from which the bootstrap intervals come
    search: tuple[Subset, ...]  # every subset, best first; for "paper" the steps, from all terms to those that remain
    runs: Runs
    fitted: NDArray[np.float64]  # (runs,) log loss
    residuals: NDArray[np.float64]  # (runs,) observed − fitted log loss
    left_out_residuals: NDArray[np.float64]  # (runs,) the same, each from a fit to the other runs
    warnings: tuple[str, ...]

    @property
    def how(self) -> str:
        """How the terms were chosen, in words."""
        return _HOW[self.choose]

    def origin(self) -> Facts:
        """Return what the rule was estimated from, and how."""
        runs = self.runs.origin
        return Facts(
            f"rule {self.rule.id}",
            (
                ("runs", f"{len(self.runs)}, {runs['file']}, sha256 {runs['sha256'][:12]}"),
                ("considered", ", ".join(self.considered)),
                ("chosen by", f"{self.choose}: {self.how}"),
            ),
        )

    def coefficient_table(self) -> Table:
        """Return a line for each coefficient."""
        means = self.runs.means
        rows = tuple(one.cells(means.get(one.name)) for one in (self.intercept, *self.coefficients))
        units = tuple(unit(row[0]) for row in rows)
        return Table("coefficients: log loss per unit of the column", ("", *_FIGURES), rows, units)

    def subset_table(self) -> Table:
        """Return the best subsets of the terms; for "paper" all its steps."""
        shown = self.search if self.choose == "paper" else self.search[:_SHOWN_SUBSETS]
        what = {"paper": "steps", "all": "subset"}.get(self.choose, "subsets, best first")
        rows = [
            (
                ", ".join(one.terms),
                f"{one.r2:.3f}",
                f"{one.adjusted_r2:.3f}",
                f"{one.loo_r2:.3f}",
                f"{one.loo_error:.4g}",
            )
            for one in shown
        ]
        return Table(f"{len(self.search):,} {what}", _SUBSETS, tuple(rows))

    def residual_plot(self) -> Scatter:
        """Return the residuals against the fitted log losses."""
        names = zip(self.runs.labels, self.residuals.tolist(), strict=True)
        return Scatter(
            "residual of log loss (up) against fitted log loss (across)",
            tuple(self.fitted.tolist()),
            tuple(self.residuals.tolist()),
            tuple(f"{label}: {residual:+.4f}" for label, residual in names),
        )

    def farthest(self) -> Line:
        """Return the runs with the largest residuals."""
        order = sorted(range(len(self.residuals)), key=lambda run: -abs(self.residuals[run]))[:_FAR]
        return Line("farthest: " + ", ".join(f"{self.runs.labels[run]} {self.residuals[run]:+.4f}" for run in order))

    def _repr_html_(self) -> str:
        """Return the report as HTML, for notebooks."""
        blocks: list[Block] = [self.origin(), self.coefficient_table(), self.quality.facts(), self.subset_table()]
        warnings = [Line(f"warning: {warning}") for warning in self.warnings]
        return as_html([*blocks, self.residual_plot(), self.farthest(), *warnings])


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.4g} to {bounds[1]:.4g}"
