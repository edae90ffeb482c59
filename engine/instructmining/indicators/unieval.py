"""What a T5 answers when it is asked whether the response is natural, coherent with the history, understandable.

Source:
    Zhong et al., UniEval, arXiv 2210.07197, task dialogue: p(Yes) over p(Yes) + p(No) at the first decoder step. The
    questions, to the letter, are the bundle's template; response is the last assistant turn, history all turns before.
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
