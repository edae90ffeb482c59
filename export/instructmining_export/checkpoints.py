"""A checkpoint on disk in the Hugging Face layout: its config, and its weights one tensor at a time."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from instructmining.errors import ExportError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with ``config.json``, ``tokenizer.json`` and safetensors weights."""

    folder: Path
    source: dict[str, str] = field(default_factory=dict)  # id, revision, licence: what the manifest says of it

    def config(self) -> dict[str, Any]:
        """The transformers config.

        Raises:
            ExportError: it is missing or is not JSON.
        """
        file = self.folder / "config.json"
        try:
            config = json.loads(file.read_bytes())
        except (OSError, json.JSONDecodeError) as error:
            raise ExportError(f"{file}: {error}; wanted a folder in the Hugging Face layout") from error
        if not isinstance(config, dict):
            raise ExportError(f"{file}: wanted an object")
        return config

    @contextmanager
    def weights(self) -> Iterator[Callable[[str], NDArray[np.float32]]]:
        """A reader of single tensors by name, as float32; a name may stand behind one prefix, as in ``bert.``.

        Raises:
            ExportError: there are no safetensors files, or one is damaged.
        """
        files = sorted(self.folder.glob("*.safetensors"))
        if not files:
            raise ExportError(f"{self.folder}: no .safetensors file")
        with ExitStack() as stack:
            try:
                opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files]
            except SafetensorError as error:
                raise ExportError(f"{self.folder}: {error}") from error
            where = {name: shard for shard in opened for name in shard.keys()}  # noqa: SIM118 - not a mapping
            prefixes = ("", *sorted({name.split(".", 1)[0] + "." for name in where}))

            def read(name: str) -> NDArray[np.float32]:
                for prefix in prefixes:
                    if prefix + name in where:
                        tensor: torch.Tensor = where[prefix + name].get_tensor(prefix + name)
                        array: NDArray[np.float32] = tensor.to(torch.float32).numpy()
                        return array
                raise ExportError(f"{self.folder}: no tensor {name!r}")

            yield read
