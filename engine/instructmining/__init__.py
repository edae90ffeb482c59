"""A compiled scoring engine for instruction-tuning data: indicators, the InstructMining rule, selection.

Example:
    >>> from instructmining import Example, Scorer
    >>> with Scorer.open("bundle", indicators=["perplexity", "mtld"], device="cpu") as scorer:  # doctest: +SKIP
    ...     for row in scorer.score([Example.of("Name a colour.", "Green.")]):
    ...         print(row.columns)

The names below are loaded when they are first used, so that ``instructmining --help`` does not wait for onnxruntime.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructmining.bundle import Bundle
    from instructmining.errors import InstructMiningError
    from instructmining.fitting import Fit, fit
    from instructmining.inputs import read_examples
    from instructmining.records import Example, Reject, ScoredRow, Turn
    from instructmining.rules import Rule
    from instructmining.runstats import Statistics
    from instructmining.scorer import Scorer
    from instructmining.selection import Choice, select

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Choice",
    "Example",
    "Fit",
    "InstructMiningError",
    "Reject",
    "Rule",
    "ScoredRow",
    "Scorer",
    "Statistics",
    "Turn",
    "fit",
    "read_examples",
    "select",
]

_MODULES = {
    "Bundle": "bundle",
    "Choice": "selection",
    "Example": "records",
    "Fit": "fitting",
    "InstructMiningError": "errors",
    "Reject": "records",
    "Rule": "rules",
    "ScoredRow": "records",
    "Scorer": "scorer",
    "Statistics": "runstats",
    "Turn": "records",
    "fit": "fitting",
    "read_examples": "inputs",
    "select": "selection",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'instructmining' has no attribute {name!r}")
    return getattr(import_module(f"instructmining.{_MODULES[name]}"), name)
