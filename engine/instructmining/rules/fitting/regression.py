"""Ordinary least squares on few rows: subsets of terms, leave-one-out errors, bootstrap, collinearity."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from itertools import combinations
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import FittingError

Values: TypeAlias = NDArray[np.float64]

_COLLINEAR = 1e-6  # length left of a column of length 1 after projecting out those before it
_DETERMINED = 1e-10  # 1 − leverage; a run with less alone determines a coefficient
_BLOCK = 1024  # resamples computed at a time
_CELLS = 1 << 22  # most numbers in one array of a block


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """Results of statsmodels; arrays are (1 + terms,), the constant first, unless noted."""

    coefficients: Values
    errors: Values  # standard errors
    t: Values
    p: Values  # two-sided
    intervals: Values  # (1 + terms, 2)
    fitted: Values  # (runs,)
    residuals: Values  # (runs,) observed − fitted
    r2: float
    adjusted_r2: float
    variance: float  # of the residuals, with the degrees of freedom as divisor
    f: float
    f_p: float
    aic: float
    bic: float


def least_squares(values: Values, target: Values, confidence: float = 0.95) -> LeastSquares:
    """Fit the target on a constant and the columns by ordinary least squares, with statsmodels.

    Args:
        values: float64 (runs, terms), in raw units.
        target: float64 (runs,).
        confidence: level of the intervals, 0..1.

    Raises:
        FittingError: statsmodels is not installed.
    """
    # A perfect fit has no finite likelihood.
    with np.errstate(divide="ignore", invalid="ignore"):
        result = _fitted(values, target)
        return LeastSquares(
            coefficients=result.params,
            errors=result.bse,
            t=result.tvalues,
            p=result.pvalues,
            intervals=result.conf_int(alpha=1 - confidence),
            fitted=result.fittedvalues,
            residuals=result.resid,
            r2=float(result.rsquared),
            adjusted_r2=float(result.rsquared_adj),
            variance=float(result.mse_resid),
            f=float(result.fvalue),
            f_p=float(result.f_pvalue),
            aic=float(result.aic),
            bic=float(result.bic),
        )


def p_values(values: Values, target: Values) -> Values:
    """Return two-sided p-values, float64 (terms,), without the constant's.

    Raises:
        FittingError: statsmodels is not installed.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_fitted(values, target).pvalues[1:])


class _Result(Protocol):
    """The attributes used of statsmodels' result, which has no types."""

    params: Values
    bse: Values
    tvalues: Values
    pvalues: Values
    fittedvalues: Values
    resid: Values
    rsquared: float
    rsquared_adj: float
    mse_resid: float
    fvalue: float
    f_pvalue: float
    aic: float
    bic: float

    def conf_int(self, alpha: float) -> Values:
        """Return the bounds of all coefficients, (1 + terms, 2)."""


def _fitted(values: Values, target: Values) -> _Result:
    try:
        models = import_module("statsmodels.regression.linear_model")
    except ModuleNotFoundError as error:
        raise FittingError(
            "statsmodels is not installed; fitting needs it: pip install 'instructmining[fit]'"
        ) from error
    result: _Result = models.OLS(target, np.column_stack([np.ones(len(target)), values])).fit()
    return result


@dataclass(frozen=True, slots=True)
class Projection:
    """A least-squares fit as a projection; gives leave-one-out errors without another fit.

    Source:
        Leave-one-out residuals from the hat matrix: Allen, Technometrics 16 (1974) 125-127 (PRESS); Cook and Weisberg,
        Residuals and Influence in Regression (1982), section 2.2, for leaving out one run or several.
    """

    basis: Values  # (runs, 1 + terms) orthonormal, the constant first
    residuals: Values  # (runs,)

    @classmethod
    def of(cls, values: Values, target: Values) -> Projection | None:
        """Fit on a constant and the columns; returns None where a column is a combination of the others."""
        scaled = standardized(values)
        runs = len(target)
        basis, triangle = np.linalg.qr(np.column_stack([np.ones(runs), scaled]))
        if np.abs(np.diag(triangle)).min() < _COLLINEAR * np.sqrt(runs):
            return None
        return cls(basis, target - basis @ (basis.T @ target))

    @property
    def terms(self) -> int:
        """Number of columns without the constant."""
        return int(self.basis.shape[1]) - 1

    @property
    def free(self) -> Values:
        """(runs,) 1 − leverage: the part of a change in a run's value that its residual keeps."""
        return np.asarray(1 - np.sum(self.basis**2, axis=1))

    @property
    def left_out(self) -> Values:
        """(runs,) observed − predicted by a fit to the other runs; infinite where they do not determine it."""
        return _divided(self.residuals, self.free)

    def left_out_press(self) -> Values:
        """Return for each run the sum of squared leave-one-out errors of the data without it, (runs,).

        The error of run j in a fit without i and j solves (I − H) r = e for rows and columns i, j of the hat matrix H.
        """
        hat = self.basis @ self.basis.T
        free = self.free
        first = free[:, None] * self.residuals[None, :] + hat * self.residuals[:, None]
        errors = _divided(first, free[:, None] * free[None, :] - hat**2)
        np.fill_diagonal(errors, 0.0)
        return np.asarray(np.sum(errors**2, axis=1))

    def left_out_rss(self) -> Values:
        """Return for each run the residual sum of squares of a fit to the others, (runs,)."""
        return np.asarray(np.sum(self.residuals**2) - self.residuals * self.left_out)


def _divided(errors: Values, free: Values) -> Values:
    return np.divide(errors, free, out=np.full_like(errors, np.inf), where=free > _DETERMINED)


@dataclass(frozen=True, slots=True)
class Subset:
    """A subset of the terms, and how well it predicts."""

    terms: tuple[str, ...]
    r2: float  # explained share of the target's variance, 0..1; never falls when a term is added
    adjusted_r2: float  # 1 − (1 − r2) (runs − 1) / (runs − terms − 1)
    loo_r2: float  # 1 − PRESS / total sum of squares; below 0 where the mean predicts better
    loo_error: float  # sqrt(PRESS / runs), in units of the target

    @classmethod
    def of(cls, terms: Sequence[str], projection: Projection, target: Values) -> Subset:
        """Compute the figures of a fit."""
        runs, total = len(target), float(np.sum((target - target.mean()) ** 2))
        left = float(np.sum(projection.residuals**2)) / total
        press = float(np.sum(projection.left_out**2))
        adjusted = 1 - left * (runs - 1) / (runs - len(terms) - 1)
        return cls(tuple(terms), 1 - left, adjusted, 1 - press / total, float(np.sqrt(press / runs)))


def subsets(values: Values, target: Values, most: int) -> Iterator[tuple[tuple[int, ...], Projection]]:
    """Yield every subset of up to ``most`` columns, small ones first, without those of collinear columns."""
    for size in range(1, min(most, values.shape[1]) + 1):
        for columns in combinations(range(values.shape[1]), size):
            projection = Projection.of(values[:, columns], target)
            if projection is not None:
                yield columns, projection


def nested_left_out(values: Values, target: Values, most: int, score: Callable[[Projection], Values]) -> Values:
    """Return leave-one-out errors of the whole search: terms are chosen and fitted without each run.

    Args:
        values: float64 (runs, terms).
        target: float64 (runs,).
        most: most terms in a subset.
        score: returns float64 (runs,), for each run how bad a subset is on the others; the lowest is chosen.

    Returns:
        float64 (runs,): observed − predicted.

    Source:
        Varma and Simon, BMC Bioinformatics 7 (2006) 91: an error measured on the data of the search is too low.
    """
    best = np.full(len(target), np.inf)
    errors = np.full(len(target), np.inf)
    for _, projection in subsets(values, target, most):
        scores = score(projection)
        better = scores < best
        best[better], errors[better] = scores[better], projection.left_out[better]
    return errors


def significant(values: Values, target: Values, limit: float) -> Iterator[list[int]]:
    """Yield the columns left at each step of a backward elimination, starting with all.

    Each step drops the column with the largest p-value, until every p-value is below the limit or no column is left.
    """
    columns = list(range(values.shape[1]))
    while True:
        yield list(columns)
        if not columns:
            return
        p = p_values(values[:, columns], target)
        if p.max() < limit:
            return
        columns.pop(int(p.argmax()))


def bootstrapped(values: Values, target: Values, *, resamples: int, seed: int) -> Values:
    """Return the coefficients of fits to runs drawn with replacement.

    The draws are ``numpy.random.default_rng(seed).integers(runs, size=(resamples, runs))``.

    Args:
        values: float64 (runs, terms), not collinear.
        target: float64 (runs,).
        resamples: number of draws.
        seed: seed of the draws.

    Returns:
        float64 (resamples, 1 + terms), the constant first, without resamples that do not determine all coefficients.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 9.5: bootstrapping pairs.
    """
    runs = len(target)
    # In an orthonormal basis the normal equations are well conditioned, whatever the columns are.
    basis, triangle = np.linalg.qr(np.column_stack([np.ones(runs), values]))
    size = basis.shape[1]
    products = (basis[:, :, None] * basis[:, None, :]).reshape(runs, -1) if runs * size**2 <= _CELLS else None
    rng = np.random.default_rng(seed)
    found = [np.empty((0, size))]
    most = max(1, min(_BLOCK, _CELLS // max(runs, size**2)))
    for begin in range(0, resamples, most):
        block = min(most, resamples - begin)
        drawn = rng.integers(runs, size=(block, runs)) + runs * np.arange(block)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=block * runs).reshape(block, runs).astype(np.float64)
        if products is not None:
            gram = (counts @ products).reshape(block, size, size)
        else:
            gram = np.stack([(basis * weights[:, None]).T @ basis for weights in counts])
        determined = np.linalg.eigvalsh(gram)[:, 0] > _DETERMINED
        right = (counts[determined] @ (basis * target[:, None]))[:, :, None]
        found.append(np.linalg.solve(gram[determined], right)[:, :, 0])
    return np.linalg.solve(triangle, np.concatenate(found).T).T


def condition_number(values: Values) -> float:
    """Return the largest over the smallest singular value of the standardized columns; 1 where uncorrelated."""
    singular = np.linalg.svd(standardized(values), compute_uv=False)
    return float(singular[0] / singular[-1])


def standardized(values: Values) -> Values:
    """Scale columns to mean 0 and variance 1."""
    centred = values - values.mean(axis=0)
    return np.asarray(centred / np.sqrt(np.mean(centred**2, axis=0)))
