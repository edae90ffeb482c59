"""Texts to padded batches: longest first within a window, under a budget of padded tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from instructmining.records import Batch, Tokens


def batches(texts: Sequence[Tokens], *, budget_tokens: int) -> Iterator[Batch]:
    """Every text once, in batches whose rows times width stay within the budget.

    A text over the budget goes alone. The order depends on the texts and the budget alone: by length, then by
    position in the window.

    Args:
        texts: one window; the more it holds, the less is padded.
        budget_tokens: padded tokens of a batch.
    """
    order = sorted(range(len(texts)), key=lambda member: (-len(texts[member].ids), member))
    members: list[int] = []
    for member in order:
        if members and (len(members) + 1) * len(texts[members[0]].ids) > budget_tokens:
            yield _pad(texts, members)
            members = []
        members.append(member)
    if members:
        yield _pad(texts, members)


def _pad(texts: Sequence[Tokens], members: list[int]) -> Batch:
    lengths = np.array([len(texts[member].ids) for member in members])
    width = int(lengths.max(initial=0))
    columns = np.arange(width, dtype=np.int64)
    mask = columns[None, :] < lengths[:, None]
    ids = np.zeros((len(members), width), dtype=np.int64)
    ids[mask] = np.concatenate([texts[member].ids for member in members])
    scored = [texts[member].scored for member in members]
    rows = np.repeat(np.arange(len(members)), [len(positions) for positions in scored])
    return Batch(
        members=np.array(members, dtype=np.int64),
        ids=ids,
        positions=np.where(mask, columns[None, :], 0),
        mask=mask.astype(np.int64),
        scored=np.stack([rows, np.concatenate(scored)], axis=1).astype(np.int64),
    )
