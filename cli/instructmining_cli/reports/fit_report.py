"""One fit as the user sees it: the report and the JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from instructmining.rules.fitting import Coefficient, Fit
from instructmining.scored.aligning import aligned, wrapped
from instructmining_cli.reports.residual_plot import sketch

_SHOWN_SUBSETS = 5
_FAR = 3  # runs of the largest residuals are named
_HEAD = ("", "coefficient", "std. error", "t", "p", "95 % interval", "bootstrap 95 %", "VIF", "range in the runs")


@dataclass(frozen=True, slots=True)
class FitReport:
    """A fit, to be shown."""

    found: Fit
    width: int | None = None  # most characters of a line

    def as_json(self) -> dict[str, object]:
        """All figures: the rule with its provenance, every subset, every run."""
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
            "runs": [dict(zip(names, of, strict=True)) for of in runs],
        }

    def text(self) -> str:
        """Lines for a person."""
        blocks = [self._heading(), self._coefficients(), self._quality(), self._subsets(), self._residuals()]
        return "\n\n".join("\n".join(block) for block in blocks)

    def _heading(self) -> Iterator[str]:
        found = self.found
        origin = found.runs.origin
        yield wrapped(f"runs        {len(found.runs)}, {origin['file']}, sha256 {origin['sha256'][:12]}", self.width)
        yield wrapped(f"considered  {', '.join(found.considered)}", self.width, indent=12)
        yield wrapped(f"chosen by   {found.choose}: {found.how}", self.width, indent=12)

    def _coefficients(self) -> Iterator[str]:
        lines = [_HEAD, *(self._coefficient(of) for of in (self.found.intercept, *self.found.coefficients))]
        yield aligned(lines, self.width)

    def _coefficient(self, of: Coefficient) -> tuple[str, ...]:
        means = self.found.runs.means.get(of.name)
        return (
            of.name,
            f"{of.value:.4g}",
            f"{of.standard_error:.3g}",
            f"{of.t:.2f}",
            f"{of.p:.2g}",
            _interval(of.interval),
            "" if of.bootstrap_interval is None else _interval(of.bootstrap_interval),
            "" if of.vif is None else f"{of.vif:.2f}",
            "" if means is None else f"{means.min():.4g} to {means.max():.4g}",
        )

    def _quality(self) -> Iterator[str]:
        of = self.found.quality
        yield wrapped(f"R2                             {of.r2:.3f}", self.width, indent=31)
        yield wrapped(f"adjusted R2                    {of.adjusted_r2:.3f}", self.width, indent=31)
        yield wrapped(
            f"leave-one-out R2               {of.loo_r2:.3f}, these terms refitted without each run",
            self.width,
            indent=31,
        )
        if of.nested_loo_r2 is not None:
            yield wrapped(
                f"leave-one-out R2, nested       {of.nested_loo_r2:.3f}, terms chosen anew without each run",
                self.width,
                indent=31,
            )
        yield wrapped(
            f"leave-one-out error            {of.loo_error:.4g} of log loss, root mean square", self.width, indent=31
        )
        yield wrapped(f"residual standard deviation    {of.residual_sd:.4g} of log loss", self.width, indent=31)
        yield wrapped(f"F                              {of.f:.4g}, p {of.f_p:.2g}", self.width, indent=31)
        yield wrapped(f"AIC, BIC                       {of.aic:.2f}, {of.bic:.2f}", self.width, indent=31)
        yield wrapped(
            f"condition number               {of.condition_number:.2f}, terms centred and scaled to variance 1",
            self.width,
            indent=31,
        )

    def _subsets(self) -> Iterator[str]:
        search = self.found.search
        shown = search if self.found.choose == "paper" else search[:_SHOWN_SUBSETS]
        what = {"paper": "steps", "all": "subset"}.get(self.found.choose, "subsets, best first")
        yield f"{'R2':>6}  {'adj. R2':>7}  {'LOO R2':>6}  {'LOO error':>9}  {len(search):,} {what}"
        for of in shown:
            figures = f"{of.r2:6.3f}  {of.adjusted_r2:7.3f}  {of.loo_r2:6.3f}  {of.loo_error:9.4g}"
            yield wrapped(f"{figures}  {', '.join(of.terms)}", self.width, indent=len(figures) + 2)

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
