"""The noise floor: how far the losses of the same rows differ, and what that leaves to explain."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from instructmining.rules.fitting import CONFIDENCE
from instructmining_experiments.fitting.finished import Finished
from instructmining_experiments.state.plan import Plan


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Standard deviations of log loss; None where too few runs have a loss."""

    between: float | None  # of the subsets, each by one run
    noise: float | None  # of runs on the same rows with other seeds, pooled
    interval: tuple[float, float] | None  # 95 %, of the noise, by the chi-square distribution
    freedom: int  # degrees of freedom of the noise

    @classmethod
    def of(cls, plan: Plan, finished: Finished) -> NoiseFloor:
        """Compute it from the runs that have a loss.

        Source:
            The pooled variance of a one-way analysis of variance, and its interval; normal errors of equal variance.
        """
        losses = dict(zip(finished.names, finished.log_losses.tolist(), strict=True))
        same: dict[str, list[float]] = {}
        for run in plan.runs:
            if run.name in losses:
                same.setdefault(run.replicates or run.name, []).append(losses[run.name])
        freedom = sum(len(group) - 1 for group in same.values())
        squares = sum(float(np.sum((np.array(group) - np.mean(group)) ** 2)) for group in same.values())
        single = [losses[run.name] for run in plan.runs if run.kind != "replicate" and run.name in losses]
        between = float(np.std(single, ddof=1)) if len(single) > 1 else None
        if not freedom or not squares:  # runs that are equal to the last digit were not trained apart
            return cls(between, None, None, 0)
        tails = chi2.ppf([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2], freedom)
        least, most = np.sqrt(squares / tails).tolist()
        return cls(between, float(np.sqrt(squares / freedom)), (least, most), freedom)

    @property
    def most_r2(self) -> float | None:
        """The largest R² that a rule can reach: 1 − variance of the noise / variance between subsets, at least 0."""
        return self._left(self.noise)

    @property
    def most_r2_interval(self) -> tuple[float, float] | None:
        """The same at the bounds of the noise; the variance between subsets is taken as it is."""
        if self.interval is None:
            return None
        least, most = (self._left(bound) for bound in reversed(self.interval))
        return None if least is None or most is None else (least, most)

    def _left(self, noise: float | None) -> float | None:
        if noise is None or not self.between:
            return None
        return max(0.0, 1 - noise**2 / self.between**2)

    def as_json(self) -> dict[str, object]:
        """Return all figures."""
        return {
            "between_subsets_sd": self.between,
            "noise_sd": self.noise,
            "noise_sd_interval": self.interval,
            "degrees_of_freedom": self.freedom,
            "most_r2": self.most_r2,
            "most_r2_interval": self.most_r2_interval,
        }
