"""Expands folders and patterns to files of rows in one order, and reports what was left out."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from instructmining.errors import InputError, OutputError
from instructmining.reading.compression import STANDARD_INPUT, is_pipe
from instructmining.reading.file_kinds import kind_by_name
from instructmining.reading.partitions import top_of, tops_in_use
from instructmining.reading.saved_datasets import INFO, SPLITS, STATE, SavedDatasets

# What datasets' save_to_disk writes next to the rows.
_METADATA = frozenset({INFO, "dataset_infos.json", SPLITS})
_PLAN, _PART = "plan.json", "part-[0-9]*-of-[0-9]*"  # of a run in shards
# What score and select write next to OUT.
_OUT = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
_NEXT_TO_OUT = (".rejects.jsonl", ".run.json", ".selection.json", ".partial")
_NAMED = 5  # names shown in a message
_ANY_DEPTH = "**"
_LINK = "/"  # marks the name of a folder that is a link, which is not followed


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
    if twice := [one for one, count in Counter(map(str, inputs)).items() if count > 1 and is_pipe(one)]:
        raise InputError(f"{twice[0]}: is given twice, but can be read only once")
    for one in map(str, inputs):
        if one == STANDARD_INPUT or (not Path(one).is_dir() and (os.path.lexists(one) or not glob.has_magic(one))):
            paths.append(one)
            continue
        found = _Found(one)
        found.take()
        if out is not None and out != "-":
            found.check_out(out)
        files = found.in_order()
        paths += files
        partitioned += tops_in_use(files, top_of(one, is_pattern=not Path(one).is_dir()))
        if found.skipped:
            skipped.append(Skipped(one, tuple(sorted(found.skipped, key=os.fsencode))))
    return Files(tuple(paths), tuple(skipped), tuple(partitioned))


@dataclass
class _Found:
    """The files of a folder or a pattern."""

    where: str
    files: set[str] = field(default_factory=set)
    folders: list[str] = field(default_factory=list)
    skipped: set[str] = field(default_factory=set)
    saved: SavedDatasets = field(default_factory=SavedDatasets)

    def take(self) -> None:
        if Path(self.where).is_dir():
            self._take_folder(self.where)
            return
        names_a_kind = Path(self.where).name.strip("*") != ""
        for path in _fitting(self.where):
            if path.endswith(_LINK):
                self.skipped.add(path)
            elif Path(path).is_dir():
                _check_not_ours(path)
                if _ANY_DEPTH not in Path(self.where).parts:
                    self._take_folder(path)
            else:
                self._take_file(path, known=not names_a_kind)

    def in_order(self) -> list[str]:
        if not self.files:
            what = "the folder holds no file of rows" if Path(self.where).is_dir() else "no file of rows matches"
            found = f"found {_named(self.skipped)}; " if self.skipped else ""
            raise InputError(f"{self.where}: {what}; {found}wanted JSON, JSON lines, CSV, TSV, Parquet or Arrow")
        return sorted(self.files, key=lambda path: os.fsencode(self.saved.place_of(path)))

    def check_out(self, out: str) -> None:
        target = Path(out).absolute()
        for folder in self.folders:
            if target.resolve().is_relative_to(Path(folder).resolve()):
                raise OutputError(f"{out}: lies in the input {folder}; give -o a file outside of it")
        pattern = Path(self.where).absolute().parts
        for path in (target, *(Path(f"{target}{end}") for end in _NEXT_TO_OUT)):
            if not Path(self.where).is_dir() and _fits(path.parts, pattern):
                raise OutputError(f"{out}: {path.name} would match the input {self.where!r}; give -o another place")

    def _take_folder(self, folder: str) -> None:
        self.folders.append(folder)
        for parent, folders, names in os.walk(folder, onerror=_refuse):
            if (missing := self.saved.missing(parent, names, folders)) is not None:
                path = Path(parent) / missing
                raise InputError(f"{path}: No such file or folder, and datasets saved it there; copy all of {folder}")
            for name in list(folders):
                below = str(Path(parent) / name)
                _check_not_ours(below)
                if name.startswith(".") or Path(below).is_symlink():
                    folders.remove(name)
                    self.skipped.add(f"{_below(below, folder)}/")
            for name in names:
                self._take_file(str(Path(parent) / name), known=True, folder=folder)

    def _take_file(self, path: str, *, known: bool, folder: str | None = None) -> None:
        _check_not_ours(path)
        name = Path(path).name
        if _is_metadata(path):
            return
        is_left_out = known and (name.startswith(".") or not _is_known(path))
        if is_left_out or is_pipe(path) or not self.saved.holds(path):
            self.skipped.add(_below(path, folder) if folder is not None else path)
        else:
            self.files.add(path)


def _is_known(path: str) -> bool:
    """Return whether the name of a file says that it holds rows."""
    try:
        return kind_by_name(path).kind is not None
    except InputError:
        return False


def _is_metadata(path: str) -> bool:
    """Return whether a file describes a data set and holds no rows of it."""
    name = Path(path).name
    return name in _METADATA or (name == STATE and Path(path).with_name(INFO).exists())


def _check_not_ours(path: str) -> None:
    """Refuse what a run wrote next to its OUT.

    Raises:
        InputError: the path is such a file.
    """
    for end in _NEXT_TO_OUT:
        out = path.removesuffix(end)
        if out != path and fnmatchcase(Path(out).name, _PART) and Path(out).with_name(_PLAN).exists():
            folder = Path(out).parent
            raise InputError(
                f"{folder}: holds the parts of a run in shards; join them first: instructmining merge {folder} -o FILE"
            )
        if out != path and out.endswith(_OUT):
            raise InputError(
                f"{path}: was written by a run next to {out} and holds no data; "
                "move the run's files out of the input's folder"
            )


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename}: {error.strerror}") from error


def _below(path: str, folder: str) -> str:
    return str(Path(path).relative_to(folder))


def _named(names: Iterable[str]) -> str:
    """Return the first few names and how many more there are."""
    every = sorted(names, key=os.fsencode)
    more = f" and {len(every) - _NAMED:,} more" if len(every) > _NAMED else ""
    return f"{', '.join(every[:_NAMED])}{more}"


def _fitting(pattern: str) -> Iterator[str]:
    """Yield the paths that match a pattern; links to folders below its ``**``, which may lead in circles, end in /."""
    parts = pattern.split("/")
    if _ANY_DEPTH not in parts:
        yield from glob.iglob(pattern)  # noqa: PTH207 - Path.glob would change the form of the path
        return
    at = parts.index(_ANY_DEPTH)
    above, below = "/".join(parts[:at]), tuple(part for part in parts[at:] if part)
    if at:
        above = above or "/"
    for top in glob.glob(above) if glob.has_magic(above) else [above]:  # noqa: PTH207
        for path in _walked(top, hidden=any(part.startswith(".") for part in below)):
            if path.endswith(_LINK) or _fits(path.split("/"), below):
                yield os.path.join(top, path)  # noqa: PTH118 - keeps the form of the path


def _walked(top: str, *, hidden: bool) -> Iterator[str]:
    """Yield what a folder holds, recursively, relative to it."""
    if not Path(top).is_dir():
        return
    for parent, folders, names in os.walk(top or os.curdir, onerror=_refuse):
        if not hidden:
            folders[:] = [name for name in folders if not name.startswith(".")]
        for name in [*folders, *names]:
            path = Path(parent) / name
            below = str(path.relative_to(top))
            yield f"{below}{_LINK}" if name in folders and path.is_symlink() else below


def _fits(parts: Sequence[str], pattern: Sequence[str]) -> bool:
    """Return whether the parts of a path match those of a pattern; hidden names match only a leading dot."""
    if not pattern:
        return not parts
    if pattern[0] == _ANY_DEPTH:
        shown = next((number for number, part in enumerate(parts) if part.startswith(".")), len(parts))
        return any(_fits(parts[begin:], pattern[1:]) for begin in range(shown + 1))
    return (
        bool(parts)
        and fnmatchcase(parts[0], pattern[0])
        and (not parts[0].startswith(".") or pattern[0].startswith("."))
        and _fits(parts[1:], pattern[1:])
    )
