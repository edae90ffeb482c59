"""Configs as the installed transformers fills them in, and models as their configs say."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from instructmining_export.transformers_versions import IS_VERSION_4, graph_settings


def changed(config: PretrainedConfig, **changes: object) -> dict[str, Any]:
    """Return the config's settings, changed without its checks; ``rope_scaling`` goes where the version keeps it."""
    filled: dict[str, Any] = config.to_dict()
    scaling: Any = changes.get("rope_scaling")
    if scaling is None or IS_VERSION_4:
        return filled | changes
    parameters: dict[str, Any] = filled["rope_parameters"]
    by_layer = {kind: layer | scaling for kind, layer in parameters.items() if isinstance(layer, dict)}
    changes["rope_parameters"] = by_layer or {"rope_theta": parameters["rope_theta"]} | scaling
    del changes["rope_scaling"]
    return filled | changes


def untie(model: PreTrainedModel) -> None:
    """Give a T5 1.1 an output layer of its own, as published ones have; transformers 5 makes new ones without."""
    if not graph_settings(model.config)["tie_word_embeddings"]:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
