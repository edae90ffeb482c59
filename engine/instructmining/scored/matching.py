"""Matches the rows of two sets, each to at most one of the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Matching:
    """The matches of two sets; of equal rows, the k-th of one set matches the k-th of the other."""

    left: NDArray[np.bool_]  # (first rows,) whether the row has no match
    entered: NDArray[np.bool_]  # (second rows,) whether the row has no match
    second_of_first: NDArray[np.int64]  # (first rows,) an equal row of the second set, −1 for none
    first_of_second: NDArray[np.int64]  # (second rows,) an equal row of the first set, −1 for none


def match(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Matching:
    """Match rows by their digests; if one set has more copies of a row, its last ones have no match.

    Memory holds about 60 bytes per row of both.

    Args:
        first: (rows,) a digest of each row of the first set.
        second: likewise; together fewer than two billion rows.
    """
    order = np.argsort(np.concatenate([first, second]), kind="stable")  # of equal rows, the first set's come first
    keys = np.concatenate([first, second])[order]
    opens = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    del keys
    of_second = order >= len(first)
    group = np.cumsum(opens, dtype=np.int32) - 1  # (rows,) number of each row's group of equal rows, in this order
    begins = np.flatnonzero(opens).astype(np.int32)
    seconds = np.bincount(group[of_second], minlength=len(begins)).astype(np.int32)
    firsts = np.diff(begins, append=np.int32(len(order))) - seconds
    place = np.arange(len(order), dtype=np.int32) - begins[group]  # place in its group

    def side(chosen: NDArray[np.bool_], *, is_first: bool) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        groups = group[chosen]
        copies = (seconds if is_first else firsts)[groups]  # in the other set
        number = place[chosen] - (0 if is_first else firsts[groups])
        other = begins[groups] + (firsts[groups] if is_first else 0) + np.minimum(number, copies - 1)
        partner = np.where(copies > 0, order[np.minimum(other, len(order) - 1)] - (len(first) if is_first else 0), -1)
        rows = order[chosen] - (0 if is_first else len(first))
        alone, partners = np.empty(len(rows), dtype=np.bool_), np.empty(len(rows), dtype=np.int64)
        alone[rows], partners[rows] = number >= copies, partner
        return alone, partners

    left, second_of_first = side(~of_second, is_first=True)
    entered, first_of_second = side(of_second, is_first=False)
    return Matching(left, entered, second_of_first, first_of_second)
