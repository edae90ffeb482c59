"""Detects the kind of a file by its name, and by its first bytes where these are certain."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from instructmining.errors import InputError

Kind: TypeAlias = Literal["json", "delimited", "parquet", "arrow"]
Packing: TypeAlias = Literal["gzip", "zstd"]

PARQUET = (".parquet", ".pq")
PACKED = (".gz", ".zst")
DELIMITERS = {".csv": ",", ".tsv": "\t"}
HEAD_BYTES = 8  # bytes that suffice to detect a compression or a table

_JSON = (".json", ".jsonl", ".ndjson")
_ARROW = (".arrow", ".feather", ".ipc")
_KINDS: dict[str, Kind] = {
    **dict.fromkeys(_JSON, "json"),
    **dict.fromkeys(DELIMITERS, "delimited"),
    **dict.fromkeys(PARQUET, "parquet"),
    **dict.fromkeys(_ARROW, "arrow"),
}
_OTHERS = frozenset({".xlsx", ".xls", ".ods", ".orc", ".avro", ".zip", ".tar", ".tgz", ".bz2", ".xz", ".lz4", ".7z"})
_NOT_READ = "is not read by this version; wanted JSON, JSON lines, CSV (each also .gz or .zst), Parquet or Arrow"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")  # zstd's skippable frames, with which pzstd's files begin
_FOREIGN = {
    **{b"BZh%d1AY&" % level: ".bz2" for level in range(1, 10)},
    b"\xfd7zXZ\0": ".xz",
    b"PK\3\4": ".zip",
    b"7z\xbc\xaf\x27\x1c": ".7z",
    b"\x04\x22\x4d\x18": ".lz4",
    b"Obj\1": ".avro",
    b"PARE": "encrypted Parquet",
}
_TABLES: dict[bytes, Kind] = {b"PAR1": "parquet", b"ARROW1": "arrow", b"\xff\xff\xff\xff": "arrow"}


@dataclass(frozen=True, slots=True)
class NamedKind:
    """What a file's name says about its kind.

    Attributes:
        kind: kind of the file; None where the suffix is not known.
        suffix: suffix in lower case, without the suffix of the compression.
        packing: compression; None where the name states none.
    """

    kind: Kind | None
    suffix: str
    packing: Packing | None

    @property
    def delimiter(self) -> str:
        """The delimiter between two fields, where the file is delimited text."""
        return DELIMITERS.get(self.suffix, ",")


def kind_by_name(path: str) -> NamedKind:
    """Detect the kind of a file by its name.

    Raises:
        InputError: this version does not read that kind.
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    packing: Packing | None = None
    if suffixes and suffixes[-1] in PACKED:
        packing = "gzip" if suffixes[-1] == ".gz" else "zstd"
    at = -1 if packing is None else -2
    suffix = suffixes[at] if len(suffixes) >= -at else ""
    kind = _KINDS.get(suffix)
    if suffix in _OTHERS or (packing and kind in {"parquet", "arrow"}):
        raise InputError(f"{path}: {''.join(suffixes[at:])} {_NOT_READ}")
    return NamedKind(kind, suffix, packing)


def packing_by_head(head: bytes) -> Packing | None:
    """Detect a compression by the first bytes."""
    if head.startswith(_GZIP):
        return "gzip"
    return "zstd" if head.startswith(_ZSTD) or _SKIPPABLE.match(head) else None


def table_by_head(head: bytes) -> Kind | None:
    """Detect Parquet or Arrow by the first bytes."""
    return next((kind for magic, kind in _TABLES.items() if head.startswith(magic)), None)


def check_readable(path: str, head: bytes) -> None:
    """Refuse a file whose first bytes show a kind that this version does not read, whatever its name says.

    Raises:
        InputError: the file is of such a kind.
    """
    for magic, kind in _FOREIGN.items():
        if head.startswith(magic):
            raise InputError(f"{path}: is {kind}, which {_NOT_READ}")
