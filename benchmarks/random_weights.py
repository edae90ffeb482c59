"""Random weights at which every layer of a model matters and nothing saturates."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

_TABLES = ("embed_tokens", "embeddings", "embed_in", "shared", "wte", "wpe")  # parts of the names of embeddings


def draw(model: PreTrainedModel, *, head_width: int) -> None:
    """Fill a model in place.

    A Linear's standard deviation is 1/√in instead of 0.02, that of T5's queries 1/√(in · head), since T5 does not scale
    its products of queries and keys; biases and norms are not 0 and 1.
    """
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif name.endswith("bias.weight"):  # of relative positions
                parameter.normal_(std=0.5)
            elif any(table in name for table in _TABLES):
                parameter.normal_(std=0.05)
            else:
                inputs = parameter.shape[0 if model.config.model_type == "gpt2" else -1]
                scale = head_width if name.endswith(".q.weight") else 1
                parameter.normal_(std=(inputs * scale) ** -0.5)
