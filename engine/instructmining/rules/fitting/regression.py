"""Ordinary least squares on few rows: every subset of the terms, errors of runs left out, bootstrap, collinearity."""

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

_COLLINEAR = 1e-6  # what is left of a column of length 1 when those before it are taken out
_DETERMINED = 1e-10  # 1 − leverage of a run that alone decides a coefficient
_BLOCK = 1024  # resamples at a time
_CELLS = 1 << 22  # most numbers of one of their arrays


@dataclass(frozen=True, slots=True)
class LeastSquares:
    """What is taken of statsmodels' result; arrays are (1 + terms,), the constant first."""

    coefficients: Values
    errors: Values  # standard errors
    t: Values
    p: Values  # two-sided
    intervals: Values  # (1 + terms, 2)
    fitted: Values  # (runs,)
    residuals: Values  # (runs,) observed less fitted
    r2: float
    adjusted_r2: float
    variance: float  # of the residuals, by the degrees of freedom
    f: float
    f_p: float
    aic: float
    bic: float


def least_squares(values: Values, target: Values, confidence: float = 0.95) -> LeastSquares:
    """Ordinary least squares of the target on a constant and the columns, by statsmodels.

    Args:
        values: float64 (runs, terms), in raw units.
        target: float64 (runs,).
        confidence: of the intervals, 0..1.

    Raises:
        FittingError: statsmodels is not installed.
    """
    # A fit without any error has no finite likelihood.
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
    """The two-sided p-values alone, float64 (terms,), without that of the constant.

    Raises:
        FittingError: statsmodels is not installed.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(_fitted(values, target).pvalues[1:])


class _Result(Protocol):
    """What is read of statsmodels' own result; it has no types."""

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
        """Bounds of all coefficients, (1 + terms, 2)."""


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
    """A least-squares fit as a projection: all that leaving runs out needs, without another fit.

    Source:
        Leave-one-out residuals from the hat matrix: Allen, Technometrics 16 (1974) 125-127 (PRESS); Cook and Weisberg,
        Residuals and Influence in Regression (1982), section 2.2, for one run and several.
    """

    basis: Values  # (runs, 1 + terms) orthonormal, the constant first
    residuals: Values  # (runs,)

    @classmethod
    def of(cls, values: Values, target: Values) -> Projection | None:
        """The fit on a constant and the columns; None where a column is a combination of the others."""
        scaled = standardized(values)
        runs = len(target)
        basis, triangle = np.linalg.qr(np.column_stack([np.ones(runs), scaled]))
        if np.abs(np.diag(triangle)).min() < _COLLINEAR * np.sqrt(runs):
            return None
        return cls(basis, target - basis @ (basis.T @ target))

    @property
    def terms(self) -> int:
        """Columns beside the constant."""
        return int(self.basis.shape[1]) - 1

    @property
    def free(self) -> Values:
        """(runs,) 1 − leverage: the share of a run's own value that is not fitted to it."""
        return np.asarray(1 - np.sum(self.basis**2, axis=1))

    @property
    def left_out(self) -> Values:
        """(runs,) what is observed less what the fit to the other runs predicts; infinite where they do not decide."""
        return _divided(self.residuals, self.free)

    def left_out_press(self) -> Values:
        """(runs,) for each run, the sum of squared leave-one-out errors of the others when it is not there at all.

        The residual of run j of a fit without i and j solves (I − H) r = e for the rows and columns i, j of the hat
        matrix H.
        """
        hat = self.basis @ self.basis.T
        free = self.free
        first = free[:, None] * self.residuals[None, :] + hat * self.residuals[:, None]
        errors = _divided(first, free[:, None] * free[None, :] - hat**2)
        np.fill_diagonal(errors, 0.0)
        return np.asarray(np.sum(errors**2, axis=1))

    def left_out_rss(self) -> Values:
        """(runs,) for each run, the residual sum of squares of the fit to the others."""
        return np.asarray(np.sum(self.residuals**2) - self.residuals * self.left_out)


def _divided(errors: Values, free: Values) -> Values:
    return np.divide(errors, free, out=np.full_like(errors, np.inf), where=free > _DETERMINED)


@dataclass(frozen=True, slots=True)
class Subset:
    """Some of the terms and how well they predict."""

    terms: tuple[str, ...]
    r2: float  # share of the variance of the target, 0..1; never falls when a term is added
    adjusted_r2: float  # 1 − (1 − r2) (runs − 1) / (runs − terms − 1)
    loo_r2: float  # 1 − PRESS / total sum of squares, below 0 where the mean predicts better
    loo_error: float  # sqrt(PRESS / runs), in units of the target

    @classmethod
    def of(cls, terms: Sequence[str], projection: Projection, target: Values) -> Subset:
        """Its figures."""
        runs, total = len(target), float(np.sum((target - target.mean()) ** 2))
        left = float(np.sum(projection.residuals**2)) / total
        press = float(np.sum(projection.left_out**2))
        adjusted = 1 - left * (runs - 1) / (runs - len(terms) - 1)
        return cls(tuple(terms), 1 - left, adjusted, 1 - press / total, float(np.sqrt(press / runs)))


def subsets(values: Values, target: Values, most: int) -> Iterator[tuple[tuple[int, ...], Projection]]:
    """Every subset of one column up to so many, small ones first; those of collinear columns are left out."""
    for size in range(1, min(most, values.shape[1]) + 1):
        for columns in combinations(range(values.shape[1]), size):
            projection = Projection.of(values[:, columns], target)
            if projection is not None:
                yield columns, projection


def nested_left_out(values: Values, target: Values, most: int, score: Callable[[Projection], Values]) -> Values:
    """Leave-one-out errors with the search inside: for each run, terms are chosen and fitted without it.

    Args:
        values: float64 (runs, terms).
        target: float64 (runs,).
        most: terms in a subset.
        score: gives float64 (runs,), for each run how bad the subset is when judged without it; the lowest is chosen.

    Returns:
        float64 (runs,): observed less predicted.

    Source:
        Varma and Simon, BMC Bioinformatics 7 (2006) 91: the error of what a search found, measured inside it, is too
        low.
    """
    best = np.full(len(target), np.inf)
    errors = np.full(len(target), np.inf)
    for _, projection in subsets(values, target, most):
        scores = score(projection)
        better = scores < best
        best[better], errors[better] = scores[better], projection.left_out[better]
    return errors


def significant(values: Values, target: Values, limit: float) -> Iterator[list[int]]:
    """Backward elimination: the columns that are left, first all, then each time without the one of the largest p.

    Ends when every p-value is below the limit, or with no column.
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
    """Coefficients of fits to runs drawn with replacement, whole runs at a time.

    The draws are ``numpy.random.default_rng(seed).integers(runs, size=(resamples, runs))``.

    Args:
        values: float64 (runs, terms), not collinear.
        target: float64 (runs,).
        resamples: how many.
        seed: of the draws.

    Returns:
        float64 (resamples, 1 + terms), the constant first; resamples that do not decide all coefficients are left out.

    Source:
        Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 9.5: bootstrapping pairs.
    """
    runs = len(target)
    # In an orthonormal basis the products of a resample are well conditioned, whatever the columns are.
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
        decided = np.linalg.eigvalsh(gram)[:, 0] > _DETERMINED
        right = (counts[decided] @ (basis * target[:, None]))[:, :, None]
        found.append(np.linalg.solve(gram[decided], right)[:, :, 0])
    return np.linalg.solve(triangle, np.concatenate(found).T).T


def condition_number(values: Values) -> float:
    """Largest over smallest singular value of the columns, centred and scaled to variance 1; 1 where uncorrelated."""
    singular = np.linalg.svd(standardized(values), compute_uv=False)
    return float(singular[0] / singular[-1])


def standardized(values: Values) -> Values:
    """Columns of mean 0 and variance 1."""
    centred = values - values.mean(axis=0)
    return np.asarray(centred / np.sqrt(np.mean(centred**2, axis=0)))
