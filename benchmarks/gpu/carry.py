"""Carries onnxruntime-gpu to a machine without a registry: packs a wheel thinned to one GPU generation, and unpacks it.

``python benchmarks/gpu/carry.py pack WHEEL FOLDER --generation 90`` writes ``onnxruntime.tar.xz.00``, ``.01``, … of at
most 55 MB; ``python benchmarks/gpu/carry.py join FOLDER SITE`` there unpacks them. Both need Python alone.

The CUDA provider holds its kernels once for each generation, in containers whose entries say which: an entry's header
has its kind (2 for machine code), its own size and its payload's, and the generation (75, 80, 90, …). Entries of other
generations are taken out of their container, and the bytes that are free then are zeros, which compress to nothing; the
library keeps its size and all of its addresses. Containers without an entry of the generation stay as they are.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import struct
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

_PROVIDER = "onnxruntime/capi/libonnxruntime_providers_cuda.so"
_LEFT_OUT = "onnxruntime/capi/libonnxruntime_providers_tensorrt.so"
_CONTAINER = struct.Struct("<IHHQ")  # magic number, version, size of this header, bytes after it
_ENTRY = struct.Struct("<HHIQ")  # kind, version, size of this header, bytes of the payload
_MAGIC, _VERSION = 0xBA55ED50, 1
_GENERATION_AT = 28  # in an entry's header
_PART_BYTES = 55_000_000
_NAME = "onnxruntime.tar.xz"
_PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def thinned(library: bytes, generation: int) -> tuple[bytes, int]:
    """Take the code of other generations out of a library; returns it and the number of bytes that are zeros now."""
    made = bytearray(library)
    freed = 0
    for begin, end in _containers(library):
        entries = list(_entries(library, begin, end))
        kept = b"".join(library[start:stop] for start, stop, built_for in entries if built_for == generation)
        if not kept:
            continue
        freed += end - begin - len(kept)
        made[begin:end] = kept + bytes(end - begin - len(kept))
        header = begin - _CONTAINER.size
        _CONTAINER.pack_into(made, header, _MAGIC, _VERSION, _CONTAINER.size, len(kept))
    return bytes(made), freed


def _containers(library: bytes) -> Iterator[tuple[int, int]]:
    """Where the entries of each container begin and end."""
    magic, at = struct.pack("<I", _MAGIC), 0
    while (at := library.find(magic, at)) >= 0:
        _, version, header, size = _CONTAINER.unpack_from(library, at)
        if version == _VERSION and header == _CONTAINER.size and at + header + size <= len(library):
            yield at + header, at + header + size
            at += header + size
        else:
            at += len(magic)  # the number stands in code too


def _entries(library: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Where each entry begins and ends, and its generation."""
    while begin < end:
        _, _, header, size = _ENTRY.unpack_from(library, begin)
        (generation,) = struct.unpack_from("<I", library, begin + _GENERATION_AT)
        yield begin, begin + header + size, generation
        begin += header + size


def pack(wheel: Path, folder: Path, generation: int) -> None:
    packed = io.BytesIO()
    with (
        zipfile.ZipFile(wheel) as files,
        lzma.open(packed, "wb", preset=6) as compressed,
        tarfile.open(fileobj=compressed, mode="w|") as tar,
    ):
        for name in files.namelist():
            if name.endswith("/") or name == _LEFT_OUT:
                continue
            content = files.read(name)
            if name == _PROVIDER:
                content, freed = thinned(content, generation)
                if not freed:
                    raise SystemExit(f"{wheel}: {name} has no code of generation {generation} alone")
                print(f"{name}: {len(content) / 1e6:.0f} MB, {freed / 1e6:.0f} MB of it zeros now")
            _add(tar, name, content)
        # So that the project's sources on PYTHONPATH know their version.
        version = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]["version"]
        metadata = f"Metadata-Version: 2.1\nName: instructmining\nVersion: {version}\n"
        _add(tar, f"instructmining-{version}.dist-info/METADATA", metadata.encode())
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{_NAME}.*"):
        old.unlink()
    content = packed.getvalue()
    (folder / f"{_NAME}.sha256").write_text(hashlib.sha256(content).hexdigest() + "\n", encoding="utf-8")
    for number, begin in enumerate(range(0, len(content), _PART_BYTES)):
        part = folder / f"{_NAME}.{number:02}"
        part.write_bytes(content[begin : begin + _PART_BYTES])
        print(f"{part}: {part.stat().st_size / 1e6:.1f} MB")


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    tar.addfile(entry, io.BytesIO(content))


def join(folder: Path, site: Path) -> None:
    content = b"".join(part.read_bytes() for part in sorted(folder.glob(f"{_NAME}.[0-9][0-9]")))
    wanted = (folder / f"{_NAME}.sha256").read_text(encoding="utf-8").strip()
    if hashlib.sha256(content).hexdigest() != wanted:
        raise SystemExit(f"{folder}: the parts do not give the packed file; is one missing?")
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:xz") as tar:
        tar.extractall(site, filter="data")
    print(site)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack")
    packing.add_argument("wheel", type=Path)
    packing.add_argument("folder", type=Path)
    packing.add_argument("--generation", type=int, default=90, help="75, 80, 86, 89, 90 or 120")
    joining = verbs.add_parser("join")
    joining.add_argument("folder", type=Path)
    joining.add_argument("site", type=Path)
    given = parser.parse_args()
    if given.verb == "pack":
        pack(given.wheel, given.folder, given.generation)
    else:
        join(given.folder, given.site)


if __name__ == "__main__":
    main()
