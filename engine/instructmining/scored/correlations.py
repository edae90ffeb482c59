"""Pearson and Spearman correlation and variance inflation of stored columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.rules.correlation import ranks, variance_inflation
from instructmining.scored.column_store import ColumnStore

# In columns scaled to variance 1, less variance than this is rounding of the one-pass sums.
_NO_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Correlations:
    """Correlations of columns, in the order given; NaN with fewer than two rows or without variance."""

    pearson: NDArray[np.float64]  # (columns, columns) over the rows where both columns are known
    spearman: NDArray[np.float64]  # (columns, columns) Pearson correlation of the ranks among these rows


def correlations(store: ColumnStore, names: Sequence[str]) -> Correlations:
    """Compute the correlations of all pairs of columns, each over the rows where both are known.

    Equal values share the mean of their ranks. Memory holds a column, its order and its ranks: about 50 bytes per row.

    Raises:
        OutputError: the temporary folder refuses the ranks.
    """
    pearson, pairs = _pearson(_scaled(store, names), len(names))
    with ColumnStore(names) as ranked:
        for name in names:
            ranked.put(name, ranks(store.column(name)))
        spearman, _ = _pearson(_scaled(ranked, names), len(names))
    known = np.diag(pairs)
    for first, second in np.argwhere(np.tril((pairs != known) | (pairs != known[:, None]))).tolist():
        # The columns are known in different rows, so ranks are computed among the rows where both are.
        with ColumnStore(["first", "second"]) as pair:
            both = ~np.isnan(store.column(names[first])) & ~np.isnan(store.column(names[second]))
            pair.put("first", ranks(store.column(names[first])[both]))
            pair.put("second", ranks(store.column(names[second])[both]))
            value = _pearson(_scaled(pair, pair.names), 2)[0][0, 1]
        spearman[first, second] = spearman[second, first] = value
    return Correlations(pearson, spearman)


def inflation(store: ColumnStore, names: Sequence[str]) -> dict[str, float | None]:
    """Compute the variance inflation factor of each column, over the rows where all are known.

    It is None for columns without variance or values, which are not used for the others, and for all columns where
    there are no more rows than columns. It is infinite for a linear combination of the others.
    """
    used = [name for name in names if _varies(store.known(name))]
    correlation, rows = _complete_correlation(store, used)
    defined = ~np.isnan(np.diag(correlation))
    used = [name for name, varies in zip(used, defined, strict=True) if varies]
    correlation = correlation[np.ix_(defined, defined)]
    factors: dict[str, float | None] = dict.fromkeys(names)
    if rows <= len(used):
        return factors
    eigenvalues, eigenvectors = np.linalg.eigh(correlation)
    root = np.sqrt(np.maximum(eigenvalues, 0.0))[:, None] * eigenvectors.T
    return factors | dict(zip(used, variance_inflation(root).tolist(), strict=True))


def _complete_correlation(store: ColumnStore, names: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """Return the Pearson correlation over the rows where all columns are known, and their number."""

    def complete() -> Iterator[NDArray[np.float64]]:
        for chunk in _scaled(store, names)():
            yield chunk[~np.isnan(chunk).any(axis=1)]

    correlation, pairs = _pearson(complete, len(names))
    return correlation, int(pairs[0, 0]) if len(names) else 0


def _varies(values: NDArray[np.float64]) -> bool:
    return len(values) > 1 and bool((values != values[0]).any())


def _scaled(store: ColumnStore, names: Sequence[str]) -> Callable[[], Iterator[NDArray[np.float64]]]:
    """Return a function that yields chunks of columns scaled to mean 0 and variance 1.

    Sums of squares of unscaled values would lose digits.
    """
    center, scale = np.zeros(len(names)), np.ones(len(names))
    for place, name in enumerate(names):
        known = store.known(name)
        if _varies(known):
            center[place], scale[place] = known.mean(), known.std() or 1.0
        elif len(known):
            center[place] = known[0]
    return lambda: ((chunk - center) / scale for chunk in store.chunks(names))


def _pearson(
    chunks: Callable[[], Iterator[NDArray[np.float64]]], columns: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the Pearson correlation of each pair over the rows where both are known, and the number of rows.

    Args:
        chunks: yields scaled values, (rows, columns), NaN where not known.
        columns: number of columns.
    """
    rows, first, second, product = (np.zeros((columns, columns)) for _ in range(4))
    for chunk in chunks():
        is_known = ~np.isnan(chunk)
        values, known = np.where(is_known, chunk, 0.0), is_known.astype(np.float64)
        rows += known.T @ known
        first += values.T @ known  # [i, j]: sum of column i where j is known
        second += (values * values).T @ known
        product += values.T @ values
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = second / rows - (first / rows) ** 2
        covariance = product / rows - first * first.T / rows**2
        correlation = covariance / np.sqrt(variance * variance.T)
    undefined = (rows < 2) | ~(variance > _NO_VARIANCE) | ~(variance.T > _NO_VARIANCE)
    correlation = np.where(undefined, np.nan, np.clip(correlation, -1.0, 1.0))
    defined = ~np.isnan(np.diag(correlation))
    correlation[defined, defined] = 1.0
    return correlation, rows.astype(np.int64)
