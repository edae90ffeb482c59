"""The result of ``fit`` as a report and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from instructmining.rules.fitting import Coefficient, Fit
from instructmining.scored.aligning import aligned, wrapped
from instructmining_cli.reports.residual_plot import sketch

_SHOWN_SUBSETS = 5
_FAR = 3  # runs with the largest residuals to name
_HEAD = ("", "coefficient", "std. error", "t", "p", "95 % interval", "bootstrap 95 %", "VIF", "range in the runs")


@dataclass(frozen=True, slots=True)
class FitReport:
    """A fit and the width to show it in."""

    found: Fit
    width: int | None = None  # most characters of a line; None for no limit

    def as_json(self) -> dict[str, object]:
        """Return all figures: the rule with its provenance, every subset, every run."""
        found = self.found
        runs = zip(
            found.runs.labels,
            found.runs.losses.tolist(),
            found.fitted.tolist(),
            found.residuals.tolist(),
            found.left_out_residuals.tolist(),
            strict=True,
        )
        names = ("run", "loss", "fitted_log_loss", "residual", "left_out_residual")
        return {
            "rule": found.rule.as_json(),
            "subsets": [asdict(subset) for subset in found.search],
            "runs": [dict(zip(names, figures, strict=True)) for figures in runs],
        }

    def text(self) -> str:
        """Return the report as text."""
        blocks = [self._heading(), self._coefficients(), self._quality(), self._subsets(), self._residuals()]
        return "\n\n".join("\n".join(block) for block in blocks)

    def _heading(self) -> Iterator[str]:
        found = self.found
        origin = found.runs.origin
        yield wrapped(f"runs        {len(found.runs)}, {origin['file']}, sha256 {origin['sha256'][:12]}", self.width)
        yield wrapped(f"considered  {', '.join(found.considered)}", self.width, indent=12)
        yield wrapped(f"chosen by   {found.choose}: {found.how}", self.width, indent=12)

    def _coefficients(self) -> Iterator[str]:
        lines = [
            _HEAD,
            *(self._coefficient(coefficient) for coefficient in (self.found.intercept, *self.found.coefficients)),
        ]
        yield aligned(lines, self.width)

    def _coefficient(self, coefficient: Coefficient) -> tuple[str, ...]:
        means = self.found.runs.means.get(coefficient.name)
        return (
            coefficient.name,
            f"{coefficient.value:.4g}",
            f"{coefficient.standard_error:.3g}",
            f"{coefficient.t:.2f}",
            f"{coefficient.p:.2g}",
            _interval(coefficient.interval),
            "" if coefficient.bootstrap_interval is None else _interval(coefficient.bootstrap_interval),
            "" if coefficient.vif is None else f"{coefficient.vif:.2f}",
            "" if means is None else f"{means.min():.4g} to {means.max():.4g}",
        )

    def _quality(self) -> Iterator[str]:
        quality = self.found.quality
        yield wrapped(f"R2                             {quality.r2:.3f}", self.width, indent=31)
        yield wrapped(f"adjusted R2                    {quality.adjusted_r2:.3f}", self.width, indent=31)
        yield wrapped(
            f"leave-one-out R2               {quality.loo_r2:.3f}, these terms refitted without each run",
            self.width,
            indent=31,
        )
        if quality.nested_loo_r2 is not None:
            yield wrapped(
                f"leave-one-out R2, nested       {quality.nested_loo_r2:.3f}, terms chosen anew without each run",
                self.width,
                indent=31,
            )
        yield wrapped(
            f"leave-one-out error            {quality.loo_error:.4g} of log loss, root mean square",
            self.width,
            indent=31,
        )
        yield wrapped(f"residual standard deviation    {quality.residual_sd:.4g} of log loss", self.width, indent=31)
        yield wrapped(f"F                              {quality.f:.4g}, p {quality.f_p:.2g}", self.width, indent=31)
        yield wrapped(f"AIC, BIC                       {quality.aic:.2f}, {quality.bic:.2f}", self.width, indent=31)
        yield wrapped(
            f"condition number               {quality.condition_number:.2f}, terms centred and scaled to variance 1",
            self.width,
            indent=31,
        )

    def _subsets(self) -> Iterator[str]:
        search = self.found.search
        shown = search if self.found.choose == "paper" else search[:_SHOWN_SUBSETS]
        what = {"paper": "steps", "all": "subset"}.get(self.found.choose, "subsets, best first")
        yield f"{'R2':>6}  {'adj. R2':>7}  {'LOO R2':>6}  {'LOO error':>9}  {len(search):,} {what}"
        for subset in shown:
            figures = f"{subset.r2:6.3f}  {subset.adjusted_r2:7.3f}  {subset.loo_r2:6.3f}  {subset.loo_error:9.4g}"
            yield wrapped(f"{figures}  {', '.join(subset.terms)}", self.width, indent=len(figures) + 2)

    def _residuals(self) -> Iterator[str]:
        found = self.found
        heading, *lines = sketch(found.fitted, found.residuals)
        yield wrapped(heading, self.width)
        yield from lines
        order = sorted(range(len(found.residuals)), key=lambda run: -abs(found.residuals[run]))[:_FAR]
        far = ", ".join(f"{found.runs.labels[run]} {found.residuals[run]:+.4f}" for run in order)
        yield wrapped(f"farthest: {far}", self.width)


def _interval(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.4g} to {bounds[1]:.4g}"
