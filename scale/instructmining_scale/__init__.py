"""Scores files, whole or in parts on any machines in any order, and merges what they wrote.

Example:
    >>> import ray
    >>> from instructmining_scale import score_dataset, select_dataset
    >>> rows = ray.data.read_parquet("rows/")  # doctest: +SKIP
    >>> scored = score_dataset(rows, "/shared/scored", bundle="/shared/bundle")  # doctest: +SKIP
    >>> select_dataset(scored.folder, "/shared/best", top=1_000_000).selection.kept  # doctest: +SKIP

The names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructmining_scale.dataset_rows import DatasetError
    from instructmining_scale.datasets import DatasetOptions, ScoredDataset, score_dataset, scored_dataset
    from instructmining_scale.ray_pool import RayError
    from instructmining_scale.selection import SelectedDataset, select_dataset

_MODULES = {
    "DatasetError": "dataset_rows",
    "DatasetOptions": "datasets",
    "RayError": "ray_pool",
    "ScoredDataset": "datasets",
    "SelectedDataset": "selection",
    "score_dataset": "datasets",
    "scored_dataset": "datasets",
    "select_dataset": "selection",
}
__all__ = [
    "DatasetError",
    "DatasetOptions",
    "RayError",
    "ScoredDataset",
    "SelectedDataset",
    "score_dataset",
    "scored_dataset",
    "select_dataset",
]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'instructmining_scale' has no attribute {name!r}")
    return getattr(import_module(f"instructmining_scale.{_MODULES[name]}"), name)
