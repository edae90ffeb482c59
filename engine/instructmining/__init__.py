"""A compiled scoring engine for instruction-tuning data: indicators, the InstructMining rule, selection.

Example:
    >>> from instructmining import Example, Scorer
    >>> with Scorer.open("bundle", indicators=["perplexity", "mtld"], device="cpu") as scorer:  # doctest: +SKIP
    ...     for row in scorer.score([Example.of("Name a colour.", "Green.")]):
    ...         print(row.columns)
"""

from __future__ import annotations

from instructmining.bundle import Bundle
from instructmining.errors import InstructMiningError
from instructmining.inputs import read_examples
from instructmining.records import Example, Reject, ScoredRow, Turn
from instructmining.rules import Rule
from instructmining.runstats import Statistics
from instructmining.scorer import Scorer
from instructmining.selection import select

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Example",
    "InstructMiningError",
    "Reject",
    "Rule",
    "ScoredRow",
    "Scorer",
    "Statistics",
    "Turn",
    "read_examples",
    "select",
]
