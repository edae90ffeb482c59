"""How the demo bundle is put together from its weights: what ships with the package, and what is read from them.

The files in ``recipe/`` are those of a bundle that ``preset.py`` exported with PyTorch and proved equal to its models
(:mod:`instructmining_export.demo.write_recipe` writes them): graphs, reference values and manifest as they were, the
tokenizers without their vocabularies, and for each file of weights the names of its tensors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import MANIFEST

SHIPPED = Path(str(resources.files("instructmining_export") / "demo" / "recipe"))
RECIPE = "recipe.json"
AS_THEY_WERE = (
    "perplexity/model.onnx",
    "perplexity/model.cuda.onnx",
    "perplexity/references.json",
    "reward/references.json",
    "embedding/model.onnx",
    "embedding/references.json",
)
CONSTANTS = "constants.npz"  # beside a graph; tensors that no weight gives, such as rotary tables
LANGUAGE_MODEL, ENCODER = "perplexity", "embedding"
DATA = "model.onnx.data"
TOKENIZER = "tokenizer.json"

Read: TypeAlias = Callable[[str], NDArray[np.float32]]  # a tensor by its transformers name


@dataclass(frozen=True, slots=True)
class Recipe:
    """The files of ``recipe/``."""

    folder: Path
    tensors: Mapping[str, list[str]]  # folder of a graph → names of the tensors in its data, in order

    @classmethod
    def shipped(cls) -> Recipe:
        """Return the recipe in this package."""
        return cls.read(SHIPPED)

    @classmethod
    def read(cls, folder: Path) -> Recipe:
        """Return the recipe in a folder."""
        return cls(folder, json.loads((folder / RECIPE).read_bytes()))

    @property
    def manifest(self) -> Path:
        """The manifest of the bundle, with the digest of each of its files."""
        return self.folder / MANIFEST

    def weights(self, graph: str, read: Read) -> Iterator[NDArray[Any]]:
        """Return the tensors of a graph's data, in order.

        Args:
            graph: its folder in the bundle.
            read: reads a tensor of the checkpoint.
        """
        path = self.folder / graph / CONSTANTS
        constants = np.load(path, allow_pickle=False) if path.is_file() else {}
        for name in self.tensors[graph]:
            yield constants[name] if name in constants else tensor(name, read)

    def tokenizer(self, graph: str, vocabulary: Mapping[str, int], merges: list[list[str]] | None = None) -> str:
        """Return the text of a graph's ``tokenizer.json``.

        Args:
            graph: its folder in the bundle.
            vocabulary: token → id.
            merges: of byte-pair encoding; None for other models.
        """
        content = json.loads((self.folder / graph / TOKENIZER).read_bytes())
        content["model"]["vocab"] = vocabulary
        if merges is not None:
            content["model"]["merges"] = merges
        return json.dumps(content, indent=2, ensure_ascii=False)


def tensor(name: str, read: Read) -> NDArray[np.float32]:
    """Return a tensor of a graph, whose name says how it is made: names stacked by "+", transposed by ".T"."""
    parts = [read(part) for part in name.removesuffix(".T").split("+")]
    stacked = np.concatenate(parts) if len(parts) > 1 else parts[0]
    return np.ascontiguousarray(stacked.T if name.endswith(".T") else stacked)
