"""The plan of a run in shards: what all of them share. The first shard writes it, the others follow it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import orjson

from instructmining.errors import InstructMiningError, OutputError
from instructmining.reading.blocks import Cut
from instructmining.stores.addresses import is_address, joined
from instructmining.stores.files import exists, read_file
from instructmining.stores.transfers import put
from instructmining.types import KNN_COLUMNS
from instructmining.writing.atomic import beside, sync_folder

NAME = "plan.json"
MERGED = "scored.jsonl"  # of rows that waited for the neighbours among all, where their folder is to hold them too
WAITING = ".windows"  # suffix of a part whose rows wait for the neighbours among all
_FORMAT = 1
_SETTLES_S = 2.0  # in which another process that saw no plan in a store has brought its own


class PlanError(InstructMiningError):
    """A folder's plan is missing, damaged, or that of another run."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How an input is scored in shards."""

    shards: int
    suffix: str  # of the parts' files
    files: Sequence[tuple[str, int]]  # path and bytes of each file of the input
    cuts: Sequence[Cut]  # between the shards, one fewer than these
    identity: Mapping[str, Any]  # everything else that the rows depend on, batch sizes included
    rule: Mapping[str, Any] | None = None  # the fields of the rule whose prediction is a column

    @classmethod
    def load(cls, folder: str | Path) -> Self | None:
        """Return the plan of a folder; None where it has none yet.

        Raises:
            PlanError: it cannot be read.
        """
        path = joined(folder, NAME)
        try:
            said = orjson.loads(read_file(path))
            if said["format"] != _FORMAT:
                raise PlanError(f"{path}: is of format {said['format']}; wanted {_FORMAT}")
            files = [(name, size) for name, size in said["files"]]
            cuts = [Cut(*cut) for cut in said["cuts"]]
            return cls(said["shards"], said["suffix"], files, cuts, said["identity"], said["rule"])
        except FileNotFoundError:
            return None
        except OSError as error:
            raise PlanError(f"{path}: {error.strerror}") from error
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise PlanError(f"{path}: is no plan of a run in shards, or is damaged") from error

    def kept_in(self, folder: str | Path) -> Plan:
        """Write the plan into a folder, unless another process was first; return the one that is there.

        Raises:
            OutputError: the folder cannot be written.
            PlanError: the other process's plan cannot be read.
        """
        path = joined(folder, NAME)
        content = orjson.dumps(self._content(), option=orjson.OPT_INDENT_2) + b"\n"
        try:
            if is_address(path):
                _bring(content, path)
            else:
                _put(content, Path(path))
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}") from error
        kept = Plan.load(folder)
        if kept is None:
            raise PlanError(f"{path}: was removed while the run began; start it again")
        return kept

    @property
    def digest(self) -> str:
        """SHA-256 of the plan."""
        return hashlib.sha256(orjson.dumps(self._content(), option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _content(self) -> dict[str, object]:
        return {"format": _FORMAT, **asdict(self), "cuts": [[cut.file, cut.at] for cut in self.cuts]}

    def bounds(self, shard: int) -> tuple[Cut | None, Cut | None]:
        """Return the cuts before and after a shard, counted from 1; None at the ends of the input."""
        return (
            self.cuts[shard - 2] if shard > 1 else None,
            self.cuts[shard - 1] if shard < self.shards else None,
        )

    @property
    def waits(self) -> bool:
        """Whether columns need the neighbours among the rows of all shards, so that parts have no rows yet."""
        return (
            not set(KNN_COLUMNS.values()).isdisjoint(self.identity["columns"]) and not self.identity["knn"]["against"]
        )

    def part(self, shard: int, *, spooled: bool) -> str:
        """Return the name of a shard's file: of rows, or of windows that wait for the other shards."""
        return f"part-{shard:05}-of-{self.shards:05}{WAITING if spooled else self.suffix}"


def _put(content: bytes, path: Path) -> None:
    """Write a file, unless there is one of that name; a rename would replace it.

    Raises:
        OSError: the disk refuses.
    """
    partial = beside(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            try:
                os.link(partial, path)
            except FileExistsError:
                raise
            except OSError:  # a file system without links
                with path.open("xb") as file:
                    file.write(content)
        sync_folder(path.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _bring(content: bytes, path: str) -> None:
    """Bring a file to a store, unless there is one; of processes that do so at once, all then see the last one's.

    Raises:
        OSError: the store refuses.
    """
    if exists(path):
        return
    put(content, path)
    time.sleep(_SETTLES_S)
