"""Finds where a running sum over rows in order first exceeds a limit, from histograms of the parts.

The rows lie in parts and are never in one place or in order. Each round fixes some more of the highest bits of the
border's key: every part sums the weights of its rows by the next bits, for each group that is still sought, and the
sums over all parts tell in which bin the border lies. This is exact: sums are integers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Counts = NDArray[np.int64]

_MOST_BINS = 1 << 20  # of all groups in a round: 8 MiB a part that answers
_MOST_BITS = 16
_KEY_BITS = 64
_SIGN = np.uint64(1 << 63)


def order_keys(values: NDArray[np.float64], *, descending: bool) -> Keys:
    """Return numbers in the order of the values, equal ones for equal values; values are not NaN.

    Args:
        values: float64 (rows,).
        descending: largest first.

    Returns:
        uint64 (rows,).
    """
    bits = (np.where(values == 0, 0.0, -values if descending else values)).view(np.uint64)  # −0.0 equals 0.0
    return np.where(bits & _SIGN, ~bits, bits | _SIGN)


@dataclass(frozen=True, slots=True)
class Round:
    """What every part is asked for: sums of weights by some bits of its rows' keys."""

    groups: Counts  # (sought,) ascending numbers of the groups that are sought
    prefixes: Keys  # (sought,) the bits above that are known
    shift: int  # bits below those asked for
    bits: int

    def sums(self, keys: Keys, groups: Counts, weights: Counts) -> Counts:
        """Sum the weights of a part's rows.

        Args:
            keys: uint64 (rows,).
            groups: int64 (rows,), the group of each.
            weights: int64 (rows,), at least 0.

        Returns:
            int64 (sought, 2**bits).
        """
        bins = 1 << self.bits
        sought = np.minimum(np.searchsorted(self.groups, groups), len(self.groups) - 1)
        above = self.shift + self.bits
        known = self.prefixes[sought] == (keys >> np.uint64(above) if above < _KEY_BITS else np.uint64(0))
        rows = np.flatnonzero((self.groups[sought] == groups) & known)
        bin_of = (keys[rows] >> np.uint64(self.shift)) & np.uint64(bins - 1)
        found = np.zeros(len(self.groups) * bins, dtype=np.int64)
        np.add.at(found, sought[rows] * bins + bin_of.astype(np.int64), weights[rows])
        return found.reshape(len(self.groups), bins)


@dataclass(frozen=True, slots=True)
class Borders:
    """Of each group, the first key with which the running sum exceeds its limit."""

    exists: NDArray[np.bool_]  # (groups,) whether the sum of the group exceeds its limit
    keys: Keys  # (groups,)
    left: Counts  # (groups,) what is left of the limit at the first row with the key


def find_borders(limits: Counts, ask: Callable[[Round], Counts], *, key_bits: int = _KEY_BITS) -> Borders:
    """Find the border of each group.

    Args:
        limits: int64 (groups,), at least 0.
        ask: returns the sums over all parts.
        key_bits: bits of the largest key.
    """
    exists, found, left = np.ones(len(limits), dtype=np.bool_), np.zeros(len(limits), np.uint64), limits.copy()
    shift = key_bits
    while shift and exists.any():
        groups = np.flatnonzero(exists)
        bits = min(_bits(len(groups)), shift)
        shift -= bits
        so_far = np.cumsum(ask(Round(groups, found[groups], shift, bits)), axis=1)
        is_over = so_far > left[groups, np.newaxis]
        at = is_over.argmax(axis=1)
        ends = is_over.any(axis=1)  # after the first round that of every group which is sought
        before = np.where(at > 0, so_far[np.arange(len(groups)), at - 1], 0)
        exists[groups[~ends]] = False
        groups, at, before = groups[ends], at[ends], before[ends]
        found[groups] = (found[groups] << np.uint64(bits)) | at.astype(np.uint64)
        left[groups] -= before
    return Borders(exists, found, left)


def _bits(groups: int) -> int:
    return max(1, min(_MOST_BITS, (_MOST_BINS // groups).bit_length() - 1))
