"""One module an indicator; this table is all that the scorer knows of them."""

from __future__ import annotations

from instructmining.indicators.base import CorpusIndicator, Indicator, RowIndicator
from instructmining.indicators.ifd import IFD
from instructmining.indicators.knn import KNN_6
from instructmining.indicators.lengths import INPUT_LENGTH, OUTPUT_LENGTH
from instructmining.indicators.mtld import MTLD
from instructmining.indicators.perplexity import PERPLEXITY
from instructmining.indicators.reward import REWARD

INDICATORS: dict[str, Indicator] = {
    indicator.column: indicator for indicator in (INPUT_LENGTH, OUTPUT_LENGTH, REWARD, PERPLEXITY, MTLD, KNN_6, IFD)
}

# Columns of the method that wait for the unieval role; a rule may name them.
UNIEVAL_COLUMNS = ("naturalness", "coherence", "understandability")

__all__ = ["INDICATORS", "UNIEVAL_COLUMNS", "CorpusIndicator", "Indicator", "RowIndicator"]
