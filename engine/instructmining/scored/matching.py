"""Which rows of one set are rows of another, each counted once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Matching:
    """Two sets of rows, matched by their digests; the k-th of equal rows of the one is the k-th of the other."""

    left: NDArray[np.bool_]  # (rows of the first,) not in the second
    entered: NDArray[np.bool_]  # (rows of the second,) not in the first
    second_of_first: NDArray[np.int64]  # (rows of the first,) an equal row of the second, -1 where there is none
    first_of_second: NDArray[np.int64]  # (rows of the second,) an equal row of the first, -1 where there is none


def match(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> Matching:
    """Match rows by their digests; where one set has more copies of a row than the other, the last ones are over.

    Memory: about 60 bytes for each row of both.

    Args:
        first: (rows,) a digest of each row of the first set.
        second: likewise; fewer than two thousand million rows in all.
    """
    order = np.argsort(np.concatenate([first, second]), kind="stable")  # equal rows: the first set's, then the second's
    keys = np.concatenate([first, second])[order]
    opens = np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)]
    del keys
    of_second = order >= len(first)
    group = np.cumsum(opens, dtype=np.int32) - 1  # (rows,) of each row in this order
    begins = np.flatnonzero(opens).astype(np.int32)
    seconds = np.bincount(group[of_second], minlength=len(begins)).astype(np.int32)
    firsts = np.diff(begins, append=np.int32(len(order))) - seconds
    place = np.arange(len(order), dtype=np.int32) - begins[group]  # among the equal rows of both sets

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
