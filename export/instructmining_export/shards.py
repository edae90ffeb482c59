"""One file of a checkpoint's weights, opened: safetensors, or a pickle of which nothing but tensors is taken."""

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

# As safetensors and torch name them. Integers are packed or quantized weights: their float32 values are something else.
FLOATS = frozenset({"F16", "BF16", "F32", "F64", "torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"})
UNREADABLE = "{file}: cannot be read ({reason}); it may be damaged or cut short: download it again"
ZIP = b"PK"  # torch's format since 1.6, whole or not
LFS_POINTER = b"version https://git-lfs"
# What torch's loader raises on bytes that were changed or cut at random (tried on some thousands of such files).
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
        """Names of the tensors."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; its data is not read."""

    def dtype(self, name: str) -> str:
        """What the format calls the kind of its numbers; the readable ones are :data:`FLOATS`."""

    def tensor(self, name: str) -> torch.Tensor:
        """The tensor as it is stored, on the CPU, without gradient."""


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
    """A pickled state dict, mapped into memory; the format older than torch 1.6 cannot be mapped and is read."""

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
        ExportError: it is damaged, or a pickle of anything but tensors.
    """
    _first_bytes(file)
    return _SafetensorsShard(file) if file.suffix == ".safetensors" else _PickleShard(file)


def check_header(file: Path) -> frozenset[str] | None:
    """Look at a file as far as that is cheap.

    Returns:
        The names of the tensors in it; of a pickle None, since it would have to be loaded.

    Raises:
        ExportError: it is damaged, or a program.
    """
    if file.suffix == ".safetensors":
        return frozenset(open_shard(file).names())
    if _first_bytes(file).startswith(ZIP):
        _check_zip(file)
    return None


def parameters(shard: Shard) -> int:
    """Number of floating-point numbers in a file."""
    return sum(math.prod(shard.shape(name)) for name in shard.names() if shard.dtype(name) in FLOATS)


def _first_bytes(file: Path) -> bytes:
    """Enough of the file to tell the formats.

    Raises:
        ExportError: it cannot be read, or is a pointer for which git-lfs has not fetched the file.
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
    """Look at the directory at the end of a pickle in torch's zip format.

    Raises:
        ExportError: there is none, or it is that of a program.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.namelist()
    except (zipfile.BadZipFile, *DAMAGE) as error:
        raise ExportError(UNREADABLE.format(file=file, reason=error)) from error
    if any(name.endswith("/constants.pkl") for name in members):
        raise ExportError(f"{file}: refused, it is a TorchScript program; wanted a state dict of tensors")


def _unpickle(file: Path) -> dict[str, torch.Tensor]:
    """The state dict in a pickle, by torch's loader that knows tensors only and runs nothing.

    Raises:
        ExportError: it is damaged, or holds anything but tensors by name.
    """
    mapped = _first_bytes(file).startswith(ZIP)
    if mapped:
        _check_zip(file)
    try:
        content = torch.load(file, weights_only=True, mmap=mapped, map_location="cpu")
    except pickle.UnpicklingError as error:
        # torch's own message advises to load without the check: not passed on.
        named = re.search(r"GLOBAL (\S+)", str(error))
        found = f"it holds {named[1]}" if named else "it is not a pickle of tensors"
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
