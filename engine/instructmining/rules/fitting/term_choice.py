"""Chooses the terms of a rule, and measures how well such a choice predicts runs it has not seen."""

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
SPARE_RUNS = 4  # runs needed beyond the terms, so that a fit without two of them still has a residual
NESTED_RUNS = 1000  # most runs of a nested search; with more it takes minutes
PAPER_P = 0.05  # p-value at which the elimination stops; the paper does not state its own


@dataclass(frozen=True, slots=True)
class Problem:
    """The terms to choose from, and the values to predict."""

    names: tuple[str, ...]
    values: NDArray[np.float64]  # (runs, terms)
    target: NDArray[np.float64]  # (runs,) log loss

    @property
    def most_terms(self) -> int:
        """Most terms of a subset, given the number of runs."""
        return len(self.target) - SPARE_RUNS


def _adjusted_left_out(projection: Projection) -> NDArray[np.float64]:
    """Return the residual variance of a fit without each run, (runs,); lower means a higher adjusted R²."""
    return np.asarray(projection.left_out_rss() / (len(projection.residuals) - projection.terms - 2))


# The choices that search all subsets; each with the score of a subset on the runs without each one, lower is better.
SEARCHES = {"loo": Projection.left_out_press, "adjusted-r2": _adjusted_left_out}


def choose_terms(problem: Problem, choose: Choose) -> tuple[list[int], tuple[Subset, ...]]:
    """Choose the terms.

    Returns:
        The chosen columns in order, and the figures of every subset, best first; for "paper" those of each step.

    Raises:
        FittingError: the runs are too few, the terms too many to search or, without a search, collinear; or no term is
            left.
    """
    _check_size(problem, choose)
    every = list(range(len(problem.names)))
    if choose in SEARCHES:
        return _search(problem, choose)
    if not figures(problem, every):
        raise FittingError(f"one of {', '.join(problem.names)} is a combination of the others; name fewer terms")
    steps = [every]
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
        for columns, projection in subsets(values, target, problem.most_terms)
    ]
    # The sort is stable: of equal subsets, one with fewer terms comes first.
    found.sort(key=lambda pair: pair[0].loo_error if choose == "loo" else -pair[0].adjusted_r2)
    return list(found[0][1]), tuple(subset for subset, _ in found)


def figures(problem: Problem, columns: list[int]) -> list[Subset]:
    """Return the figures of one subset; empty where its columns are collinear."""
    projection = Projection.of(problem.values[:, columns], problem.target)
    names = [problem.names[column] for column in columns]
    return [] if projection is None else [Subset.of(names, projection, problem.target)]


def nested_r2(problem: Problem, choose: Choose) -> float | None:
    """Return R² of predictions for each run by terms that were chosen and fitted without it.

    Returns:
        1 − sum of squared errors / total sum of squares; None for "all", and for more than 1,000 runs.
    """
    values, target = problem.values, problem.target
    if choose == "all" or len(target) > NESTED_RUNS:
        return None
    if choose == "paper":
        errors = np.array([_paper_error(problem, run) for run in range(len(target))])
    else:
        errors = nested_left_out(values, target, problem.most_terms, SEARCHES[choose])
    return 1 - float(np.sum(errors**2) / np.sum((target - target.mean()) ** 2))


def _paper_error(problem: Problem, run: int) -> float:
    """Return the error of one run, predicted by the paper's choice on the others; by their mean if no term is left."""
    values, target = np.delete(problem.values, run, axis=0), np.delete(problem.target, run)
    *_, columns = significant(values, target, PAPER_P)
    constant, *slopes = least_squares(values[:, columns], target).coefficients
    return float(problem.target[run] - constant - problem.values[run, columns] @ np.array(slopes))
