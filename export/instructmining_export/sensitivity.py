"""Which products suffer most from 8-bit integers, so that the worst can stay in float32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.batches import batches
from instructmining.records import Tokens
from instructmining.sessions import Device, GraphSession, cpu_threads
from instructmining_export.graphs.quantization import ROW_LEVELS, quantize_columns
from instructmining_export.graphs.tape import GraphTape, save

_TEXTS = 24  # enough to meet the dimensions that stand out; they are the same for every text
_BUDGET_TOKENS = 512


def worst_first(tape: GraphTape, texts: Sequence[Tokens]) -> list[str]:
    """The keys of a graph's products by the share of noise that integers bring into their results, descending.

    Args:
        tape: a float32 graph, not yet written; its products' inputs become outputs of it.
        texts: some that the graph is given.
    """
    names = {key: tape.probe(value) for key, value in tape.products.items()}
    with tempfile.TemporaryDirectory() as folder:
        graph = save(tape.model(), Path(folder) / "probe.onnx")[0]
        session = GraphSession(graph, Device("cpu", threads=cpu_threads()))
        wanted = sorted({*names.values()} | ({"nll"} & session.outputs))
        seen: dict[str, list[NDArray[np.float32]]] = {name: [] for name in wanted}
        for batch in batches(texts[:: max(1, len(texts) // _TEXTS)], budget_tokens=_BUDGET_TOKENS):
            for name, found in session.run(batch, wanted).items():
                rows = found[batch.mask.astype(bool)] if found.shape[:2] == batch.mask.shape else found
                seen[name].append(rows.reshape(-1, rows.shape[-1]))
    noise = {key: _noise(np.concatenate(seen[name]), tape.product_weight(key)) for key, name in names.items()}
    return sorted(noise, key=lambda key: -noise[key])


def _noise(rows: NDArray[np.float32], weight: NDArray[np.float32]) -> float:
    """Norm of the error that integers bring, over the norm of the exact product."""
    values, scales = quantize_columns(weight)
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-30))
    rounded = np.rint(rows / largest * ROW_LEVELS) * (largest / ROW_LEVELS)
    exact = rows @ weight
    return float(np.linalg.norm(rounded @ (values * scales) - exact) / max(float(np.linalg.norm(exact)), 1e-30))
