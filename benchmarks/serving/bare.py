"""The bare onnxruntime session on the tokens of single rows: what a server that computes one by one cannot exceed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from instructmining import Example, Scorer
from instructmining.inference.batching import Batch, batches
from instructmining.inference.devices import cpu_threads
from instructmining.types import InputWindow


class BareSession:
    """The graph of a role in a session of onnxruntime's defaults, and the feeds of each row alone."""

    def __init__(self, bundle: Path, indicator: str, rows: Sequence[Example]) -> None:
        """Tokenize the rows by the engine, and open the graph.

        Args:
            bundle: folder.
            indicator: that one role's graph computes, such as perplexity.
            rows: of which each becomes one feed.
        """
        with Scorer.open(bundle, indicators=[indicator], device="cpu") as scorer:
            requests = scorer.requests()
            parts = [part for row in rows for part in requests.prepare(InputWindow([row])).parts]
            graph = scorer.bundle.path / parts[0].role.graph
        options = ort.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        options.add_session_config_entry("session.force_spinning_stop", "1")  # a server computes after it
        self._session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        self._outputs = list(parts[0].outputs)
        names = {value.name for value in self._session.get_inputs()}
        self._feeds = [_feed(batch, names) for part in parts for batch in batches(part.texts, max_batch_tokens=1)]

    def run(self, place: int) -> tuple[float, Sequence[NDArray[Any]]]:
        """Run one row; gives the seconds and the outputs."""
        begin = time.perf_counter()
        found = self._session.run(self._outputs, self._feeds[place])
        return time.perf_counter() - begin, found

    def per_second(self, seconds: float) -> float:
        """Rows in a second, one after the other."""
        done, begin = 0, time.perf_counter()
        while (past := time.perf_counter() - begin) < seconds:
            self.run(done % len(self._feeds))
            done += 1
        return done / past


def _feed(batch: Batch, names: set[str]) -> dict[str, NDArray[Any]]:
    feed = {
        "input_ids": batch.ids,
        "position_ids": batch.positions,
        "attention_mask": batch.mask,
        "scored": batch.scored,
        "best_of": np.zeros(0, dtype=np.int64),
    }
    return {name: array for name, array in feed.items() if name in names}
