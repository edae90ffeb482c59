"""Windows to measurements: every stream through its graph, results back in the order of the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.batches import batches
from instructmining.records import Batch, LikelihoodSums, Measurements, Tokens
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
    """Compute what the plan's streams measure; of equal texts in a stream one is computed, for all of their rows.

    Args:
        window: tokenized rows.
        sessions: by graph.
        budget_tokens: padded tokens of a batch.
        statistics: tokens computed, padding and seconds are added to it.
        report: called after each batch.
    """
    rows = len(window.examples)
    measured = Measurements(
        window.examples, window.prompt_tokens, window.response_tokens, truncated=[[] for _ in range(rows)]
    )
    work = [_StreamResults(part) for part in window.streams]
    planned = sum(len(text.ids) for results in work for text in results.texts)
    done = 0
    for part, results in zip(window.streams, work, strict=True):
        _note_truncated(part, measured)
        roles = "+".join(part.stream.roles)
        for batch in batches(results.texts, budget_tokens=budget_tokens):
            with statistics.timed(f"model:{roles}:{part.stream.text}"):
                outputs = sessions[part.stream.role.graph].run(batch, part.stream.outputs)
            results.add(batch, outputs)
            tokens = int(batch.mask.sum())
            statistics.tokens[roles] += tokens
            statistics.padded_tokens += batch.ids.size
            done += tokens
            statistics.window_share = done / planned
            report()
        results.give(measured)
    for names in measured.truncated:
        statistics.truncated.update(names)
    return measured


class _StreamResults:
    """Collects a graph's outputs for the distinct texts of a stream, then gives each row those of its own texts."""

    def __init__(self, part: StreamTexts) -> None:
        self._stream = part.stream
        self._owners = part.owners
        self.texts, self._copy_of = _distinct(part.texts)
        self._nll = LikelihoodSums(np.zeros(len(self.texts)), np.zeros(len(self.texts), dtype=np.int64))
        self._values: dict[str, NDArray[np.float32]] = {}  # output → (texts, …)

    def add(self, batch: Batch, outputs: Mapping[str, NDArray[np.float32]]) -> None:
        for output, values in outputs.items():
            if output == "nll":
                of_token = batch.members[batch.scored[:, 0]]
                np.add.at(self._nll.total, of_token, values.astype(np.float64))
                np.add.at(self._nll.tokens, of_token, 1)
                continue
            if output not in self._values:
                self._values[output] = np.zeros((len(self.texts), *values.shape[1:]), dtype=np.float32)
            self._values[output][batch.members] = values

    def give(self, measured: Measurements) -> None:
        rows = len(measured.examples)
        for measure in self._stream.measures:
            match measure:
                case "conversation_nll":
                    measured.conversation_nll = self._sums(rows)
                case "response_nll":
                    measured.response_nll = self._sums(rows)
                case "reward":
                    measured.reward = self._numbers("reward", rows)
                case "embedding":
                    measured.embedding = self._of_rows("embedding", rows)
                case question:
                    measured.answers[question] = self._numbers("yes", rows)

    def _sums(self, rows: int) -> LikelihoodSums:
        """Over all texts of a row."""
        sums = LikelihoodSums(np.zeros(rows), np.zeros(rows, dtype=np.int64))
        np.add.at(sums.total, self._owners, self._nll.total[self._copy_of])
        np.add.at(sums.tokens, self._owners, self._nll.tokens[self._copy_of])
        return sums

    def _numbers(self, output: str, rows: int) -> NDArray[np.float64]:
        values = self._of_rows(output, rows)
        return np.zeros(rows) if values is None else values.astype(np.float64)

    def _of_rows(self, output: str, rows: int) -> NDArray[np.float32] | None:
        """An output of which a row has one, float32 (rows, …); None in a window without a text."""
        values = self._values.get(output)
        if values is None:
            return None
        of_rows = np.zeros((rows, *values.shape[1:]), dtype=np.float32)
        of_rows[self._owners] = values[self._copy_of]
        return of_rows


def _distinct(texts: Sequence[Tokens]) -> tuple[list[Tokens], NDArray[np.int64]]:
    """Texts of the same tokens and scored positions once each, and for every text which of those it is."""
    numbers: dict[tuple[bytes, bytes], int] = {}
    kept: list[Tokens] = []
    copy_of = np.zeros(len(texts), dtype=np.int64)
    for place, text in enumerate(texts):
        number = numbers.setdefault((text.ids.tobytes(), text.scored.tobytes()), len(kept))
        if number == len(kept):
            kept.append(text)
        copy_of[place] = number
    return kept, copy_of


def _note_truncated(part: StreamTexts, measured: Measurements) -> None:
    for row in {int(owner) for owner, text in zip(part.owners, part.texts, strict=True) if text.truncated}:
        measured.truncated[row] += [role for role in part.stream.roles if role not in measured.truncated[row]]
