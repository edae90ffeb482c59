"""Measure of textual lexical diversity of the response.

Source:
    McCarthy & Jarvis 2010, threshold 0.72, mean of the forward and the backward walk; words as in the reference
    implementation, PyPI ``lexicalrichness`` 0.5.1, to which this is equal within 1e-9.
"""

from __future__ import annotations

import string
from array import array
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from instructmining.indicators.base import Measurements, RowIndicator
from instructmining.types import Column

_THRESHOLD = 0.72
_LONG = 1 << 20  # characters; the words of a longer text are not all kept in memory
_PART = 1 << 17  # characters of a longer text that are processed at a time
_DROPPED = dict.fromkeys(f"{string.digits}–—-")
_WORDS = str.maketrans(dict.fromkeys(string.punctuation, " ") | _DROPPED)


def mtld(text: str) -> float:
    """Return the MTLD of a text; NaN where it has no word."""
    words: Sequence[Hashable] = _words(text) if len(text) <= _LONG else _hashes(text)
    if not words:
        return float("nan")
    count = len(words)
    return (count / _factors(words, words) + count / _factors(reversed(words), words)) / 2


def _words(text: str) -> list[str]:
    return text.lower().translate(_WORDS).split()


def _hashes(text: str) -> array[int]:
    """Hash the words of a long text to 64 bits: in a million words, two collide with a probability of 3e-8.

    The words themselves would take ten times the text's memory.
    """
    found = array("q")
    begin = 0
    while begin < len(text):
        space = text.find(" ", begin + _PART)
        end = len(text) if space < 0 else space
        found.extend(map(hash, _words(text[begin:end])))
        begin = end
    return found


def _factors(walk: Iterable[Hashable], words: Sequence[Hashable]) -> float:
    """Count the stretches whose share of distinct words falls to the threshold, the last one in part.

    A word that is new to its stretch raises the share, so the share is checked only after a repeated one. With d
    distinct words and r repeated ones, d / (d + r) is at most 0.72 where 7 d is at most 18 r.
    """
    whole = repeated = 0
    seen: set[Hashable] = set()
    add = seen.add
    for word in walk:
        if word not in seen:
            add(word)
            continue
        repeated += 1
        if 7 * len(seen) <= 18 * repeated:
            whole += 1
            repeated = 0
            seen.clear()
    count = len(seen) + repeated
    factors = whole + ((1 - len(seen) / count) / (1 - _THRESHOLD) if count else 0.0)
    if factors:
        return factors
    ratio = len(set(words)) / len(words)
    return 1.0 if ratio == 1 else (1 - ratio) / (1 - _THRESHOLD)


def _mtld(rows: Measurements) -> Column:
    values = np.array([mtld("\n".join(example.response_texts)) for example in rows.examples], dtype=np.float64)
    return Column(values, dict.fromkeys(np.flatnonzero(np.isnan(values)).tolist(), "the response has no word"))


MTLD = RowIndicator("mtld", (), _mtld)
