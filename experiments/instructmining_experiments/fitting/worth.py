"""What each indicator is worth in a rule that was fitted to runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from instructmining.rules.fitting import Coefficient, Fit
from instructmining_experiments.fitting.finished import Finished
from instructmining_experiments.state.plan import Plan

State: TypeAlias = Literal["chosen", "sign not known", "not chosen", "not considered", "same in all runs", "empty"]
NOTHING: tuple[State, ...] = ("not chosen", "sign not known")  # worth nothing, as far as the runs say


@dataclass(frozen=True, slots=True)
class Worth:
    """An indicator; effects are changes of log loss per standard deviation of the fitted runs' set means."""

    name: str
    state: State
    spread: float | None = None  # that standard deviation, in the indicator's unit
    effect: float | None = None  # with the other terms of the rule fixed; None where it is no term
    effect_interval: tuple[float, float] | None = None  # 95 %, bootstrap
    alone: float | None = None  # as the only term
    alone_interval: tuple[float, float] | None = None


def worth_of(plan: Plan, fitted: Finished, rule: Fit, alone: Mapping[str, Fit]) -> tuple[Worth, ...]:
    """Return what each indicator of a plan is worth.

    Args:
        plan: with the indicators.
        fitted: the runs that the rules were fitted to.
        rule: with the terms that were chosen.
        alone: a rule of one term for each indicator that varies.
    """
    terms = {term.name: term for term in rule.coefficients}
    return tuple(_worth(name, fitted, rule, terms.get(name), alone.get(name)) for name in plan.indicators)


def _worth(name: str, fitted: Finished, rule: Fit, term: Coefficient | None, alone: Fit | None) -> Worth:
    if alone is None:
        return Worth(name, "same in all runs" if name in fitted.means else "empty")
    spread = float(np.std(fitted.means[name], ddof=1))
    single = alone.coefficients[0]
    return Worth(
        name,
        _state(name, rule, term),
        spread,
        None if term is None else term.value * spread,
        None if term is None else _times(term.bootstrap_interval, spread),
        single.value * spread,
        _times(single.bootstrap_interval, spread),
    )


def _state(name: str, rule: Fit, term: Coefficient | None) -> State:
    if term is None:
        return "not chosen" if name in rule.considered else "not considered"
    bounds = term.bootstrap_interval
    return "sign not known" if bounds is not None and bounds[0] <= 0 <= bounds[1] else "chosen"


def _times(bounds: tuple[float, float] | None, factor: float) -> tuple[float, float] | None:
    return None if bounds is None else (bounds[0] * factor, bounds[1] * factor)
