"""Distances between rows by their embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle
from instructmining.inference.devices import cpu_threads
from instructmining.inference.sessions import ProductSession
from instructmining.knn.exact import neighbour_distances
from instructmining.knn.tiles import Products
from instructmining.scorer.scorer import Scorer
from instructmining.types import Example

Embed: TypeAlias = Callable[[Sequence[Example]], NDArray[np.float32]]  # examples → unit vectors, (rows, size)
_EMBEDDED = "knn_6"  # a column for which the scorer opens the embedding role


def embedder(bundle: Bundle, device: str) -> Embed | None:
    """Return what embeds examples with a bundle; None where it has no embedding role."""
    if "embedding" not in bundle.roles:
        return None

    def embed(examples: Sequence[Example]) -> NDArray[np.float32]:
        with Scorer.open(bundle, indicators=[_EMBEDDED], device=device) as scorer:
            return np.concatenate(list(scorer.embeddings(examples)))

    return embed


def distances_to_nearest(points: NDArray[np.float32], queries: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the Euclidean distance of each query to the nearest point, float64 (queries,).

    Args:
        points: unit vectors, (points, size).
        queries: unit vectors, (queries, size).
    """
    products = Products(ProductSession(), cpu_threads())
    return np.asarray(neighbour_distances(points, (1,), products, queries=queries)[:, 0], dtype=np.float64)
