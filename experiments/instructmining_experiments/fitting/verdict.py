"""Says in one sentence whether a rule was found, and what size of experiment would tell."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from instructmining.rules.fitting import Fit
from instructmining_experiments.designing.power import LEVEL, POWER, Detectable, detectable
from instructmining_experiments.fitting.quarter import LEAST_FOR_AN_INTERVAL, SHARE, Score
from instructmining_experiments.fitting.quarter_power import detectable_r2, runs_for


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a rule was found."""

    found: bool
    text: str  # one sentence
    observed_r2: float  # leave-one-out, on the fitted runs; with the terms chosen anew where they were chosen
    detectable_r2: float | None  # smallest that the held-out runs find in 80 % of experiments; None for too few
    detectable: Detectable  # by the fitted runs, with the terms of the rule
    subsets_needed: int | None  # to find a rule of the observed R²; None where that is not above 0

    @classmethod
    def of(cls, score: Score, fit: Fit, *, held_out: int) -> Verdict:
        """Judge a rule.

        Args:
            score: of the rule on the held-out runs.
            fit: to the others.
            held_out: number of held-out runs.
        """
        fitted, nested = len(fit.runs), fit.quality.nested_loo_r2
        observed = fit.quality.loo_r2 if nested is None else nested
        needed = runs_for(observed, least=LEAST_FOR_AN_INTERVAL)
        found = cls(
            found=score.is_found,
            text=_test(score, fitted, held_out),
            observed_r2=observed,
            detectable_r2=detectable_r2(held_out) if held_out >= LEAST_FOR_AN_INTERVAL else None,
            detectable=detectable(fitted, len(fit.coefficients)),
            subsets_needed=None if needed is None else SHARE * needed,
        )
        return found if score.is_found else found._with_sizes(held_out)

    def as_json(self) -> dict[str, object]:
        """Return all figures."""
        return {
            "found": self.found,
            "conclusion": self.text,
            "observed_r2": self.observed_r2,
            "detectable_r2": self.detectable_r2,
            "detectable": {**asdict(self.detectable), "level": LEVEL, "power": POWER},
            "subsets_needed": self.subsets_needed,
        }

    def _with_sizes(self, held_out: int) -> Verdict:
        """Add to the sentence what such an experiment finds, and which would find more."""
        said = [self.text]
        if self.detectable.correlation is not None:
            said.append(
                f"in {POWER:.0%} of experiments {self.detectable.runs} fitted runs show a correlation of "
                f"{self.detectable.correlation:.2f} of a mean and the loss"
            )
        if self.detectable_r2 is not None:
            said[-1] += f", and {held_out} held-out runs a rule with an R2 of {self.detectable_r2:.2f}"
        if self.subsets_needed is not None:
            said.append(
                f"a rule with the leave-one-out R2 found, {self.observed_r2:.3f}, would need about "
                f"{self.subsets_needed:,} subsets"
            )
        else:
            said.append(f"the leave-one-out R2, {self.observed_r2:.3f}, shows no effect that more runs would find")
        return replace(self, text="; ".join(said))


def _test(score: Score, fitted: int, held_out: int) -> str:
    if score.saved_interval is None:
        return (
            f"not found: {held_out} held-out runs are too few to tell; {LEAST_FOR_AN_INTERVAL} are needed, so about "
            f"{SHARE * LEAST_FOR_AN_INTERVAL} subsets"
        )
    begin, end = ("found", "better than") if score.is_found else ("not found", "no better than")
    if score.saved > 0 and not score.is_found:
        end = "not certainly better than"
    r2 = "" if score.r2 is None else f"R2 {score.r2:.3f}, "
    least, most = score.saved_interval
    return (
        f"{begin}: the rule predicts {held_out} held-out runs {end} the mean of the {fitted} fitted ones "
        f"({r2}squared error of the mean − that of the rule {score.saved:.2g}, 95 % {least:.2g} to {most:.2g})"
    )
