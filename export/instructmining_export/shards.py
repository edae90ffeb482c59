"""Reads one file of a checkpoint's weights: safetensors, or a pickle that holds only tensors."""

from __future__ import annotations

import math
import pickle
import re
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open

from instructmining.errors import ExportError

# Names by safetensors and torch. Integers are packed or quantized weights; a cast does not give their values.
FLOATS = frozenset({"F16", "BF16", "F32", "F64", "torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"})
UNREADABLE = "{file}: cannot be read ({reason}); it may be damaged or cut short: download it again"
ZIP = b"PK"  # first bytes of torch's format since 1.6
LFS_POINTER = b"version https://git-lfs"
# Errors of torch's loader on thousands of files that were changed or truncated at random.
DAMAGE = (
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)


class Shard(Protocol):
    """One open file of weights."""

    file: Path

    def names(self) -> Sequence[str]:
        """Return the names of the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape; does not read its data."""

    def dtype(self, name: str) -> str:
        """Return the format's name of a tensor's type; the readable ones are :data:`FLOATS`."""

    def tensor(self, name: str) -> torch.Tensor:
        """Return the tensor as stored, on the CPU, without gradient."""


class _SafetensorsShard:
    """A safetensors file; data is read tensor by tensor."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            self._opened = safe_open(file, framework="pt")
        except (SafetensorError, OSError) as error:
            raise ExportError(UNREADABLE.format(file=file, reason=error)) from error

    def names(self) -> Sequence[str]:
        names: list[str] = self._opened.keys()
        return names

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._opened.get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        return str(self._opened.get_slice(name).get_dtype())

    def tensor(self, name: str) -> torch.Tensor:
        tensor: torch.Tensor = self._opened.get_tensor(name)
        return tensor


class _PickleShard:
    """A pickled state dict, mapped into memory; files older than torch 1.6 cannot be mapped and are read."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._tensors = _unpickle(file)

    def names(self) -> Sequence[str]:
        return list(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors[name].shape)

    def dtype(self, name: str) -> str:
        tensor = self._tensors[name]
        return str(tensor.dtype) if tensor.layout is torch.strided else str(tensor.layout)

    def tensor(self, name: str) -> torch.Tensor:
        return self._tensors[name].detach()


def open_shard(file: Path) -> Shard:
    """Open a file of weights.

    Raises:
        ExportError: it is damaged, or a pickle that holds anything but tensors.
    """
    _first_bytes(file)
    return _SafetensorsShard(file) if file.suffix == ".safetensors" else _PickleShard(file)


def check_header(file: Path) -> frozenset[str] | None:
    """Check a file without reading its data.

    Returns:
        The names of its tensors; None for a pickle, which would have to be loaded.

    Raises:
        ExportError: it is damaged, or a TorchScript program.
    """
    if file.suffix == ".safetensors":
        return frozenset(open_shard(file).names())
    if _first_bytes(file).startswith(ZIP):
        _check_zip(file)
    return None


def parameters(shard: Shard) -> int:
    """Count the floating-point numbers in a file."""
    return sum(math.prod(shard.shape(name)) for name in shard.names() if shard.dtype(name) in FLOATS)


def _first_bytes(file: Path) -> bytes:
    """Read enough of a file to recognize its format.

    Raises:
        ExportError: it cannot be read, or is a git-lfs pointer.
    """
    try:
        with file.open("rb") as stream:
            first = stream.read(len(LFS_POINTER))
    except OSError as error:
        raise ExportError(UNREADABLE.format(file=file, reason=error)) from error
    if first == LFS_POINTER:
        raise ExportError(f"{file}: found a git-lfs pointer, wanted the file itself; run git lfs pull")
    return first


def _check_zip(file: Path) -> None:
    """Check the directory of a pickle in torch's zip format.

    Raises:
        ExportError: it is damaged, or that of a TorchScript program.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise ExportError(UNREADABLE.format(file=file, reason=error)) from error
    if any(name.endswith("/constants.pkl") for name in members):
        raise ExportError(f"{file}: refused, it is a TorchScript program; wanted a state dict of tensors")


def _unpickle(file: Path) -> dict[str, torch.Tensor]:
    """Load the state dict in a pickle with torch's safe loader, which runs no code.

    Raises:
        ExportError: it is damaged, or holds anything but tensors by name.
    """
    mapped = _first_bytes(file).startswith(ZIP)
    if mapped:
        _check_zip(file)
    try:
        content = torch.load(file, weights_only=True, mmap=mapped, map_location="cpu")
    except pickle.UnpicklingError as error:
        # Not torch's own message, which advises to load without the check.
        match = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it holds {match[1]}" if match else "it is not a pickle of tensors"
        raise ExportError(
            f"{file}: refused, {found}; wanted tensors only, since anything else is code that loading would run; "
            "convert it to safetensors where you trust it"
        ) from error
    except DAMAGE as error:
        reason = str(error).split(". ", 1)[0] or type(error).__name__
        raise ExportError(UNREADABLE.format(file=file, reason=reason)) from error
    if not isinstance(content, dict):
        raise ExportError(f"{file}: refused, it holds a {type(content).__name__}; wanted a state dict of tensors")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ExportError(
                f"{file}: refused, {name!r} is of type {type(value).__name__}; wanted a state dict of tensors only"
            )
    return content
