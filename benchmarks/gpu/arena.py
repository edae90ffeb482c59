"""Step ``arena``: the device memory that a replayed mix of batches takes, by the arena's strategy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.gpu import ways
from benchmarks.gpu.checkpoints import make
from benchmarks.gpu.parts import Measure, Part, Place
from benchmarks.gpu.rows import seeded_texts
from benchmarks.gpu.subjects import SUBJECTS, TINY, Subject
from instructmining.inference import sessions
from instructmining.inference.batching import Batch
from instructmining.inference.devices import Device
from instructmining.inference.executor import Executor, Job
from instructmining_cli.machine.hardware import device_memory_bytes

_ROWS = 48 if TINY else 8192
_BUDGETS = (512,) if TINY else (16384, 65536)
_STRATEGIES = ("kNextPowerOfTwo", "kSameAsRequested")
_SUBJECTS = SUBJECTS[:2]


def arena_parts() -> list[Part]:
    """Each in a process of its own, so that all memory is free again before it."""
    return [
        Part("arena", f"{subject.slug}.{strategy}.{budget}", _arena(subject, strategy, budget), 40)
        for subject in _SUBJECTS
        for budget in _BUDGETS
        for strategy in _STRATEGIES
    ]


def _arena(subject: Subject, strategy: str, budget: int) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        made = make(subject, place.models, place.device, place.precision)
        ways.free()  # what torch drew the weights in
        texts = seeded_texts(_ROWS, words=subject.words, max_length=subject.max_length)
        usual = sessions._cuda_settings

        def changed(graph: str, device: Device, acceleration: sessions.Acceleration) -> dict[str, object]:
            return {**usual(graph, device, acceleration), "arena_extend_strategy": strategy}

        used = [device_memory_bytes(place.device) or 0]
        with (
            patch.object(sessions, "_cuda_settings", changed),
            Executor([made.graph], [place.device]) as executor,
        ):
            used.append(device_memory_bytes(place.device) or 0)

            def step(work: Sequence[Batch]) -> Iterator[NDArray[np.float32]]:
                for done in executor.run(Job(made.graph, batch, (subject.output,)) for batch in work):
                    used.append(device_memory_bytes(place.device) or 0)
                    yield done.outputs[subject.output]

            passes = []
            for _ in range(2):
                passes.append(round(ways.Way("ours", subject, step).seconds(texts, budget), 3))
                yield {
                    "model": subject.name,
                    "strategy": strategy,
                    "budget": budget,
                    "weights_gb": (used[1] - used[0]) / 1e9,
                    "batches_gb": (max(used) - used[1]) / 1e9,
                    "batches": len(used) - 2,
                    "splits": executor.splits,
                    "pass_s": passes,
                }

    return measure
