"""Reads a checkpoint in the Hugging Face layout: its config, and its weights one tensor at a time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from instructmining.errors import ExportError
from instructmining_export.shards import FLOATS, Shard, check_header, open_shard, parameters

SAFETENSORS = "model.safetensors"
PICKLE = "pytorch_model.bin"
INDEX = ".index.json"  # added to either name: the file that says which shard holds each tensor
# In transformers' order of preference, so that graph and reference values come from the same files.
WEIGHTS = (SAFETENSORS, SAFETENSORS + INDEX, PICKLE, PICKLE + INDEX)
# transformers' base_model_prefix of the supported families: begins the names of a model with a head, and is absent
# where the base model was saved alone.
BASE_PREFIXES = (
    "bert.",
    "deberta.",
    "distilbert.",
    "electra.",
    "gpt_neox.",
    "language_model.model.",  # of a model that sees images too
    "model.",
    "mpnet.",
    "roberta.",
    "transformer.",
)
WANTED_FLOATS = "wanted float16, bfloat16, float32 or float64 (quantized weights have to be de-quantized first)"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with ``config.json``, ``tokenizer.json`` and weights.

    Weights are ``model.safetensors`` or the shards of ``model.safetensors.index.json``; where there are neither,
    ``pytorch_model.bin`` or the shards of ``pytorch_model.bin.index.json``. Other weight files are ignored.
    """

    folder: Path
    source: dict[str, str] = field(default_factory=dict)  # id, revision and licence, for the manifest

    def config(self) -> dict[str, Any]:
        """Read the transformers config.

        Raises:
            ExportError: it is missing or is not JSON.
        """
        return _json_object(self.folder / "config.json", "a folder in the Hugging Face layout")

    @property
    def pickled(self) -> bool:
        """Whether the weights are pickles, because there are no safetensors.

        Raises:
            ExportError: there are no weights.
        """
        return self._weights_file().name.startswith(PICKLE)

    def weight_files(self) -> tuple[Path, ...]:
        """Return the files that tensors are read from, sorted by name.

        Raises:
            ExportError: there are no weights, the index of the shards is damaged, or a shard is missing.
        """
        file = self._weights_file()
        if not file.name.endswith(INDEX):
            return (file,)
        return tuple(sorted(set(_weight_map(file).values())))

    @property
    def bytes_fp32(self) -> int:
        """Size in bytes of all floating-point tensors in float32; a tensor with two names counts twice.

        Reads headers only, except for pickles older than torch 1.6, which are read whole.

        Raises:
            ExportError: as :meth:`weights`.
        """
        return 4 * sum(parameters(open_shard(file)) for file in self.weight_files())

    def loading_arguments(self) -> dict[str, object]:
        """Return arguments with which transformers' ``from_pretrained`` reads the same files and runs no code.

        Raises:
            ExportError: there are no weights.
        """
        return {
            "local_files_only": True,
            "use_safetensors": not self.pickled,
            "weights_only": True,
            "trust_remote_code": False,
            "dtype": torch.float32,
        }

    @contextmanager
    def weights(self) -> Iterator[TensorReader]:
        """Open a reader of single tensors; checks every file first, so that a damaged one is found at once.

        Raises:
            ExportError: there are no weights, a shard is missing or damaged, the index names a tensor that its shard
                does not hold, or a pickle holds anything but tensors (for shards, raised when one is opened).
        """
        file = self._weights_file()
        if file.name.endswith(INDEX):
            where = _weight_map(file)
            _check_shards(where)
            reader = TensorReader(self.folder, where)
        else:
            shard = open_shard(file)
            reader = TensorReader(self.folder, dict.fromkeys(shard.names(), file), shard)
        try:
            yield reader
        finally:
            reader.close()

    def _weights_file(self) -> Path:
        """Return the weights file, or the index of its shards."""
        for name in WEIGHTS:
            if (self.folder / name).is_file():
                return self.folder / name
        others = sorted(
            file.name for suffix in ("safetensors", "bin", "gguf") for file in self.folder.glob("*." + suffix)
        )
        found = f"found {', '.join(others)}; " if others else ""
        raise ExportError(
            f"{self.folder}: no .safetensors file of the model and no {PICKLE}; {found}"
            f"wanted {SAFETENSORS} or {PICKLE}, or the shards of either with their {INDEX} file"
        )


class TensorReader:
    """Reads single tensors by name, as float32; keeps one file open and no tensor.

    A name is looked up as it is, then after each of :data:`BASE_PREFIXES`, so that a base model is found whether it was
    saved alone or with a head. If several prefixes match, the one with the most tensors is used; a tie is an error.
    """

    def __init__(self, folder: Path, where: Mapping[str, Path], opened: Shard | None = None) -> None:
        """Prepare to read.

        Args:
            folder: of the checkpoint, for messages.
            where: file of each tensor.
            opened: one of the files, if already open.
        """
        self._folder = folder
        self._where = where
        self._opened = opened
        self._sizes = Counter(name[: name.find(".") + 1] for name in where)

    def __call__(self, name: str) -> NDArray[np.float32]:
        """Read one tensor as float32, in its own shape; a view of the file where that holds float32.

        Raises:
            ExportError: there is no such tensor, it is not floating-point, or its file cannot be read.
        """
        stored = self._stored(name)
        shard = self._shard(stored)
        if shard.dtype(stored) not in FLOATS:
            raise ExportError(f"{shard.file}: {stored} has dtype {shard.dtype(stored)}; {WANTED_FLOATS}")
        array: NDArray[np.float32] = shard.tensor(stored).to(torch.float32).numpy()
        return array

    def __contains__(self, name: object) -> bool:
        """Return whether there is such a tensor, with or without a prefix; reads no file."""
        return isinstance(name, str) and bool(self._candidates(name))

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of one tensor; does not read its data.

        Raises:
            ExportError: there is no such tensor, or its file cannot be read.
        """
        stored = self._stored(name)
        return self._shard(stored).shape(stored)

    def close(self) -> None:
        """Close the open file."""
        self._opened = None

    def _candidates(self, name: str) -> list[str]:
        """Return the stored names that match, prefixes with the most tensors first."""
        if name in self._where:
            return [name]
        prefixes = sorted(BASE_PREFIXES, key=lambda prefix: -self._sizes[prefix])
        return [prefix + name for prefix in prefixes if prefix + name in self._where]

    def _stored(self, name: str) -> str:
        """Return the one stored name that matches.

        Raises:
            ExportError: there is none, or more than one.
        """
        found = self._candidates(name)
        if not found:
            raise ExportError(f"{self._folder}: no tensor {name!r}, by itself or after {', '.join(BASE_PREFIXES)}")
        if len(found) > 1 and len({self._sizes[stored[: -len(name)]] for stored in found[:2]}) == 1:
            raise ExportError(f"{self._folder}: tensor {name!r} stands for {found[0]} and {found[1]}; wanted one")
        return found[0]

    def _shard(self, stored: str) -> Shard:
        """Return the file that holds the tensor, opened if necessary."""
        file = self._where[stored]
        if self._opened is None or self._opened.file != file:
            self._opened = None  # frees the last file first: two pickles may not fit in memory
            self._opened = open_shard(file)
        if stored not in self._opened.names():
            raise ExportError(f"{file}: no tensor {stored!r}, which the index of the shards says is here")
        return self._opened


def _json_object(file: Path, wanted: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Raises:
        ExportError: it cannot be read, or holds something else.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ExportError(f"{file}: {error}; wanted {wanted}") from error
    if not isinstance(content, dict):
        raise ExportError(f"{file}: wanted an object")
    return content


def _weight_map(index: Path) -> dict[str, Path]:
    """Read the shard of each tensor.

    Raises:
        ExportError: the index is damaged, or a shard is missing.
    """
    names = _json_object(index, "the index of the shards").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ExportError(f"{index}: no weight_map; wanted the file of each tensor")
    for name in sorted({str(name) for name in names.values()}):
        if Path(name).name != name:
            raise ExportError(f"{index}: found shard {name!r}, wanted the name of a file in the same folder")
        if not (index.parent / name).is_file():
            raise ExportError(f"{index.parent}: shard {name} is missing, {index.name} names it; download it too")
    return {tensor: index.parent / str(name) for tensor, name in names.items()}


def _check_shards(where: Mapping[str, Path]) -> None:
    """Check the header of each shard.

    Raises:
        ExportError: a shard is damaged, or lacks a tensor that the index assigns to it.
    """
    for file in sorted(set(where.values())):
        names = check_header(file)
        if names is None:
            continue
        if missing := sorted(name for name, shard in where.items() if shard == file and name not in names):
            raise ExportError(f"{file}: no tensor {missing[0]!r}, which the index of the shards says is here")
