"""Windows to measurements: every stream through its graph, results back in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.batches import batches
from instructmining.records import Batch, LikelihoodSums, Measurements
from instructmining.runstats import Statistics
from instructmining.sessions import GraphSession
from instructmining.windows import StreamTexts, Window


def measure(
    window: Window,
    sessions: Mapping[Path, GraphSession],
    *,
    budget_tokens: int,
    statistics: Statistics,
    report: Callable[[], None],
) -> Measurements:
    """Compute what the plan's streams measure.

    Args:
        window: tokenized rows.
        sessions: by graph.
        budget_tokens: padded tokens of a batch.
        statistics: tokens, padding and seconds are added to it.
        report: called after each batch.
    """
    rows = len(window.examples)
    measured = Measurements(
        window.examples, window.prompt_tokens, window.response_tokens, truncated=[[] for _ in range(rows)]
    )
    planned = sum(len(text.ids) for part in window.streams for text in part.texts)
    done = 0
    for part in window.streams:
        _note_truncated(part, measured)
        results = _Results(part, measured, rows)
        stage = f"model:{'+'.join(part.stream.roles)}:{part.stream.text}"
        for batch in batches(part.texts, budget_tokens=budget_tokens):
            with statistics.timed(stage):
                outputs = sessions[part.stream.role.graph].run(batch, part.stream.outputs)
            results.add(batch, outputs)
            tokens = int(batch.mask.sum())
            statistics.tokens["+".join(part.stream.roles)] += tokens
            statistics.padded_tokens += batch.ids.size
            done += tokens
            statistics.window_share = done / planned
            report()
    for roles in measured.truncated:
        statistics.truncated.update(roles)
    return measured


class _Results:
    """Puts a stream's outputs at the rows that they belong to."""

    def __init__(self, part: StreamTexts, measured: Measurements, rows: int) -> None:
        self._owners = part.owners
        self._measured = measured
        self._sums = LikelihoodSums(np.zeros(rows), np.zeros(rows, dtype=np.int64))
        if "conversation_nll" in part.stream.measures:
            measured.conversation_nll = self._sums
        if "response_nll" in part.stream.measures:
            measured.response_nll = self._sums
        if "reward" in part.stream.measures:
            measured.reward = np.zeros(rows)

    def add(self, batch: Batch, outputs: Mapping[str, NDArray[np.float32]]) -> None:
        owners = self._owners[batch.members]
        if "nll" in outputs:
            of_token = owners[batch.scored[:, 0]]
            np.add.at(self._sums.total, of_token, outputs["nll"].astype(np.float64))
            np.add.at(self._sums.tokens, of_token, 1)
        if "reward" in outputs and self._measured.reward is not None:
            self._measured.reward[owners] = outputs["reward"]
        if "embedding" in outputs:
            if self._measured.embedding is None:
                size = outputs["embedding"].shape[1]
                self._measured.embedding = np.zeros((len(self._measured.examples), size), dtype=np.float32)
            self._measured.embedding[owners] = outputs["embedding"]


def _note_truncated(part: StreamTexts, measured: Measurements) -> None:
    for row in {int(owner) for owner, text in zip(part.owners, part.texts, strict=True) if text.truncated}:
        measured.truncated[row] += [role for role in part.stream.roles if role not in measured.truncated[row]]
