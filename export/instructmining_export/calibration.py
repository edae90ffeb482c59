"""What 8-bit products have to know of their inputs: how each dimension is scaled, and which products suffer most."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.inference.batching import batches
from instructmining.inference.devices import Device, cpu_threads
from instructmining.inference.sessions import GraphSession
from instructmining.tokenizing.truncation import Tokens
from instructmining_export.graphs.graph_builder import GraphBuilder
from instructmining_export.graphs.quantization import LEVELS, quantize_columns
from instructmining_export.graphs.tensors import save

_TEXTS = 100
_ROWS_OF_A_BATCH = 192  # kept of each input
_ROWS_FOR_NOISE = 128
_BUDGET_TOKENS = 512
Matrix: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Calibration:
    """What one run of the float32 graph tells of its products."""

    smoothing: Mapping[str, Matrix] = field(default_factory=dict)  # product → divisor of each dimension, (in,)
    inputs: Mapping[str, Matrix] = field(default_factory=dict)  # product → some of its inputs, divided, (rows, in)
    worst_first: tuple[str, ...] = ()  # products by the share of noise in their results, descending


def calibrate(tape: GraphBuilder, texts: Sequence[Tokens]) -> Calibration:
    """Run a float32 graph and look at the inputs of its products.

    A few dimensions of a transformer's states are far larger than the others, and one scale for a row then leaves
    those few levels. Dividing each dimension before rounding, and multiplying the weight's row by the same number,
    changes nothing but the noise: on SmolLM2 it about halves that.

    Args:
        tape: a float32 graph, not yet written; its products' inputs become outputs of it.
        texts: some that the graph is given.

    Source:
        Xiao et al., SmoothQuant, arXiv 2211.10438, with root mean squares in place of maxima: noise on SmolLM2 of
        0.0088, 0.0102 and 0.0156 in attention, gate and down, with maxima 0.0116, 0.0122 and 0.0196, with neither
        0.0269, 0.0187 and 0.0317.
    """
    names = {key: tape.probe(value) for key, value in tape.products.items()}
    squares: dict[str, Matrix] = {}
    kept: dict[str, list[Matrix]] = defaultdict(list)
    for name, rows in _inputs(tape, sorted(set(names.values())), texts):
        squares[name] = squares.get(name, np.float32(0)) + np.square(rows).sum(axis=0)
        kept[name].append(rows[:: max(1, len(rows) // _ROWS_OF_A_BATCH)])
    by_input: dict[str, list[str]] = defaultdict(list)
    for key, name in names.items():
        by_input[name].append(key)
    smoothing: dict[str, Matrix] = {}
    inputs: dict[str, Matrix] = {}
    noise: dict[str, float] = {}
    for name, keys in by_input.items():
        # Products on one input share its integers, so they share the scales.
        spread = np.sqrt(sum(np.square(tape.product_weight(key)).sum(axis=1) for key in keys))
        scales = _scales(np.sqrt(squares[name]), spread)
        rows = np.concatenate(kept.pop(name)) / scales
        for key in keys:
            smoothing[key], inputs[key] = scales, rows
            noise[key] = _noise(
                rows[:: max(1, len(rows) // _ROWS_FOR_NOISE)], tape.product_weight(key) * scales[:, None]
            )
    return Calibration(smoothing, inputs, tuple(sorted(noise, key=lambda key: -noise[key])))


def _inputs(tape: GraphBuilder, names: Sequence[str], texts: Sequence[Tokens]) -> Iterator[tuple[str, Matrix]]:
    """Each input of a product on each batch, without padding, (rows, in)."""
    with tempfile.TemporaryDirectory() as folder:
        session = GraphSession(save(tape.model(), Path(folder) / "probe.onnx")[0], Device("cpu", threads=cpu_threads()))
        wanted = [*names, *({"nll"} & session.outputs)]  # without it no position is scored
        for batch in batches(texts[:: max(1, len(texts) // _TEXTS)], max_batch_tokens=_BUDGET_TOKENS):
            found = session.run(batch, wanted)
            for name in names:
                by_token = found[name].shape[:2] == batch.mask.shape
                rows = found[name][batch.mask.astype(bool)] if by_token else found[name]
                yield name, rows.reshape(-1, rows.shape[-1])


def _scales(size: Matrix, spread: Matrix) -> Matrix:
    """√(size of the input / size of the weight's row), their geometric mean 1; 1 where either is nothing."""
    usable = (size > 0) & (spread > 0)
    scales = np.ones_like(size)
    scales[usable] = np.sqrt(size[usable] / spread[usable])
    if usable.any():
        scales[usable] /= np.exp(np.log(scales[usable]).mean())
    return scales.astype(np.float32)


def _noise(rows: Matrix, weight: Matrix) -> float:
    """Norm of the error that integers bring, over the norm of the exact product."""
    values, scales = quantize_columns(weight)
    largest = np.maximum(np.abs(rows).max(axis=1, keepdims=True), np.float32(1e-30))
    rounded = np.rint(rows / largest * LEVELS) * (largest / LEVELS)
    exact = rows @ weight
    return float(np.linalg.norm(rounded @ (values * scales) - exact) / max(float(np.linalg.norm(exact)), 1e-30))
