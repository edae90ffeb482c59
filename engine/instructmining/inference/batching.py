"""Groups texts into padded batches: longest first within a window, within a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Role, RoleName
from instructmining.tokenizing.truncation import Tokens

_MOST_SCORED = 16384  # on CUDA; float16 logits of a vocabulary of 49,152 words are 1.6 GB, of 151,936 words 5 GB
ALIKE = 0.9  # share of a batch's width; a text at least this long needs little padding


@dataclass(frozen=True, slots=True)
class Batch:
    """Texts of like length, padded on the right to one width."""

    members: NDArray[np.int64]  # (rows,) indices into the list of batched texts
    ids: NDArray[np.int64]  # (rows, width) token ids, 0 where padded
    positions: NDArray[np.int64]  # (rows, width) 0, 1, 2, … and 0 where padded
    mask: NDArray[np.int64]  # (rows, width) 1 where ids holds a token
    scored: NDArray[np.int64]  # (n, 2) row and position of each token to score, ordered by row


@dataclass(frozen=True, slots=True)
class Batching:
    """How a run's texts are grouped into batches; batches depend only on this and the input."""

    window_rows: int  # rows sorted by length together; more rows need less padding
    max_batch_tokens: Mapping[RoleName, int]  # padded tokens per batch of each role
    width_multiple: int = 1  # widths are rounded up to a multiple of this: few shapes suit a GPU's memory and kernels
    enough_tokens: int | None = None  # a batch of at least this takes no text over a tenth shorter than its first
    max_scored: int | None = None  # scored positions per batch: each takes a row of the vocabulary's logits

    @classmethod
    def usual(cls, device_kind: str, roles: Sequence[RoleName], *, max_batch_tokens: int | None = None) -> Batching:
        """Return the defaults of a kind of device, "cpu" or "cuda"; a given budget is filled.

        On a CPU a product of 512 rows is as fast as larger ones and of 128 nearly so, and small batches need less
        padding: without ``enough_tokens`` a third of the tokens of eight short rows is padding; in windows of 512 real
        rows 0.4 % is. A GPU wants large batches: its numbers are computed (windows of 4,096 rows of Alpaca's lengths:
        7 % padding), not measured.
        """
        if device_kind == "cuda":
            budgets = dict.fromkeys(roles, max_batch_tokens or 16384)
            return cls(4096, budgets, width_multiple=16, max_scored=_MOST_SCORED)
        return cls(512, dict.fromkeys(roles, max_batch_tokens or 512), enough_tokens=None if max_batch_tokens else 128)

    def of(self, role: Role, texts: Sequence[Tokens]) -> Iterator[Batch]:
        """Yield the batches of a role's texts in one window; none is wider than the role's longest text may be."""
        return batches(
            texts,
            max_batch_tokens=self.max_batch_tokens[role.name],
            width_multiple=self.width_multiple,
            max_width=role.max_length,
            enough_tokens=self.enough_tokens,
            max_scored=self.max_scored,
        )


def batches(
    texts: Sequence[Tokens],
    *,
    max_batch_tokens: int,
    width_multiple: int = 1,
    max_width: int | None = None,
    enough_tokens: int | None = None,
    max_scored: int | None = None,
) -> Iterator[Batch]:
    """Yield every text once, in batches whose rows times width stay within the budget.

    A text over the budget is a batch of its own. The order depends only on the texts and the settings: by length, then
    by position in the window.

    Args:
        texts: texts of one window; more texts need less padding.
        max_batch_tokens: padded tokens per batch.
        width_multiple: widths are rounded up to a multiple of this.
        max_width: widths are not rounded up beyond this; a graph's tables of positions have no more entries.
        enough_tokens: a batch of at least this many padded tokens takes no text over a tenth shorter than its first.
        max_scored: scored positions per batch; a text that has more is a batch of its own.
    """
    lengths = np.array([len(text.ids) for text in texts], dtype=np.int64)
    widths = -(-lengths // width_multiple) * width_multiple
    if max_width is not None:
        widths = np.maximum(lengths, np.minimum(widths, max_width))
    order = np.argsort(-lengths, kind="stable")
    descending = -lengths[order]
    scored = np.cumsum([len(texts[member].scored) for member in order.tolist()])
    begin = 0
    while begin < len(order):
        width = int(widths[order[begin]])
        end = begin + max(1, max_batch_tokens // max(width, 1))
        if enough_tokens is not None:
            enough = begin - (-enough_tokens // max(width, 1))
            alike = int(np.searchsorted(descending, -ALIKE * width, side="right"))
            end = min(end, max(enough, alike))
        if max_scored is not None:
            before = scored[begin - 1] if begin else 0
            end = min(end, max(begin + 1, int(np.searchsorted(scored, before + max_scored, side="right"))))
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
