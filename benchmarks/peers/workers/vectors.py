"""Distances to the sixth nearest other row by pynndescent and by scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from protocol import Setting, Task, serve

NEIGHBOUR = 6


class BruteForce(Task):
    """scikit-learn, exact."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        self.vectors = np.load(material["vectors"])

    def run(self, setting: Setting) -> NDArray[Any]:  # noqa: ARG002
        from sklearn.neighbors import NearestNeighbors  # noqa: PLC0415 - its memory is not the other's

        search = NearestNeighbors(n_neighbors=NEIGHBOUR, algorithm="brute", n_jobs=-1).fit(self.vectors)
        return search.kneighbors()[0][:, -1]

    def values(self, result: NDArray[Any]) -> list[float]:
        return result.tolist()


class Descent(BruteForce):
    """pynndescent at its defaults: approximate. A small run compiles it before."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__(material)
        self.search(self.vectors[:2000])

    def run(self, setting: Setting) -> NDArray[Any]:  # noqa: ARG002
        return self.search(self.vectors)

    @staticmethod
    def search(vectors: NDArray[Any]) -> NDArray[Any]:
        from pynndescent import NNDescent  # noqa: PLC0415

        _, distances = NNDescent(vectors, metric="euclidean").neighbor_graph
        return distances[:, NEIGHBOUR]  # the first is the row itself


if __name__ == "__main__":
    serve({"scikit-learn": BruteForce, "pynndescent": Descent}, ("scikit-learn", "pynndescent", "numba", "numpy"))
