"""Finds values over so few tokens that their mean says little."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FEW_TOKENS = 3
# Response tokens that a column does not score: ifd starts at the second one.
_NOT_SCORED = {"perplexity": 0, "ifd": 1}


def rows_on_few_tokens(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
    """Count rows whose value rests on fewer than three scored tokens, by column; omits columns without such rows.

    Args:
        columns: float64 (rows,), NaN where undefined. Tokens are counted by ``output_length``, or the one of the same
            side, such as ``chosen.output_length``; without it, nothing is counted.
    """
    found = {}
    for column, values in columns.items():
        side, dot, name = column.rpartition(".")
        lengths = columns.get(f"{side}{dot}output_length")
        if name in _NOT_SCORED and lengths is not None:
            few = ~np.isnan(values) & (lengths - _NOT_SCORED[name] < FEW_TOKENS)
            if rows := int(few.sum()):
                found[column] = rows
    return found


def said_of_few_tokens(rows: Mapping[str, int]) -> list[str]:
    """Return a line for each column."""
    return [
        f"{column} over fewer than {FEW_TOKENS} tokens: {count:,} row{'' if count == 1 else 's'}; prefer the median"
        for column, count in rows.items()
    ]
