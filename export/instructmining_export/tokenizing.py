"""Loads a checkpoint's tokenizer and saves it for a bundle."""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast

from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.transformers_versions import load_fast_tokenizer

_FILES = ("tokenizer.json", "tokenizer_config.json")


def load_tokenizer(checkpoint: Checkpoint, *, words: int) -> PreTrainedTokenizerFast:
    """Load the model's tokenizer as a fast (Rust) one.

    Args:
        checkpoint: a folder with ``tokenizer_config.json`` and its files, or with ``tokenizer.json`` alone.
        words: rows of the model's embedding table.

    Raises:
        ExportError: there is none, it has no Rust form, or a token id exceeds the model's embeddings.
    """
    folder = checkpoint.folder
    if not any((folder / name).is_file() for name in _FILES):
        raise ExportError(
            f"{folder}: has no tokenizer; wanted {_FILES[0]}, or {_FILES[1]} with the files that it names"
        )
    try:
        if (folder / "tokenizer_config.json").is_file():
            loaded = load_fast_tokenizer(folder)
        else:
            loaded = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    # The Rust side raises bare Exception, transformers many classes.
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ExportError(f"{folder}: its tokenizer cannot be loaded: {first}") from error
    if not isinstance(loaded, PreTrainedTokenizerFast):
        raise ExportError(f"{folder}: its tokenizer {type(loaded).__name__} has no Rust form; wanted a tokenizer.json")
    largest = max(loaded.get_vocab().values(), default=-1)
    if largest >= words:
        raise ExportError(
            f"{folder}: its tokenizer has a token of id {largest}, its model only {words} embeddings; "
            "wanted a pair that belongs together"
        )
    return loaded


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, path: Path) -> None:
    """Save the tokenizer without truncation and padding, which the engine does itself."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    backend.save(str(path))
