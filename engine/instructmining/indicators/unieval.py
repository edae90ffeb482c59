"""Asks a T5 whether the response is natural, coherent with the history, understandable.

Source:
    Zhong et al., UniEval, arXiv 2210.07197, task dialogue: p(Yes) over p(Yes) + p(No) at the first decoder step. The
    questions, verbatim, are in the bundle's template; the response is the last assistant turn, the history all
    turns before it.
"""

from __future__ import annotations

from instructmining.indicators.base import Measurements, Question, RowIndicator
from instructmining.types import Column


def _indicator(question: Question) -> RowIndicator:
    def answer(rows: Measurements) -> Column:
        return Column(rows.answers[question])

    return RowIndicator(question, (question,), answer)


NATURALNESS = _indicator("naturalness")
COHERENCE = _indicator("coherence")
UNDERSTANDABILITY = _indicator("understandability")
