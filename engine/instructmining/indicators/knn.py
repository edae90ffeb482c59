"""Distance to the k-th nearest other row, between unit sentence embeddings."""

from __future__ import annotations

from instructmining.indicators.base import CorpusIndicator
from instructmining.types import KNN_COLUMNS

KNN = {k: CorpusIndicator(column, ("embedding",), k) for k, column in KNN_COLUMNS.items()}
PAPER_K = 6  # k of the paper's indicator; other k are computed only where named
