"""Distance to the sixth nearest neighbour among all rows of the run, between unit sentence embeddings."""

from __future__ import annotations

from instructmining.indicators.base import CorpusIndicator

KNN_6 = CorpusIndicator("knn_6", ("embedding",), k=6)
