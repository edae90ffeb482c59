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
from warnings import warn

if TYPE_CHECKING:
    from instructmining.bundle import Bundle
    from instructmining.errors import InstructMiningError
    from instructmining.knn.options import KnnOptions
    from instructmining.reading.examples import read_examples
    from instructmining.reading.formats import FieldOptions
    from instructmining.reading.options import ReadOptions
    from instructmining.rules import Rule
    from instructmining.rules.fitting import Fit, fit
    from instructmining.scored.compare import Comparison, Differing, compare
    from instructmining.scored.describe import Description, describe
    from instructmining.scored.rescore import Rescoring, rescore
    from instructmining.scored.selection import Selection, select
    from instructmining.scored.selection.converting import Conversion
    from instructmining.scored.selection.near_duplicates import Distinct
    from instructmining.scored.selection.options import Extras, SelectionOptions
    from instructmining.scorer.frames import score_table, to_arrow
    from instructmining.scorer.scorer import Scorer
    from instructmining.types import Example, Reject, ScoredRow, Turn
    from instructmining.writing.statistics import Statistics

__version__ = "0.1.0"
__all__ = [
    "Bundle",
    "Comparison",
    "Conversion",
    "Description",
    "Differing",
    "Distinct",
    "Example",
    "Extras",
    "FieldOptions",
    "Fit",
    "InstructMiningError",
    "KnnOptions",
    "ReadOptions",
    "Reject",
    "Rescoring",
    "Rule",
    "ScoredRow",
    "Scorer",
    "Selection",
    "SelectionOptions",
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
    "Comparison": "scored.compare",
    "Conversion": "scored.selection.converting",
    "Description": "scored.describe",
    "Differing": "scored.compare",
    "Distinct": "scored.selection.near_duplicates",
    "Example": "types",
    "Extras": "scored.selection.options",
    "FieldOptions": "reading.formats",
    "Fit": "rules.fitting",
    "InstructMiningError": "errors",
    "KnnOptions": "knn.options",
    "ReadOptions": "reading.options",
    "Reject": "types",
    "Rescoring": "scored.rescore",
    "Rule": "rules",
    "ScoredRow": "types",
    "Scorer": "scorer.scorer",
    "Selection": "scored.selection",
    "SelectionOptions": "scored.selection.options",
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
_RENAMED = {"Choice": "SelectionOptions", "Neighbourhood": "KnnOptions"}  # for one release more


def __getattr__(name: str) -> object:
    if name in _RENAMED:
        new = _RENAMED[name]
        message = f"instructmining.{name} is called {new} now; the old name goes with the next release"
        warn(message, DeprecationWarning, stacklevel=2)
        return __getattr__(new)
    if name not in _MODULES:
        raise AttributeError(f"module 'instructmining' has no attribute {name!r}")
    return getattr(import_module(f"instructmining.{_MODULES[name]}"), name)
