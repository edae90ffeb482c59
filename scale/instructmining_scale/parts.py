"""The parts of a run in shards: finished, whole, and of one run."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import orjson

from instructmining.errors.names import few
from instructmining.reading.blocks import Cut
from instructmining.stores.addresses import is_address, joined, name_of
from instructmining.stores.files import exists, open_file, read_file, size_of
from instructmining.stores.transfers import download
from instructmining_scale.plan import NAME, Plan, PlanError

AGAIN = "score the shard again with --overwrite"


@dataclass(frozen=True, slots=True)
class Part:
    """A finished shard: its files, what its run file says, and the cuts around it."""

    rows: str  # path or address
    run: Mapping[str, Any]
    begin: Cut
    end: Cut

    @property
    def rejects(self) -> str:
        """The file of its rejects."""
        return f"{self.rows}.rejects.jsonl"

    def check(self, *, sizes_only: bool = False) -> None:
        """Check that the files are those that the run file describes, by their sizes and digests.

        Raises:
            PlanError: one is missing or damaged.
        """
        for end, size, digest in self.run["files"]:
            path = f"{self.rows}{end}"
            try:
                if (found := size_of(path)) != size:
                    raise PlanError(f"{path}: has {found:,} bytes, its run file says {size:,}; {AGAIN}")
                if sizes_only:
                    continue
                with open_file(path) as file:
                    is_same = hashlib.file_digest(file, "sha256").hexdigest() == digest
            except FileNotFoundError as error:
                raise PlanError(f"{path}: is missing; {AGAIN}") from error
            except OSError as error:
                raise PlanError(f"{path}: {error.strerror}") from error
            if not is_same:
                raise PlanError(f"{path}: is damaged; {AGAIN}")

    @contextmanager
    def here(self) -> Iterator[Self]:
        """Inside the block, the files are on this machine: those of a store are copied, and checked by their digests.

        Raises:
            PlanError: one is missing or damaged.
        """
        if not is_address(self.rows):
            yield self
            return
        with tempfile.TemporaryDirectory(prefix="instructmining-") as folder:
            copy = replace(self, rows=os.path.join(folder, name_of(self.rows)))  # noqa: PTH118
            for end, _, _ in self.run["files"]:
                try:
                    download(f"{self.rows}{end}", Path(f"{copy.rows}{end}"))
                except OSError as error:
                    raise PlanError(f"{self.rows}{end}: {error.strerror}") from error
            copy.check()
            yield copy

    @property
    def lines(self) -> int:
        """Lines that the part has of the file in which it ends; 0 where lines do not count from a cut."""
        return int(self.run.get("lines") or 0)

    @property
    def is_inside_a_file(self) -> bool:
        """Whether the part begins and ends in one file."""
        return self.begin.at > 0 and self.begin.file == self.end.file

    def count(self, name: str) -> int:
        """Return one of the counts of its run file."""
        return int(self.run["counts"][name])


def plan_of(folder: str) -> Plan:
    """Return the plan of a folder.

    Raises:
        PlanError: there is none, or it cannot be read.
    """
    wanted = "wanted the folder that score --shard wrote to"
    if not is_address(folder) and not Path(folder).is_dir():
        raise PlanError(f"{folder}: No such file or directory; {wanted}")
    plan = Plan.load(folder)
    if plan is None:
        raise PlanError(f"{folder}: has no {NAME}; {wanted}")
    return plan


def finished_parts(folder: str, plan: Plan) -> list[Part]:
    """Return the parts of all shards, in order.

    Raises:
        PlanError: one is missing or of another run.
    """
    parts = [_part(folder, plan, shard) for shard in range(1, plan.shards + 1)]
    if missing := [str(shard) for shard, part in enumerate(parts, 1) if part is None]:
        raise PlanError(
            f"{folder}: {len(missing):,} of {plan.shards:,} parts are missing, of the shards {few(missing)}; score them"
        )
    return [part for part in parts if part is not None]


def _part(folder: str, plan: Plan, shard: int) -> Part | None:
    rows = joined(folder, plan.part(shard, spooled=plan.waits))
    try:
        run = orjson.loads(read_file(f"{rows}.run.json"))
        found = (run["identity"]["plan"], run["identity"]["shard"])
    except FileNotFoundError:
        return None
    except OSError as error:
        raise PlanError(f"{rows}.run.json: {error.strerror}") from error
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise PlanError(f"{rows}.run.json: is no run file of a shard; {AGAIN}") from error
    if found != (plan.digest, shard):
        raise PlanError(f"{rows}: was written by another run than {NAME} plans; {AGAIN}")
    begin, end = plan.bounds(shard)
    return Part(rows, run, begin or Cut(0, 0), end or Cut(len(plan.files), 0)) if exists(rows) else None


def check_inputs(parts: Sequence[Part]) -> None:
    """Check that parts that read one whole file, such as a compressed one, read the same bytes.

    Raises:
        PlanError: a file changed between two shards.
    """
    seen: dict[str, tuple[object, str]] = {}
    for part in parts:
        for source in part.run["identity"]["inputs"]:
            said = source.get("modified_ns")  # by a store, of the whole file
            if said is None and source.get("of_all", "begin" not in source):
                said = source.get("sha256")
            if said is None:
                continue
            before, rows = seen.setdefault(source["path"], (said, part.rows))
            if before != said:
                raise PlanError(
                    f"{source['path']}: was changed between {name_of(rows)} and {name_of(part.rows)}; score all "
                    "shards again, in another folder"
                )


def check_count(path: str, found: int, wanted: int, what: str) -> None:
    """Check that a file has as many rows or rejects as its run file says.

    Raises:
        PlanError: it has not.
    """
    if found != wanted:
        raise PlanError(f"{path}: has {found:,} {what}, its run file says {wanted:,}; {AGAIN}")
