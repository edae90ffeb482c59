"""One module per indicator; the scorer knows them only through this table."""

from __future__ import annotations

from instructmining.bundle import RoleName
from instructmining.indicators.base import MEASURED_BY, CorpusIndicator, Indicator, RowIndicator
from instructmining.indicators.ifd import IFD
from instructmining.indicators.knn import KNN, PAPER_K
from instructmining.indicators.lengths import INPUT_LENGTH, OUTPUT_LENGTH
from instructmining.indicators.mtld import MTLD
from instructmining.indicators.perplexity import PERPLEXITY
from instructmining.indicators.reward import REWARD
from instructmining.indicators.unieval import COHERENCE, NATURALNESS, UNDERSTANDABILITY

_IN_ORDER: tuple[Indicator, ...] = (
    INPUT_LENGTH,
    OUTPUT_LENGTH,
    REWARD,
    PERPLEXITY,
    MTLD,
    *KNN.values(),
    NATURALNESS,
    COHERENCE,
    UNDERSTANDABILITY,
    IFD,
)
# In column order.
INDICATORS: dict[str, Indicator] = {indicator.column: indicator for indicator in _IN_ORDER}

# What "all" means.
USUAL = tuple(name for name, kind in INDICATORS.items() if not isinstance(kind, CorpusIndicator) or kind.k == PAPER_K)

__all__ = ["INDICATORS", "USUAL", "CorpusIndicator", "Indicator", "RowIndicator", "roles_of"]


def roles_of(column: str) -> frozenset[RoleName]:
    """Return the roles of a bundle that a column needs; empty for other columns."""
    needs = INDICATORS[column].needs if column in INDICATORS else ()
    return frozenset(MEASURED_BY[measure] for measure in needs if measure in MEASURED_BY)
