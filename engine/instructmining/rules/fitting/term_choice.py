"""Which of the terms a rule takes, and how well runs are predicted that had no part in that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import FittingError
from instructmining.rules.fitting.regression import (
    Projection,
    Subset,
    least_squares,
    nested_left_out,
    significant,
    subsets,
)

Choose: TypeAlias = Literal["loo", "adjusted-r2", "paper", "all"]

MAX_SEARCHED = 12  # terms: 4,095 subsets
SPARE_RUNS = 4  # runs beyond the terms: a fit without two of them still leaves an error
NESTED_RUNS = 1000  # with more, the search within the search takes minutes
PAPER_P = 0.05  # the paper's elimination stops below it; its own limit is not known


@dataclass(frozen=True, slots=True)
class Problem:
    """The terms that are considered, and what they are to predict."""

    names: tuple[str, ...]
    values: NDArray[np.float64]  # (runs, terms)
    target: NDArray[np.float64]  # (runs,) log loss

    @property
    def most(self) -> int:
        """Terms that the runs can carry."""
        return len(self.target) - SPARE_RUNS


def _adjusted_left_out(projection: Projection) -> NDArray[np.float64]:
    """(runs,) residual variance of the fit without each run: the lower, the higher its adjusted R²."""
    return np.asarray(projection.left_out_rss() / (len(projection.residuals) - projection.terms - 2))


# The choices that search all subsets; each with how bad a subset is when it is judged without each run.
SEARCHES = {"loo": Projection.left_out_press, "adjusted-r2": _adjusted_left_out}


def choose_terms(problem: Problem, choose: Choose) -> tuple[list[int], tuple[Subset, ...]]:
    """Choose.

    Returns:
        The columns taken, in their order; and the figures of every subset, best first, or of the steps of ``paper``.

    Raises:
        FittingError: the runs are too few, the terms too many to search, terms that must all be taken are collinear, or
            none is left.
    """
    _check_size(problem, choose)
    whole = list(range(len(problem.names)))
    if choose in SEARCHES:
        return _search(problem, choose)
    if not figures(problem, whole):
        raise FittingError(f"one of {', '.join(problem.names)} is a combination of the others; name fewer terms")
    steps = [whole]
    if choose == "paper":
        steps = list(significant(problem.values, problem.target, PAPER_P))
    if not steps[-1]:
        raise FittingError(f"none of {', '.join(problem.names)} has a p-value below {PAPER_P}: no term is left")
    return steps[-1], tuple(subset for step in steps for subset in figures(problem, step))


def _check_size(problem: Problem, choose: Choose) -> None:
    runs, terms = problem.values.shape
    wanted = (1 if choose in SEARCHES else terms) + SPARE_RUNS
    if runs < wanted:
        fewer = "" if choose in SEARCHES or terms == 1 else ", or fewer terms"
        raise FittingError(f"{runs} runs for {terms} terms are too few; wanted at least {wanted} runs{fewer}")
    if choose in SEARCHES and terms > MAX_SEARCHED:
        raise FittingError(
            f"{terms} terms have {2**terms - 1:,} subsets; name at most {MAX_SEARCHED} of them, or take 'all'"
        )


def _search(problem: Problem, choose: Choose) -> tuple[list[int], tuple[Subset, ...]]:
    names, values, target = problem.names, problem.values, problem.target
    found = [
        (Subset.of([names[column] for column in columns], projection, target), columns)
        for columns, projection in subsets(values, target, problem.most)
    ]
    # A stable sort: of equals, the one with fewer terms.
    found.sort(key=lambda pair: pair[0].loo_error if choose == "loo" else -pair[0].adjusted_r2)
    return list(found[0][1]), tuple(subset for subset, _ in found)


def figures(problem: Problem, columns: list[int]) -> list[Subset]:
    """Those of one subset; none where its columns are collinear."""
    projection = Projection.of(problem.values[:, columns], problem.target)
    names = [problem.names[column] for column in columns]
    return [] if projection is None else [Subset.of(names, projection, problem.target)]


def nested_r2(problem: Problem, choose: Choose) -> float | None:
    """R² of runs predicted by terms that were chosen, and fitted, without them.

    Returns:
        1 − the sum of their squared errors over the total sum of squares; None where nothing is chosen, or over 1,000
        runs.
    """
    values, target = problem.values, problem.target
    if choose == "all" or len(target) > NESTED_RUNS:
        return None
    if choose == "paper":
        errors = np.array([_paper_error(problem, run) for run in range(len(target))])
    else:
        errors = nested_left_out(values, target, problem.most, SEARCHES[choose])
    return 1 - float(np.sum(errors**2) / np.sum((target - target.mean()) ** 2))


def _paper_error(problem: Problem, run: int) -> float:
    """Of one run, predicted by the paper's choice among the others; by their mean where no term is left."""
    values, target = np.delete(problem.values, run, axis=0), np.delete(problem.target, run)
    *_, columns = significant(values, target, PAPER_P)
    constant, *slopes = least_squares(values[:, columns], target).coefficients
    return float(problem.target[run] - constant - problem.values[run, columns] @ np.array(slopes))
