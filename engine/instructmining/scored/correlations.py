"""How columns go together: Pearson and Spearman correlation, variance inflation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.rules.correlation import ranks, variance_inflation
from instructmining.scored.column_store import ColumnStore

# Less variance than this, of columns scaled to variance 1, is rounding: the sums are taken in one pass.
_NO_VARIANCE = 1e-12


@dataclass(frozen=True, slots=True)
class Correlations:
    """Of columns in the order given; NaN where not defined: fewer than two rows, or no variance."""

    pearson: NDArray[np.float64]  # (columns, columns) over the rows where both are known
    spearman: NDArray[np.float64]  # (columns, columns) Pearson of their ranks among these rows


def correlations(store: ColumnStore, names: Sequence[str]) -> Correlations:
    """Pearson and Spearman correlation of all pairs of columns, each over the rows where both are known.

    Equal values share the mean of their ranks. Memory holds a column, its order and its ranks: about 50 bytes a row.

    Raises:
        OutputError: the temporary folder does not take the ranks.
    """
    pearson, pairs = _pearson(_scaled(store, names), len(names))
    with ColumnStore(names) as ranked:
        for name in names:
            ranked.put(name, ranks(store.column(name)))
        spearman, _ = _pearson(_scaled(ranked, names), len(names))
    known = np.diag(pairs)
    for first, second in np.argwhere(np.tril((pairs != known) | (pairs != known[:, None]))).tolist():
        # Other rows are known of the one than of the other: the ranks are those among the rows of the pair.
        with ColumnStore(["first", "second"]) as pair:
            there = ~np.isnan(store.column(names[first])) & ~np.isnan(store.column(names[second]))
            pair.put("first", ranks(store.column(names[first])[there]))
            pair.put("second", ranks(store.column(names[second])[there]))
            value = _pearson(_scaled(pair, pair.names), 2)[0][0, 1]
        spearman[first, second] = spearman[second, first] = value
    return Correlations(pearson, spearman)


def inflation(store: ColumnStore, names: Sequence[str]) -> dict[str, float | None]:
    """Variance inflation factor of each column among the others, over the rows where all are known.

    Columns without variance, or known nowhere, are left out of it and have none (None). A column that the others give
    exactly has infinity. None for all where there are no more rows than columns.
    """
    used = [name for name in names if _varies(store.known(name))]
    correlation, rows = _complete_correlation(store, used)
    defined = ~np.isnan(np.diag(correlation))
    used = [name for name, varies in zip(used, defined, strict=True) if varies]
    correlation = correlation[np.ix_(defined, defined)]
    factors: dict[str, float | None] = dict.fromkeys(names)
    if rows <= len(used):
        return factors
    sizes, axes = np.linalg.eigh(correlation)
    root = np.sqrt(np.maximum(sizes, 0.0))[:, None] * axes.T
    return factors | dict(zip(used, variance_inflation(root).tolist(), strict=True))


def _complete_correlation(store: ColumnStore, names: Sequence[str]) -> tuple[NDArray[np.float64], int]:
    """Pearson correlation over the rows where all columns are known, and how many these are."""

    def complete() -> Iterator[NDArray[np.float64]]:
        for chunk in _scaled(store, names)():
            yield chunk[~np.isnan(chunk).any(axis=1)]

    correlation, pairs = _pearson(complete, len(names))
    return correlation, int(pairs[0, 0]) if len(names) else 0


def _varies(values: NDArray[np.float64]) -> bool:
    return len(values) > 1 and bool((values != values[0]).any())


def _scaled(store: ColumnStore, names: Sequence[str]) -> Callable[[], Iterator[NDArray[np.float64]]]:
    """Columns as chunks with mean 0 and variance 1, so that sums of squares keep their digits."""
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
    """Pearson correlation of each pair over the rows where both are known, and how many rows these are.

    Args:
        chunks: gives (rows, columns), scaled, NaN where not known.
        columns: how many.
    """
    rows, first, second, product = (np.zeros((columns, columns)) for _ in range(4))
    for chunk in chunks():
        there = ~np.isnan(chunk)
        values, known = np.where(there, chunk, 0.0), there.astype(np.float64)
        rows += known.T @ known
        first += values.T @ known  # of the row's column, where the other is known
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
