"""Graphs of a single attention: the engine's own form and the others that onnxruntime has."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from instructmining.bundle import PrecisionName
from instructmining.inference.devices import Device
from instructmining_export.graphs import attention
from instructmining_export.graphs.decoder_attention import DecoderAttention
from instructmining_export.graphs.graph_builder import CONTRIB, DeviceKind, GraphBuilder
from instructmining_export.graphs.precision import Precision

_NUMBERS = {"fp16": ir.DataType.FLOAT16, "fp32": ir.DataType.FLOAT}


@dataclass(frozen=True, slots=True)
class Heads:
    """One layer's attention."""

    model: str
    queries: int
    keys: int
    size: int
    causal: bool
    biased: bool = False  # by relative positions, as T5's

    @property
    def widths(self) -> dict[str, int]:
        """Of query, key and value."""
        return {"query": self.queries * self.size, "key": self.keys * self.size, "value": self.keys * self.size}


HEADS = (
    Heads("smollm2", 9, 3, 64, causal=True),
    Heads("llama-7b", 32, 8, 128, causal=True),
    Heads("pythia", 16, 16, 128, causal=True),
    Heads("minilm", 12, 12, 32, causal=False),
    Heads("bert-large", 16, 16, 64, causal=False),
    Heads("t5-large", 16, 16, 64, causal=False, biased=True),
)
# Of a graph's inputs that are there: query, key, value, ids, lengths, lengths32, packed, bias.
Values: TypeAlias = Mapping[str, ir.Value]
Variant: TypeAlias = Callable[[GraphBuilder, Heads, Values], ir.Value]


def variants(heads: Heads) -> Mapping[str, Variant]:
    """The forms that a layer's attention can have, by name; the engine's own comes first."""
    if heads.causal:
        causal: dict[str, Variant] = {
            "ours: GroupQueryAttention": _grouped,
            "Attention": lambda graph, heads, values: _onnx(graph, heads, values, lengths=False),
        }
        if heads.queries == heads.keys:
            causal["MultiHeadAttention"] = lambda graph, heads, values: _contrib(graph, heads, values, mask=None)
        return causal
    return {
        "ours: Attention, lengths": lambda graph, heads, values: _onnx(graph, heads, values, lengths=True),
        "MultiHeadAttention, lengths": lambda graph, heads, values: _contrib(graph, heads, values, mask="lengths32"),
        "MultiHeadAttention, 3 rows + 2": lambda graph, heads, values: _contrib(graph, heads, values, mask="packed"),
        "MultiHeadAttention, no mask": lambda graph, heads, values: _contrib(graph, heads, values, mask=None),
    }


def write(heads: Heads, variant: Variant, path: Path, *, precision: PrecisionName, device: Device) -> None:
    """Write the graph of one form; its output is ``attended``."""
    kind: DeviceKind = "cuda" if device.kind == "cuda" else "cpu"
    graph = GraphBuilder("attention", _no_weights, Precision(precision), device=kind)
    values: dict[str, ir.Value] = {}
    for name, width in heads.widths.items():
        values[name] = _input(graph, name, _NUMBERS[precision], "rows", "width", width)
    values["ids"] = graph.input("ids", "rows", "width")
    values["lengths"] = graph.input("lengths", "rows")
    values["lengths32"] = _input(graph, "lengths32", ir.DataType.INT32, "rows")
    values["packed"] = _input(graph, "packed", ir.DataType.INT32, "packed")
    values["bias"] = _input(graph, "bias", _NUMBERS[precision], 1, heads.queries, "width", "width")
    graph.output("attended", variant(graph, heads, values), _NUMBERS[precision])
    ir.save(graph.model(), path)


def feeds(heads: Heads, rows: int, width: int, precision: PrecisionName) -> dict[str, NDArray[Any]]:
    """Random values of every input; rows are between half and all of the width long."""
    rng = np.random.default_rng(rows * 10_000 + width)
    number = np.float16 if precision == "fp16" else np.float32
    lengths = rng.integers(width // 2, width + 1, size=rows)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    found: dict[str, NDArray[Any]] = {
        name: rng.standard_normal((rows, width, size), dtype=np.float32).astype(number)
        for name, size in heads.widths.items()
    }
    return found | {
        "ids": np.ones((rows, width), dtype=np.int64),
        "lengths": lengths,
        "lengths32": lengths.astype(np.int32),
        "packed": np.concatenate([lengths, ends, ends]).astype(np.int32),
        "bias": rng.standard_normal((1, heads.queries, width, width), dtype=np.float32).astype(number),
    }


def _input(graph: GraphBuilder, name: str, kind: ir.DataType, *dimensions: str | int) -> ir.Value:
    value = graph.input(name, *dimensions)
    value.type = ir.TensorType(kind)
    return value


def _grouped(graph: GraphBuilder, heads: Heads, values: Values) -> ir.Value:
    own = DecoderAttention(heads.queries, heads.keys, heads.size)
    return own(graph, values["ids"], values["query"], values["key"], values["value"])


def _onnx(graph: GraphBuilder, heads: Heads, values: Values, *, lengths: bool) -> ir.Value:
    parts = (values["query"], values["key"], values["value"])
    added = values["bias"] if heads.biased else None
    if heads.queries == heads.keys:
        found = values["lengths"] if lengths else None
        return attention.multi_head(graph, parts, heads=heads.queries, lengths=found, added=added, causal=heads.causal)
    attributes = {"q_num_heads": heads.queries, "kv_num_heads": heads.keys, "is_causal": int(heads.causal)}
    return graph.call("Attention", *parts, attributes=attributes)


def _contrib(graph: GraphBuilder, heads: Heads, values: Values, *, mask: str | None) -> ir.Value:
    inputs = [values["query"], values["key"], values["value"], None]
    inputs += [values[mask] if mask else None, values["bias"] if heads.biased else None]
    while inputs[-1] is None:
        inputs.pop()
    attributes = {"num_heads": heads.queries, "unidirectional": int(heads.causal)}
    return graph.call("MultiHeadAttention", *inputs, domain=CONTRIB, attributes=attributes)


def _no_weights(name: str) -> NDArray[np.float32]:
    raise KeyError(name)
