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
    from instructmining.corpus import Neighbourhood
    from instructmining.errors import InstructMiningError
    from instructmining.fitting import Fit, fit
    from instructmining.frames import score_table, to_arrow
    from instructmining.reading.examples import read_examples
    from instructmining.reading.formats import FieldOptions
    from instructmining.reading.options import ReadOptions
    from instructmining.records import Example, Reject, ScoredRow, Turn
    from instructmining.rules import Rule
    from instructmining.runstats import Statistics
    from instructmining.scorer import Scorer
    from instructmining.selection import Selection, select
    from instructmining.selection.choices import Choice, Extras
    from instructmining.selection.near_duplicates import Distinct
    from instructmining.tables.comparing import Comparison, Differing, compare
    from instructmining.tables.describing import Description, describe
    from instructmining.tables.rescoring import Rescoring, rescore

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
    "Choice": "selection.choices",
    "Comparison": "tables.comparing",
    "Description": "tables.describing",
    "Differing": "tables.comparing",
    "Distinct": "selection.near_duplicates",
    "Example": "records",
    "Extras": "selection.choices",
    "FieldOptions": "reading.formats",
    "Fit": "fitting",
    "InstructMiningError": "errors",
    "Neighbourhood": "corpus",
    "ReadOptions": "reading.options",
    "Reject": "records",
    "Rescoring": "tables.rescoring",
    "Rule": "rules",
    "ScoredRow": "records",
    "Scorer": "scorer",
    "Selection": "selection",
    "Statistics": "runstats",
    "Turn": "records",
    "compare": "tables.comparing",
    "describe": "tables.describing",
    "fit": "fitting",
    "read_examples": "reading.examples",
    "rescore": "tables.rescoring",
    "score_table": "frames",
    "select": "selection",
    "to_arrow": "frames",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'instructmining' has no attribute {name!r}")
    return getattr(import_module(f"instructmining.{_MODULES[name]}"), name)
