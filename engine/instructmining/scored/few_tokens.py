"""Values that rest on so few tokens that a mean over them says little."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

FEW_TOKENS = 3
# Of the response's tokens, how many a column leaves out: ifd is there from the second token on.
_NOT_SCORED = {"perplexity": 0, "ifd": 1}


def rows_on_few_tokens(columns: Mapping[str, NDArray[np.float64]]) -> dict[str, int]:
    """Rows whose value in a column rests on fewer than three scored tokens, by column; columns with such rows alone.

    Args:
        columns: float64 (rows,), NaN where undefined. The tokens are those of ``output_length``, the one of the same
            side where names have one, as ``chosen.output_length``; where it is not there, nothing is counted.
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
    """A line for each column."""
    return [
        f"{column} over fewer than {FEW_TOKENS} tokens: {count:,} row{'' if count == 1 else 's'}; prefer the median"
        for column, count in rows.items()
    ]
