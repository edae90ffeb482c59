"""Distance to the k-th nearest neighbour, the row itself not counted, between unit sentence embeddings."""

from __future__ import annotations

from instructmining.indicators.base import CorpusIndicator
from instructmining.types import KNN_COLUMNS

KNN = {k: CorpusIndicator(column, ("embedding",), k) for k, column in KNN_COLUMNS.items()}
PAPER_K = 6  # of the paper's indicator; the others are computed where they are named
