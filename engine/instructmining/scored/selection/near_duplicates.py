"""Near duplicates by the distance of their embeddings: which rows are too close to one that was kept before."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from types import NoneType
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import SelectionError
from instructmining.errors.arguments import check_type, shown
from instructmining.reading.formats import FieldOptions, format_name
from instructmining.types import Example

BLOCK = 512  # vectors that are compared at a time
_TILE = 8192  # kept vectors that they are compared with at a time: 16 MB of products
_UNIT_ROUNDOFF = 2.0**-24  # of float32
_NORM_ERROR = 2e-6  # of a norm that is computed in float32
_NO_UNIT = 1e-3  # a norm that is farther from 1 is an embedder's mistake


class Embedder(Protocol):
    """What gives examples their embeddings; ``Scorer.open(bundle, indicators=["knn_6"])`` is one."""

    def embeddings(self, examples: Iterable[Example], /) -> Generator[NDArray[np.float32], None, None]:
        """Unit vectors of all examples in their order, float32 (rows, size) by blocks of any number of rows."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """How far apart the rows that are kept must be."""

    distance: float  # Euclidean between unit vectors, 0..2; of two rows that are closer one is kept
    embedder: Embedder
    format: str | None = None  # of the rows; by default that of each row
    fields: FieldOptions | None = None  # how the rows' fields are read, in place of a format
    encoder: Mapping[str, object] = field(default_factory=dict)  # what the selection file says of the embedder

    def __post_init__(self) -> None:
        """Check the distance and the format.

        Raises:
            SelectionError: the distance is no number or out of range, or the embedder is none.
            InputError: the format is not known.
        """
        check_type("fields", self.fields, (FieldOptions, NoneType), wanted="FieldOptions or None", error=SelectionError)
        check_type("distance", self.distance, Real, wanted="a number, 0..2", error=SelectionError)
        if not callable(getattr(self.embedder, "embeddings", None)):
            raise SelectionError(f"embedder is {shown(self.embedder)}, wanted a Scorer, or another with embeddings")
        if not 0 < self.distance <= 2:
            raise SelectionError(f"distance is {self.distance}, wanted more than 0 and at most 2 (of unit vectors)")
        format_name(self.format)

    @property
    def field_options(self) -> FieldOptions:
        """How the fields of a row are read."""
        return self.fields or FieldOptions(format_name(self.format))


class KeptVectors:
    """The vectors of the rows kept so far; finds the nearest of them to each of a block of others.

    Exact: products in float32 find the vectors that can be the nearest or closer than the distance, within the
    products' rounding error; the distances that decide are then computed from the differences in float64. Memory holds
    the vectors kept (4 bytes a number, at most doubled) and one tile of products. Comparing n rows with k kept costs
    2·n·k·size operations.

    Attributes:
        rows: kept so far, in their order.
    """

    def __init__(self, distance: float) -> None:
        """Keep nothing yet; rows closer than the distance are near duplicates."""
        self.rows: list[int] = []
        self._distance = distance
        self._norm_error = _NORM_ERROR  # largest of all vectors so far
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._block = self._vectors
        self._products = self._vectors  # among the block
        self._members: list[int] = []  # rows of the block that were kept
        self._nearest: NDArray[np.float64] = np.empty(0)  # (block,) distances to those kept before the block
        self._places: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # of these nearest among the kept

    def begin(self, block: NDArray[np.float32]) -> None:
        """Take the next vectors, float32 (rows, size), for :meth:`near` and :meth:`keep`.

        Raises:
            SelectionError: one is no unit vector.
        """
        norm_error = float(np.abs(np.linalg.norm(block, axis=1) - 1).max(initial=0))
        if not norm_error <= _NO_UNIT:
            raise SelectionError("the embedder gave a vector whose length is not 1; wanted unit vectors")
        if not self.rows:
            self._vectors = np.empty((2 * BLOCK, block.shape[1]), dtype=np.float32)
        self._block = block
        self._members = []
        # |error of a product of n numbers| <= n·u·Σ|a·b| <= n·u for unit vectors (Higham, Accuracy and Stability of
        # Numerical Algorithms, 3.1), and distance² = |a|² + |b|² − 2·product.
        self._norm_error = max(self._norm_error, norm_error + _NORM_ERROR)
        self._error = 1.01 * block.shape[1] * _UNIT_ROUNDOFF + self._norm_error
        self._floor = 1 - self._distance**2 / 2 - 2 * self._error
        self._products = block @ block.T
        self._nearest = np.full(len(block), np.inf)
        self._places = np.zeros(len(block), dtype=np.int64)
        for first in range(0, len(self.rows), _TILE):
            tile = self._vectors[first : min(first + _TILE, len(self.rows))]
            products = block @ tile.T
            for at in np.flatnonzero(products.max(axis=1) >= self._floor).tolist():
                distance, place = self._closest(at, tile, products[at])
                if distance < self._nearest[at]:  # of equal ones the row that was kept first
                    self._nearest[at], self._places[at] = distance, first + place

    def near(self, at: int) -> tuple[float, int] | None:
        """Distance and row of the nearest kept one, where it is closer than the distance.

        Args:
            at: which vector of the block.
        """
        distance, place = float(self._nearest[at]), int(self._places[at])
        if self._members:
            products = self._products[at, self._members]
            if products.max() >= self._floor:
                of_block, member = self._closest(at, self._block[self._members], products)
                if of_block < distance:
                    distance, place = of_block, len(self.rows) - len(self._members) + member
        return (distance, self.rows[place]) if distance < self._distance else None

    def keep(self, at: int, row: int) -> None:
        """Keep a vector of the block, which is this row's."""
        if len(self.rows) == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self._vectors[len(self.rows)] = self._block[at]
        self._members.append(at)
        self.rows.append(row)

    def _closest(self, at: int, vectors: NDArray[np.float32], products: NDArray[np.float32]) -> tuple[float, int]:
        """Distance and place of the nearest of the vectors, by their products with one of the block."""
        places = np.flatnonzero(products >= products.max() - 4 * self._error)
        differences = vectors[places].astype(np.float64) - self._block[at].astype(np.float64)
        distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
        best = int(distances.argmin())
        return float(distances[best]), int(places[best])
