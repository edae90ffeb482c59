"""Expands folders and patterns to files of rows in one order, and reports what was left out."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from instructmining.errors import InputError, OutputError
from instructmining.reading.compression import is_pipe
from instructmining.reading.file_kinds import kind_by_name
from instructmining.reading.partitions import top_of, tops_in_use
from instructmining.reading.patterns import ANY_DEPTH, fits
from instructmining.reading.saved_datasets import INFO, SPLITS, STATE, SavedDatasets
from instructmining.reading.trees import CLOSED, Tree, beside_it, tree_of
from instructmining.stores.addresses import folder_of, is_address, joined, name_of, plain
from instructmining.stores.files import look_at

# What datasets' save_to_disk writes next to the rows.
_METADATA = frozenset({INFO, "dataset_infos.json", SPLITS})
_PLAN, _PART = "plan.json", "part-[0-9]*-of-[0-9]*"  # of a run in shards
# What score and select write next to OUT.
_OUT = (
    *(".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"),
    *(".csv", ".csv.gz", ".csv.zst", ".tsv", ".tsv.gz", ".tsv.zst"),
)
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
    partitioned: tuple[str, ...] = ()  # folders below which folders give columns, where they give any


def expand(inputs: Sequence[str | Path], *, out: str | None = None) -> Files:
    """Expand each folder and pattern of an input to its files of rows, sorted by the bytes of their paths.

    Of what ``datasets`` saved to disk, the files and splits that it names are read, in its order.

    Folders are searched recursively, and so is what a pattern's ``**`` matches; links to folders are not followed
    there, and pipes are not waited for. Where the name in a pattern is only stars, files of unknown kinds are left out
    as in a folder; other patterns match by name.

    Args:
        inputs: files, folders, patterns such as ``data/**/*.jsonl``, or "-".
        out: OUT of the run that reads them.

    Raises:
        InputError: a folder or pattern has no file of rows, or matches what a run wrote next to its OUT; or a folder
            lacks a file that ``datasets`` saved there.
        OutputError: OUT would be one of the files.
    """
    paths: list[str] = []
    skipped = []
    partitioned: list[str] = []
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
        files = found.in_order()
        paths += files
        partitioned += tops_in_use(files, top_of(one, is_pattern=not tree.is_folder(one)))
        if found.skipped:
            skipped.append(Skipped(one, tuple(sorted(found.skipped, key=os.fsencode))))
    try:
        look_at(paths)
    except OSError as error:
        raise InputError(f"{inputs[0]}: {error.strerror}") from error
    return Files(tuple(paths), tuple(skipped), tuple(partitioned))


@dataclass
class _Found:
    """The files of a folder or a pattern."""

    where: str
    tree: Tree
    files: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    saved: SavedDatasets = field(default_factory=SavedDatasets)

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
        return sorted(self.files, key=lambda path: os.fsencode(self.saved.place_of(path)))

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
        below_it = list(self.tree.below(folder))
        self._check_saved(folder, below_it)
        for below in below_it:
            for at, letter in enumerate(below):
                if letter == "/":
                    self._check_not_ours(joined(folder, below[:at]))
            if below.endswith(CLOSED):
                self.skipped.add(below)
            else:
                self._take_file(joined(folder, below), known=True, below=below)

    def _check_saved(self, folder: str, below_it: Sequence[str]) -> None:
        """Check that what ``datasets`` saved in a folder and those below it is all there.

        Raises:
            InputError: a file or a split is not.
        """
        if not any(below.endswith((STATE, SPLITS)) for below in below_it):
            return
        files, folders = defaultdict[str, list[str]](list), defaultdict[str, set[str]](set)
        for below in below_it:
            *parents, name = below.split("/")
            if name:
                files["/".join(parents)].append(name)
            for depth, parent in enumerate(parents):
                folders["/".join(parents[:depth])].add(parent)
        for inside, names in files.items():
            where = joined(folder, inside) if inside else folder
            if (missing := self.saved.missing(where, names, sorted(folders[inside]))) is not None:
                lacks = f"{joined(where, missing)}: No such file or folder"
                raise InputError(f"{lacks}, and datasets saved it there; copy all of {folder}")

    def _take_file(self, path: str, *, known: bool, below: str | None = None) -> None:
        self._check_not_ours(path)
        name = name_of(path)
        if self._is_metadata(path):
            return
        is_left_out = known and (name.startswith(".") or not _is_known(path))
        if is_left_out or is_pipe(path) or not self.saved.holds(path):
            self.skipped.add(below or path)
        else:
            self.files.add(path)

    def _is_metadata(self, path: str) -> bool:
        """Return whether a file describes a data set and holds no rows of it."""
        name = name_of(path)
        return name in _METADATA or (name == STATE and self.tree.exists(beside_it(path, INFO)))

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


def _is_known(path: str) -> bool:
    """Return whether the name of a file says that it holds rows."""
    try:
        return kind_by_name(path).kind is not None
    except InputError:
        return False


def _named(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    every = sorted(names, key=os.fsencode)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"
