"""Measure of textual lexical diversity of the response.

Source:
    McCarthy & Jarvis 2010, threshold 0.72, mean of the forward and the backward walk; words as in the reference
    implementation, PyPI ``lexicalrichness`` 0.5.1, to which this is equal within 1e-9.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable, Sequence

import numpy as np

from instructmining.indicators.base import RowIndicator
from instructmining.records import Column, Measurements

_THRESHOLD = 0.72
_DIGITS = re.compile(r"[0-9]+")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, " ") | {"–": None, "—": None, "-": None})


def mtld(text: str) -> float:
    """MTLD of a text; NaN where it has no word."""
    words = _DIGITS.sub("", text.lower()).translate(_PUNCTUATION).split()
    if not words:
        return float("nan")
    count = len(words)
    return (count / _factors(words, words) + count / _factors(reversed(words), words)) / 2


def _factors(walk: Iterable[str], words: Sequence[str]) -> float:
    """Stretches whose share of distinct words falls to the threshold, the last one counted in part."""
    whole = 0
    seen: set[str] = set()
    count = 0
    for word in walk:
        count += 1
        seen.add(word)
        if len(seen) / count <= _THRESHOLD:
            whole += 1
            seen = set()
            count = 0
    factors = whole + ((1 - len(seen) / count) / (1 - _THRESHOLD) if count else 0.0)
    if factors:
        return factors
    ratio = len(set(words)) / len(words)
    return 1.0 if ratio == 1 else (1 - ratio) / (1 - _THRESHOLD)


def _mtld(rows: Measurements) -> Column:
    values = np.array([mtld("\n".join(example.response_texts)) for example in rows.examples], dtype=np.float64)
    return Column(values, dict.fromkeys(np.flatnonzero(np.isnan(values)).tolist(), "the response has no word"))


MTLD = RowIndicator("mtld", (), _mtld)
