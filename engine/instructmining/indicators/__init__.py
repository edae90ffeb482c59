"""One module an indicator; this table is all that the scorer knows of them."""

from __future__ import annotations

from instructmining.indicators.base import CorpusIndicator, Indicator, RowIndicator
from instructmining.indicators.ifd import IFD
from instructmining.indicators.knn import KNN_6
from instructmining.indicators.lengths import INPUT_LENGTH, OUTPUT_LENGTH
from instructmining.indicators.mtld import MTLD
from instructmining.indicators.perplexity import PERPLEXITY
from instructmining.indicators.reward import REWARD
from instructmining.indicators.unieval import COHERENCE, NATURALNESS, UNDERSTANDABILITY

# In the order of the columns.
INDICATORS: dict[str, Indicator] = {
    indicator.column: indicator
    for indicator in (
        INPUT_LENGTH,
        OUTPUT_LENGTH,
        REWARD,
        PERPLEXITY,
        MTLD,
        KNN_6,
        NATURALNESS,
        COHERENCE,
        UNDERSTANDABILITY,
        IFD,
    )
}

__all__ = ["INDICATORS", "CorpusIndicator", "Indicator", "RowIndicator"]
