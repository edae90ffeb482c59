"""Expands folders and patterns to files of rows in one order, and reports what was left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from instructmining.errors import InputError, OutputError
from instructmining.reading.compression import is_pipe
from instructmining.reading.file_kinds import kind_by_name
from instructmining.reading.patterns import ANY_DEPTH, fits
from instructmining.reading.trees import CLOSED, Tree, beside_it, tree_of
from instructmining.stores.addresses import folder_of, is_address, joined, name_of, plain

# What datasets' save_to_disk writes next to the rows, and what map and filter leave there.
_METADATA = frozenset({"dataset_info.json", "dataset_infos.json", "dataset_dict.json"})
_STATE = "state.json"
_PLAN, _PART = "plan.json", "part-[0-9]*-of-[0-9]*"  # of a run in shards
_DATASET_INFO = "dataset_info.json"
_CACHED = "cache-*.arrow"
# What score and select write next to OUT.
_OUT = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_NEXT_TO_OUT = (".rejects.jsonl", ".run.json", ".selection.json", ".partial")
_NAMED = 5  # names shown in a message


@dataclass(frozen=True, slots=True)
class Skipped:
    """Files and folders in an input folder, or matched by a pattern, that are not read."""

    where: str  # the folder or the pattern, as given
    names: tuple[str, ...]  # paths below it, hidden ones and those of unknown kinds, in order

    def __str__(self) -> str:
        """Return one line with the first few names."""
        many = len(self.names)
        return f"{self.where}: {many:,} {'entry is' if many == 1 else 'entries are'} not read: {_named(self.names)}"


@dataclass(frozen=True, slots=True)
class Files:
    """The files of an input."""

    paths: tuple[str, ...]
    skipped: tuple[Skipped, ...] = ()


def expand(inputs: Sequence[str | Path], *, out: str | None = None) -> Files:
    """Expand each folder and pattern of an input to its files of rows, sorted by the bytes of their paths.

    Folders are searched recursively, and so is what a pattern's ``**`` matches; links to folders are not followed
    there, and pipes are not waited for. Where the name in a pattern is only stars, files of unknown kinds are left out
    as in a folder; other patterns match by name.

    Args:
        inputs: files, folders, patterns such as ``data/**/*.jsonl``, or "-".
        out: OUT of the run that reads them.

    Raises:
        InputError: a folder or pattern has no file of rows, or matches what a run wrote next to its OUT.
        OutputError: OUT would be one of the files.
    """
    paths: list[str] = []
    skipped = []
    named = [plain(str(one)) for one in inputs]
    if twice := [one for one, count in Counter(named).items() if count > 1 and is_pipe(one)]:
        raise InputError(f"{twice[0]}: is given twice, but can be read only once")
    for one in named:
        tree = tree_of(one)
        if tree.is_file():
            paths.append(one)
            continue
        found = _Found(one, tree)
        found.take()
        if out is not None and out != "-":
            found.check_out(out)
        paths += found.in_order()
        if found.skipped:
            skipped.append(Skipped(one, tuple(sorted(found.skipped, key=os.fsencode))))
    return Files(tuple(paths), tuple(skipped))


@dataclass
class _Found:
    """The files of a folder or a pattern."""

    where: str
    tree: Tree
    files: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)

    def take(self) -> None:
        if self.tree.is_folder(self.where):
            self._take_folder(self.where)
            return
        names_a_kind = name_of(self.where).strip("*") != ""
        for path in self.tree.fitting():
            if path.endswith(CLOSED):
                self.skipped.add(path)
            elif self.tree.is_folder(path):
                self._check_not_ours(path)
                if ANY_DEPTH not in self.where.split("/"):
                    self._take_folder(path)
            else:
                self._take_file(path, known=not names_a_kind)

    def in_order(self) -> list[str]:
        if not self.files:
            what = "the folder holds no file of rows" if self.tree.is_folder(self.where) else "no file of rows matches"
            found = f"found {_named(self.skipped)}; " if self.skipped else ""
            raise InputError(f"{self.where}: {what}; {found}wanted JSON, JSON lines, CSV, TSV, Parquet or Arrow")
        return sorted(self.files, key=os.fsencode)

    def check_out(self, out: str) -> None:
        if is_address(self.where) or is_address(out):
            self._check_stored(out)
            return
        target = Path(out).absolute()
        for folder in self.folders:
            if target.resolve().is_relative_to(Path(folder).resolve()):
                raise OutputError(f"{out}: lies in the input {folder}; give -o a file outside of it")
        pattern = Path(self.where).absolute().parts
        for path in (target, *(Path(f"{target}{end}") for end in _NEXT_TO_OUT)):
            if not Path(self.where).is_dir() and fits(path.parts, pattern):
                raise OutputError(f"{out}: {path.name} would match the input {self.where!r}; give -o another place")

    def _check_stored(self, out: str) -> None:
        if not (is_address(self.where) and is_address(out)):
            return
        if any(out.startswith(f"{folder}/") for folder in self.folders):
            raise OutputError(f"{out}: lies in the input {self.where}; give -o a file outside of it")
        for path in (out, *(f"{out}{end}" for end in _NEXT_TO_OUT)):
            if not self.folders and fits(path.split("/"), self.where.split("/")):
                raise OutputError(f"{out}: {name_of(path)} would match the input {self.where!r}; give -o another place")

    def _take_folder(self, folder: str) -> None:
        self.folders.append(folder)
        for below in self.tree.below(folder):
            for at, letter in enumerate(below):
                if letter == "/":
                    self._check_not_ours(joined(folder, below[:at]))
            if below.endswith(CLOSED):
                self.skipped.add(below)
            else:
                self._take_file(joined(folder, below), known=True, below=below)

    def _take_file(self, path: str, *, known: bool, below: str | None = None) -> None:
        self._check_not_ours(path)
        name = name_of(path)
        if self._is_metadata(path):
            return
        if is_pipe(path) or (known and (name.startswith(".") or not self._is_known(path))):
            self.skipped.add(below or path)
        else:
            self.files.add(path)

    def _is_known(self, path: str) -> bool:
        """Return whether the name of a file says that it holds rows."""
        try:
            known = kind_by_name(path).kind is not None
        except InputError:
            return False
        return known and not (fnmatchcase(name_of(path), _CACHED) and self.tree.exists(beside_it(path, _STATE)))

    def _is_metadata(self, path: str) -> bool:
        """Return whether a file describes a data set and holds no rows of it."""
        name = name_of(path)
        return name in _METADATA or (name == _STATE and self.tree.exists(beside_it(path, _DATASET_INFO)))

    def _check_not_ours(self, path: str) -> None:
        """Refuse what a run wrote next to its OUT.

        Raises:
            InputError: the path is such a file.
        """
        for end in _NEXT_TO_OUT:
            out = path.removesuffix(end)
            if out != path and fnmatchcase(name_of(out), _PART) and self.tree.exists(beside_it(out, _PLAN)):
                folder = folder_of(out)
                raise InputError(
                    f"{folder}: holds the parts of a run in shards; join them first: instructmining merge {folder} "
                    "-o FILE"
                )
            if out != path and out.endswith(_OUT):
                raise InputError(
                    f"{path}: was written by a run next to {out} and holds no data; "
                    "move the run's files out of the input's folder"
                )


def _named(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    every = sorted(names, key=os.fsencode)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"
