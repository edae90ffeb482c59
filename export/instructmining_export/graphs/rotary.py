"""Rotary position embeddings, as tables for onnxruntime's operators."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from instructmining.errors import ExportError
from instructmining_export.graphs.graph_builder import GraphBuilder
from instructmining_export.transformers_versions import scaled_frequencies


@dataclass(frozen=True, slots=True)
class Rotary:
    """Frequencies of a model's rotary embedding; scaling for long texts is already applied."""

    frequencies: tuple[float, ...]  # (rotated dimensions / 2,), float32 values
    scale: float  # factor of cosine and sine; 1 except for YaRN and LongRoPE
    positions: int  # tokens of the longest text
    name: str = "rotary"  # of its tables; differs where a graph has several

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, max_length: int, name: str = "rotary") -> Rotary:
        """Read a transformers config; frequencies come from transformers' own functions.

        Args:
            config: a transformers config, of version 4 (``rope_theta``, ``rope_scaling``) or 5 (``rope_parameters``).
            max_length: tokens of the longest text.
            name: of the tables.

        Raises:
            ExportError: the kind is unknown, or its frequencies change for texts within ``max_length``.
        """
        parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
        kind = parameters.get("rope_type", parameters.get("type", "default"))
        theta = parameters.get("rope_theta", config.get("rope_theta"))
        if theta is None or (kind != "default" and kind not in ROPE_INIT_FUNCTIONS):
            raise ExportError(f"rotary embedding of type {kind!r} with theta {theta}: wanted a known type and a theta")
        trained = parameters.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
        trained = trained or config["max_position_embeddings"]
        if kind in {"dynamic", "longrope"} and max_length > trained:
            raise ExportError(
                f"rotary embedding of type {kind!r} changes beyond {trained} tokens; "
                f"give --max-length {trained} or less"
            )
        if kind == "default":
            size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
            share = config.get("partial_rotary_factor", config.get("rotary_pct", 1.0))
            size = int(size * parameters.get("partial_rotary_factor", share))
            exponents = torch.arange(0, size, 2, dtype=torch.int64).to(torch.float32) / size
            return cls(tuple((1.0 / theta**exponents).tolist()), 1.0, max_length, name)
        frequencies, scale = scaled_frequencies(
            config, {**parameters, "rope_type": kind, "rope_theta": theta}, max_length=max_length
        )
        return cls(tuple(frequencies.to(torch.float32).tolist()), float(scale), max_length, name)

    def tables(self, graph: GraphBuilder) -> tuple[ir.Value, ir.Value]:
        """Return cosines and sines, each narrow (positions, rotated dimensions / 2).

        Angles are computed in float32, as transformers does.
        """
        frequencies = np.array(self.frequencies, dtype=np.float32)
        angles = np.outer(np.arange(self.positions, dtype=np.float32), frequencies)
        cos, sin = (np.float32(self.scale) * part.astype(np.float32) for part in (np.cos(angles), np.sin(angles)))
        return (
            graph.constant(f"{self.name}_cos", cos, narrow=True),
            graph.constant(f"{self.name}_sin", sin, narrow=True),
        )
