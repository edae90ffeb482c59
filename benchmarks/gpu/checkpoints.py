"""Writes checkpoints of random weights and our graphs of them, and keeps them for later calls."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
import transformers as hf
from transformers import PreTrainedModel

from benchmarks.gpu.subjects import Subject
from benchmarks.random_weights import draw
from instructmining.bundle import PrecisionName
from instructmining.inference.cuda_driver import CudaDriver
from instructmining.inference.devices import Device
from instructmining_export import families, originals
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import bidirectional, causal, t5
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save
from instructmining_export.transformers_versions import graph_settings

YES, NO = 5, 9  # ids that stand for the two answers
_HEAD_WIDTH = 64
_COPIES_ON_DISK = 2.2  # checkpoint, graph and some room
_COPIES_ON_DEVICE = 2.4  # the reference in float32, or float16 weights and batches


class TooLarge(Exception):
    """There is too little disk or memory for a model."""


@dataclass(frozen=True, slots=True)
class Made:
    """A subject's files."""

    folder: Path  # the checkpoint
    graph: Path
    multiply_adds: Mapping[str, int]  # of products with weights, by token, scored position and row


def make(subject: Subject, models: Path, device: Device, precision: PrecisionName) -> Made:
    """Write a subject's checkpoint and graph, each unless it is there.

    Args:
        subject: which model.
        models: folder that keeps all models.
        device: where weights are drawn, and whose operators the graph has.
        precision: of the graph.

    Raises:
        TooLarge: the model does not fit on the disk or in the device's memory.
    """
    folder = models / subject.slug
    graph = folder / f"{precision}-{device.kind}" / "model.onnx"
    counts = graph.with_suffix(".counts.json")
    if not counts.exists():
        _check_room(subject, models, device)
        if not (folder / "complete").exists():
            _write_checkpoint(subject, folder, device.kind)
            (folder / "complete").touch()
        graph.parent.mkdir(exist_ok=True)
        checkpoint = Checkpoint(folder)
        with checkpoint.weights() as weights:
            kind: DeviceKind = "cuda" if device.kind == "cuda" else "cpu"
            built = _built(subject, checkpoint, weights, Precision(precision), kind)
            save(built.model(), graph)
        counts.write_bytes(orjson.dumps(built.multiply_adds))
    return Made(folder, graph, orjson.loads(counts.read_bytes()))


def _check_room(subject: Subject, models: Path, device: Device) -> None:
    models.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(models).free / 1e9
    if free < (wanted := _COPIES_ON_DISK * subject.gigabytes):
        raise TooLarge(f"{models}: {free:.0f} GB free, wanted {wanted:.0f}")
    memory = CudaDriver(device.index).memory() if device.kind == "cuda" else None
    if memory is not None and memory.free / 1e9 < (wanted := _COPIES_ON_DEVICE * subject.gigabytes):
        raise TooLarge(f"{device}: {memory.free / 1e9:.0f} GB free, wanted {wanted:.0f}")


@contextmanager
def _default_type(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _write_checkpoint(subject: Subject, folder: Path, device: str) -> None:
    """Write the model in half precision with random weights; both sides read the same rounded ones."""
    torch.manual_seed(5)
    config = getattr(hf, subject.kind + "Config")(**subject.config)
    with torch.device(device), _default_type(torch.float16):
        model: PreTrainedModel = getattr(hf, subject.kind + subject.head)(config)
    if subject.output == "yes" and not graph_settings(model.config)["tie_word_embeddings"]:
        # transformers 5 makes no output layer for a new T5 1.1; published ones have their own.
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    draw(model, head_width=_HEAD_WIDTH)
    model.half().save_pretrained(folder)


def _built(
    subject: Subject, checkpoint: Checkpoint, weights: Weights, precision: Precision, device: DeviceKind
) -> GraphBuilder:
    """Our graph, without the gate: the values are compared on the device itself."""
    config = originals.read_config(checkpoint)
    table: Mapping[str, Any] = families.CAUSAL if subject.decoder else families.ENCODERS
    if subject.output == "yes":
        table = families.SEQUENCE_TO_SEQUENCE
    backbone = table[config.model_type].from_config(graph_settings(config), max_length=subject.max_length)
    shared: dict[str, Any] = {"precision": precision, "device": device}
    if subject.decoder:
        head = reward_head(subject) if subject.output == "reward" else None
        return causal.build(backbone, weights, vocabulary=head is None, reward=head, **shared)
    if subject.output == "embedding":
        return bidirectional.build_embedding(backbone, weights, pooling="mean", **shared)
    if subject.output == "reward":
        return bidirectional.build_reward(backbone, weights, separator=None, **shared)
    return t5.build(backbone, weights, yes=YES, no=NO, **shared)


def reward_head(subject: Subject) -> LinearHead:
    """Of a decoder that is a reward model, on its last token."""
    hidden = subject.config["hidden_size"]
    weight = np.random.default_rng(3).normal(scale=hidden**-0.5, size=(1, hidden))
    return LinearHead(weight.astype(np.float32), np.zeros(1, dtype=np.float32))
