"""Token counts of the prompt side and of the response, without the template."""

from __future__ import annotations

import numpy as np

from instructmining.indicators.base import Measurements, RowIndicator
from instructmining.types import Column


def _input_length(rows: Measurements) -> Column:
    return Column(np.asarray(rows.prompt_tokens, dtype=np.float64), whole=True)


def _output_length(rows: Measurements) -> Column:
    return Column(np.asarray(rows.response_tokens, dtype=np.float64), whole=True)


INPUT_LENGTH = RowIndicator("input_length", ("prompt_tokens",), _input_length)
OUTPUT_LENGTH = RowIndicator("output_length", ("response_tokens",), _output_length)
