"""exp of the mean negative log likelihood of the response tokens, given the prompt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from instructmining.indicators.base import LikelihoodSums, Measurements, RowIndicator
from instructmining.types import Column


def mean_nll(sums: LikelihoodSums) -> NDArray[np.float64]:
    """Return nats per token, float64 (rows,); NaN where a row has no token to score."""
    with np.errstate(invalid="ignore"):
        return sums.total / np.where(sums.tokens > 0, sums.tokens, np.nan)


def _perplexity(rows: Measurements) -> Column:
    sums = rows.conversation_nll
    assert sums is not None
    empty = np.flatnonzero(sums.tokens == 0)
    return Column(np.exp(mean_nll(sums)), dict.fromkeys(empty.tolist(), "no response token to score"))


PERPLEXITY = RowIndicator("perplexity", ("conversation_nll",), _perplexity)
