"""The configurations of the models, as the text form of Triton's ModelConfig."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from instructmining_serving.triton.layout import FRONT, INPUT, RESULT

DataType: TypeAlias = Literal["TYPE_STRING", "TYPE_INT64", "TYPE_FP16", "TYPE_FP32", "TYPE_FP64"]
MOST_ROWS = 512  # of the requests that the front answers together
_DELAY_US = 2000  # that Triton waits for more requests, as --max-wait-ms of serve
_QUEUE = 1024  # requests that wait
_TIMEOUT_US = 60_000_000  # as --timeout of serve


@dataclass(frozen=True, slots=True)
class TensorConfig:
    """An input or output of a model."""

    name: str
    data_type: DataType
    dims: tuple[int, ...]  # -1 for any size


def front_config(columns: Sequence[str]) -> str:
    """Return the configuration of the front.

    Triton joins requests along the first dimension, rows, which comes before ``dims``.
    """
    outputs = [TensorConfig(column, "TYPE_FP64", (1,)) for column in columns]
    return "\n".join(
        [
            f"name: {_text(FRONT)}",
            'backend: "python"',
            f"max_batch_size: {MOST_ROWS}",
            _tensors("input", [TensorConfig(INPUT, "TYPE_STRING", (1,))]),
            _tensors("output", [*outputs, TensorConfig(RESULT, "TYPE_STRING", (1,))]),
            "instance_group [ { count: 1 kind: KIND_CPU } ]",
            "dynamic_batching {",
            f"  max_queue_delay_microseconds: {_DELAY_US}",
            f"  default_queue_policy {{ max_queue_size: {_QUEUE} timeout_action: REJECT "
            f"default_timeout_microseconds: {_TIMEOUT_US} }}",
            "}",
            "",
        ]
    )


def model_config(
    name: str, inputs: Sequence[TensorConfig], outputs: Sequence[TensorConfig], *, device_kind: str
) -> str:
    """Return the configuration of a graph.

    ``max_batch_size`` is 0: a batch comes whole, and scored positions are no rows that Triton could join.
    """
    return "\n".join(
        [
            f"name: {_text(name)}",
            'backend: "onnxruntime"',
            "max_batch_size: 0",
            _tensors("input", inputs),
            _tensors("output", outputs),
            f"instance_group [ {{ count: 1 kind: {'KIND_GPU' if device_kind == 'cuda' else 'KIND_CPU'} }} ]",
            "",
        ]
    )


def _tensors(kind: str, tensors: Sequence[TensorConfig]) -> str:
    listed = ",\n".join(
        f"  {{ name: {_text(tensor.name)} data_type: {tensor.data_type} dims: [ {', '.join(map(str, tensor.dims))} ] }}"
        for tensor in tensors
    )
    return f"{kind} [\n{listed}\n]"


def _text(value: str) -> str:
    """Quote a text; the names here are ASCII, where JSON's form is that of protobuf's text."""
    return json.dumps(value)
