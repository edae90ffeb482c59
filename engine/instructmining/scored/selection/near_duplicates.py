"""Finds near duplicates: rows whose embeddings are too close to one that was kept before."""

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

BLOCK = 512  # vectors compared at a time
_TILE = 8192  # kept vectors compared with them at a time: 16 MB of products
_UNIT_ROUNDOFF = 2.0**-24  # of float32
_NORM_ERROR = 2e-6  # of a norm computed in float32
_NO_UNIT = 1e-3  # a norm farther from 1 is the embedder's mistake


class Embedder(Protocol):
    """Embeds examples, as ``Scorer.open(bundle, roles=["embedding"])`` does."""

    def embeddings(self, examples: Iterable[Example], /) -> Generator[NDArray[np.float32], None, None]:
        """Yield unit vectors of all examples in order, float32 (rows, size), in blocks of any number of rows."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """How far apart kept rows must be."""

    distance: float  # Euclidean, between unit vectors, 0..2; of two rows closer than this, one is kept
    embedder: Embedder
    format: str | None = None  # format of the rows; by default detected in each row
    fields: FieldOptions | None = None  # how fields are read; instead of a format
    encoder: Mapping[str, object] = field(default_factory=dict)  # description of the embedder, for the selection file

    def __post_init__(self) -> None:
        """Check the distance and the format.

        Raises:
            SelectionError: the distance is no number or out of range, or the embedder has no ``embeddings``.
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
        """How the fields of a row are read: ``fields``, or the format."""
        return self.fields or FieldOptions(format_name(self.format))


class KeptVectors:
    """Vectors of the rows kept so far; finds the nearest of them to other vectors, block by block.

    Results are exact: products in float32 find the candidates, within their rounding error, and the decisive distances
    are computed from the differences in float64. Memory holds the kept vectors, at most twice, and one tile of
    products. Comparing n rows with k kept ones takes 2·n·k·size operations.

    Attributes:
        rows: rows kept so far, in order.
    """

    def __init__(self, distance: float) -> None:
        """Start without vectors; rows closer than the distance are near duplicates."""
        self.rows: list[int] = []
        self._distance = distance
        self._norm_error = _NORM_ERROR  # the largest so far
        self._vectors = np.empty((0, 0), dtype=np.float32)
        self._block = self._vectors
        self._products = self._vectors  # within the block
        self._members: list[int] = []  # vectors of the block that were kept
        self._nearest: NDArray[np.float64] = np.empty(0)  # (block,) distances to the nearest kept before the block
        self._places: NDArray[np.int64] = np.empty(0, dtype=np.int64)  # (block,) places of these among the kept

    def begin(self, block: NDArray[np.float32]) -> None:
        """Set the next vectors, float32 (rows, size), for :meth:`near` and :meth:`keep`.

        Raises:
            SelectionError: a vector is not of length 1.
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
                if distance < self._nearest[at]:  # of equal distances, the row kept first
                    self._nearest[at], self._places[at] = distance, first + place

    def near(self, at: int) -> tuple[float, int] | None:
        """Return distance and row of the nearest kept vector; None where none is a near duplicate.

        Args:
            at: place of the vector in the block.
        """
        distance, place = float(self._nearest[at]), int(self._places[at])
        if self._members:
            products = self._products[at, self._members]
            if products.max() >= self._floor:
                distance_in_block, member = self._closest(at, self._block[self._members], products)
                if distance_in_block < distance:
                    distance, place = distance_in_block, len(self.rows) - len(self._members) + member
        return (distance, self.rows[place]) if distance < self._distance else None

    def keep(self, at: int, row: int) -> None:
        """Keep the vector at a place of the block, which belongs to this row."""
        if len(self.rows) == len(self._vectors):
            self._vectors = np.concatenate([self._vectors, np.empty_like(self._vectors)])
        self._vectors[len(self.rows)] = self._block[at]
        self._members.append(at)
        self.rows.append(row)

    def _closest(self, at: int, vectors: NDArray[np.float32], products: NDArray[np.float32]) -> tuple[float, int]:
        """Return distance and place of the vector nearest to one of the block, given its products with them."""
        places = np.flatnonzero(products >= products.max() - 4 * self._error)
        differences = vectors[places].astype(np.float64) - self._block[at].astype(np.float64)
        distances = np.sqrt(np.einsum("ij,ij->i", differences, differences))
        best = int(distances.argmin())
        return float(distances[best]), int(places[best])
