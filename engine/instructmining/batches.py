"""Texts to padded batches: longest first within a window, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from instructmining.bundle import RoleName
from instructmining.records import Batch, Tokens


@dataclass(frozen=True, slots=True)
class Batching:
    """How a run's texts are put into batches; the batches follow from it and the input alone."""

    window_rows: int  # rows that are sorted by length together: the more, the less is padded
    budget_tokens: Mapping[RoleName, int]  # padded tokens of a batch of each role
    width_multiple: int = 1  # widths are rounded up to it: few shapes, which a GPU's memory and kernels want

    @classmethod
    def usual(cls, device_kind: str, roles: Sequence[RoleName], *, budget_tokens: int | None = None) -> Batching:
        """What holds on a kind of device, "cpu" or "cuda", where nothing was measured.

        On a CPU a product of 512 rows is as fast as larger ones (128 nearly so) and small batches need no padding;
        with windows of 512 real rows 0.5 % of the tokens are padding. A GPU wants large batches: the numbers for it
        are by arithmetic (windows of 4,096 rows of Alpaca's lengths: 7 % padding), not measured.
        """
        window_rows, usual, multiple = (4096, 16384, 16) if device_kind == "cuda" else (512, 512, 1)
        return cls(window_rows, dict.fromkeys(roles, budget_tokens or usual), multiple)


def batches(texts: Sequence[Tokens], *, budget_tokens: int, width_multiple: int = 1) -> Iterator[Batch]:
    """Every text once, in batches whose rows times width stay within the budget.

    A text over the budget goes alone. The order depends on the texts, the budget and the multiple alone: by length,
    then by position in the window.

    Args:
        texts: one window; the more it holds, the less is padded.
        budget_tokens: padded tokens of a batch.
        width_multiple: widths are rounded up to a multiple of it.
    """
    lengths = np.array([len(text.ids) for text in texts], dtype=np.int64)
    widths = -(-lengths // width_multiple) * width_multiple
    order = np.argsort(-lengths, kind="stable")
    begin = 0
    while begin < len(order):
        width = int(widths[order[begin]])
        end = begin + max(1, budget_tokens // max(width, 1))
        yield _pad(texts, order[begin:end], width)
        begin = end


def _pad(texts: Sequence[Tokens], members: np.ndarray[tuple[int], np.dtype[np.int64]], width: int) -> Batch:
    rows = [texts[member] for member in members.tolist()]
    lengths = np.array([len(text.ids) for text in rows])
    columns = np.arange(width, dtype=np.int64)
    mask = columns[None, :] < lengths[:, None]
    ids = np.zeros((len(rows), width), dtype=np.int64)
    ids[mask] = np.concatenate([text.ids for text in rows])
    scored = [text.scored for text in rows]
    of_row = np.repeat(np.arange(len(rows)), [len(positions) for positions in scored])
    return Batch(
        members=members,
        ids=ids,
        positions=np.where(mask, columns[None, :], 0),
        mask=mask.astype(np.int64),
        scored=np.stack([of_row, np.concatenate(scored)], axis=1).astype(np.int64),
    )
