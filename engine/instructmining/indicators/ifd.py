"""Instruction-following difficulty: perplexity of the response given the prompt, over that of the response alone.

Source:
    Li et al., Superfiltering, arXiv 2402.00530; the response alone is scored from its second token on.
"""

from __future__ import annotations

import numpy as np

from instructmining.indicators.base import Measurements, RowIndicator
from instructmining.indicators.perplexity import mean_nll
from instructmining.types import Column


def _ifd(rows: Measurements) -> Column:
    given, alone = rows.conversation_nll, rows.response_nll
    assert given is not None
    assert alone is not None
    notes = dict.fromkeys(np.flatnonzero(alone.tokens == 0).tolist(), "the response is a single token")
    notes |= dict.fromkeys(np.flatnonzero(given.tokens == 0).tolist(), "no response token to score")
    return Column(np.exp(mean_nll(given) - mean_nll(alone)), notes)


IFD = RowIndicator("ifd", ("conversation_nll", "response_nll"), _ifd)
