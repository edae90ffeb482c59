"""Rotary position embeddings as the tables that onnxruntime's operators take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from instructmining.errors import ExportError
from instructmining_export.graphs.graph_builder import GraphBuilder


@dataclass(frozen=True, slots=True)
class Rotary:
    """Frequencies of a model's rotary embedding, with its scaling for long texts already in them."""

    frequencies: tuple[float, ...]  # (rotated dimensions / 2,), float32 values
    scale: float  # of cosine and sine: 1 but for YaRN and LongRoPE
    positions: int  # texts are never longer

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int) -> Rotary:
        """By transformers' own functions, so that every kind it has comes out as it does.

        Args:
            config: a transformers config, of version 4 (``rope_theta``, ``rope_scaling``) or 5 (``rope_parameters``).
            max_length: longest text that the graph is given.

        Raises:
            ExportError: the kind is unknown, or depends on the text's length within ``max_length``.
        """
        given = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        kind = given.get("rope_type", given.get("type", "default"))
        theta = given.get("rope_theta", config.get("rope_theta"))
        if theta is None or (kind != "default" and kind not in ROPE_INIT_FUNCTIONS):
            raise ExportError(f"rotary embedding of type {kind!r} with theta {theta}: wanted a known type and a theta")
        trained = given.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        trained = trained or config["max_position_embeddings"]
        if kind in {"dynamic", "longrope"} and max_length > trained:
            raise ExportError(
                f"rotary embedding of type {kind!r} changes beyond {trained} tokens; "
                f"give --max-length {trained} or less"
            )
        if kind == "default":
            size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            share = config.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
            size = int(size * given.get("partial_rotary_factor", share))
            exponents = torch.arange(0, size, 2, dtype=torch.int64).to(torch.float32) / size
            return cls(tuple((1.0 / theta**exponents).tolist()), 1.0, max_length)
        object_like = PretrainedConfig(**{**config, "rope_theta": theta, "rope_scaling": {**given, "rope_type": kind}})
        frequencies, scale = ROPE_INIT_FUNCTIONS[kind](object_like, torch.device("cpu"), seq_len=max_length)
        return cls(tuple(frequencies.to(torch.float32).tolist()), float(scale), max_length)

    def tables(self, tape: GraphBuilder, name: str = "rotary") -> tuple[ir.Value, ir.Value]:
        """Cosines and sines, narrow (positions, rotated dimensions / 2).

        transformers multiplies in float32, and so do these tables, so that the same angles come out.
        """
        frequencies = np.array(self.frequencies, dtype=np.float32)
        angles = np.outer(np.arange(self.positions, dtype=np.float32), frequencies)
        cos, sin = (np.float32(self.scale) * part.astype(np.float32) for part in (np.cos(angles), np.sin(angles)))
        return (
            tape.constant(f"{name}_cos", cos, narrow=True),
            tape.constant(f"{name}_sin", sin, narrow=True),
        )
