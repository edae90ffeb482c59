"""Reads an encoder's pooling, layers after it, length limit and prompt from its sentence-transformers files."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.bidirectional import Pooling
from instructmining_export.graphs.heads import Dense

# mean_sqrt_len divides by √length instead of length; after normalization it equals the mean.
_MODES: dict[str, Pooling] = {
    "cls_token": "cls",
    "mean_tokens": "mean",
    "mean_sqrt_len_tokens": "mean",
    "lasttoken": "last",
    "cls": "cls",
    "mean": "mean",
}
_ACTIVATIONS: dict[str, Literal["Tanh"] | None] = {"Identity": None, "Tanh": "Tanh"}  # by the class's last name
_KNOWN = ("Transformer", "Pooling", "Dense", "Normalize")
_IN_ORDER = re.compile("Transformer( Pooling( Dense)*)?( Normalize)?")


@dataclass(frozen=True, slots=True)
class SentenceModel:
    """How an encoder turns a text into a vector."""

    folder: Path  # of the transformer
    pooling: Pooling = "mean"
    dense: tuple[Dense, ...] = ()  # layers after the pooling
    normalized: bool = False  # whether the model's own last module normalizes
    max_length: int | None = None  # in tokens
    prompt: str = ""  # precedes every text
    stated: bool = False  # whether the files state the pooling; else it is assumed

    @classmethod
    def read(cls, folder: Path) -> SentenceModel:
        """Read ``modules.json`` and the files it names; without it assumes mean pooling, as sentence-transformers does.

        Raises:
            ExportError: the graph does not support a module or the pooling, or a file is not JSON.
        """
        if not (folder / "modules.json").is_file():
            return cls(folder)
        modules = [
            (str(module["type"]).rsplit(".", 1)[-1], folder / str(module["path"]))
            for module in json.loads((folder / "modules.json").read_bytes())
        ]
        kinds = dict(modules)
        if unknown := sorted(kinds.keys() - set(_KNOWN)):
            raise ExportError(f"{folder}: a module of type {unknown[0]}; wanted {', '.join(_KNOWN)} only")
        names = [name for name, _ in modules]
        if not _IN_ORDER.fullmatch(" ".join(names)):
            raise ExportError(f"{folder}: the modules {', '.join(names)}; wanted {', '.join(_KNOWN)} in this order")
        limits = _read(kinds["Transformer"] / "sentence_bert_config.json")
        if limits.get("do_lower_case"):
            raise ExportError(f"{folder}: lower-cases texts outside of its tokenizer (do_lower_case): not supported")
        settings = _read(folder / "config_sentence_transformers.json")
        prompts, name = settings.get("prompts") or {}, settings.get("default_prompt_name")
        return cls(
            folder=kinds["Transformer"],
            pooling=_pooling(kinds["Pooling"]) if "Pooling" in kinds else "mean",
            dense=tuple(_dense(path) for name, path in modules if name == "Dense"),
            normalized="Normalize" in kinds,
            max_length=limits.get("max_seq_length"),
            prompt=prompts.get(name, "") if name else "",
            stated="Pooling" in kinds,
        )


def _pooling(folder: Path) -> Pooling:
    config = _read(folder / "config.json")
    named = config.get("pooling_mode")
    modes = [named] if named else [key.removeprefix("pooling_mode_") for key, on in config.items() if on is True]
    modes = [mode for mode in modes if mode != "include_prompt"]
    if len(modes) != 1 or modes[0] not in _MODES:
        raise ExportError(f"{folder}: pooling {' and '.join(modes) or 'of no kind'}; wanted one of {', '.join(_MODES)}")
    return _MODES[modes[0]]


def _dense(folder: Path) -> Dense:
    """Read a dense layer.

    Raises:
        ExportError: the graph does not support its activation, or its weights cannot be read.
    """
    activation = str(_read(folder / "config.json").get("activation_function", "Tanh")).rsplit(".", 1)[-1]
    if activation not in _ACTIVATIONS:
        raise ExportError(f"{folder}: activation {activation}; wanted one of {', '.join(_ACTIVATIONS)}")
    with Checkpoint(folder).weights() as weights:
        weight = weights("linear.weight")
        bias = weights("linear.bias") if "linear.bias" in weights else np.zeros(len(weight), dtype=np.float32)
    return Dense(weight, bias, _ACTIVATIONS[activation])


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: {error}") from error
    return content
