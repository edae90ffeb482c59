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
    from instructmining.knn.options import Neighbourhood
    from instructmining.reading.examples import read_examples
    from instructmining.reading.formats import FieldOptions
    from instructmining.reading.options import ReadOptions
    from instructmining.rules import Rule
    from instructmining.rules.fitting import Fit, fit
    from instructmining.scored.compare import Comparison, Differing, compare
    from instructmining.scored.describe import Description, describe
    from instructmining.scored.rescore import Rescoring, rescore
    from instructmining.scored.selection import Selection, select
    from instructmining.scored.selection.choices import Choice, Extras
    from instructmining.scored.selection.near_duplicates import Distinct
    from instructmining.scorer.frames import score_table, to_arrow
    from instructmining.scorer.scorer import Scorer
    from instructmining.types import Example, Reject, ScoredRow, Turn
    from instructmining.writing.statistics import Statistics

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Choice",
    "Comparison",
    "Description",
    "Differing",
    "Distinct",
    "Example",
    "Extras",
    "FieldOptions",
    "Fit",
    "InstructMiningError",
    "Neighbourhood",
    "ReadOptions",
    "Reject",
    "Rescoring",
    "Rule",
    "ScoredRow",
    "Scorer",
    "Selection",
    "Statistics",
    "Turn",
    "compare",
    "describe",
    "fit",
    "read_examples",
    "rescore",
    "score_table",
    "select",
    "to_arrow",
]

_MODULES = {
    "Bundle": "bundle",
    "Choice": "scored.selection.choices",
    "Comparison": "scored.compare",
    "Description": "scored.describe",
    "Differing": "scored.compare",
    "Distinct": "scored.selection.near_duplicates",
    "Example": "types",
    "Extras": "scored.selection.choices",
    "FieldOptions": "reading.formats",
    "Fit": "rules.fitting",
    "InstructMiningError": "errors",
    "Neighbourhood": "knn.search",
    "ReadOptions": "reading.options",
    "Reject": "types",
    "Rescoring": "scored.rescore",
    "Rule": "rules",
    "ScoredRow": "types",
    "Scorer": "scorer.scorer",
    "Selection": "scored.selection",
    "Statistics": "writing.statistics",
    "Turn": "types",
    "compare": "scored.compare",
    "describe": "scored.describe",
    "fit": "rules.fitting",
    "read_examples": "reading.examples",
    "rescore": "scored.rescore",
    "score_table": "scorer.frames",
    "select": "scored.selection",
    "to_arrow": "scorer.frames",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'instructmining' has no attribute {name!r}")
    return getattr(import_module(f"instructmining.{_MODULES[name]}"), name)
