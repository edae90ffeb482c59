"""Writes a bundle: roles into a folder beside it, the manifest last, then one rename."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instructmining import __version__
from instructmining.bundle import FORMAT_VERSION, MANIFEST, Bundle, RoleName, foreign_files
from instructmining.bundle.digests import sha256_of
from instructmining.errors import BundleError, ExportError, OutputError
from instructmining.writing.atomic import beside, claimed, put_folder

_COUNT_WITH: tuple[RoleName, ...] = (
    "perplexity",
    "reward",
)  # the first that is there counts lengths, if nobody says otherwise


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """What the manifest says of a role; paths are relative to the bundle."""

    graph: str
    tokenizer: str
    template: dict[str, Any]
    max_length: int
    source: dict[str, str]
    parity: dict[str, object]
    references: str
    precision: str = "fp32"
    bos: str | None = None
    multiply_adds: dict[str, int] = field(default_factory=dict)  # of the graph, by GraphBuilder's units
    details: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class BundleWriter:
    """A bundle in the making; used as a context manager, which removes it unless it was finished.

    Where the bundle exists, its other roles stay: their files are linked or copied into the new one.
    """

    path: Path
    writes: frozenset[RoleName]  # the roles that will be written
    overwrite: bool = False  # roles of the bundle may be replaced
    whole: bool = False  # nothing of an existing bundle stays
    roles: dict[RoleName, RoleEntry] = field(default_factory=dict)
    folder: Path = field(init=False)
    _stack: ExitStack = field(init=False)
    _kept: dict[str, Any] = field(default_factory=dict)  # the manifest of the bundle that was there

    def __enter__(self) -> Self:
        """Make the folder that is written to, with what stays of the bundle that is there.

        Raises:
            ExportError: the path is taken by something else, or a role would be replaced without ``overwrite``.
        """
        with ExitStack() as stack:
            stack.enter_context(_claimed(self.path))
            self.check()
            self.folder = stack.enter_context(_making(self.path))
            for name in self._kept_files():
                _link(self.path / name, self.file(name))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is half written."""
        self._stack.close()

    def file(self, name: str) -> Path:
        """Where to write a file of the bundle; its folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def file_of(self, role: RoleName, name: str) -> Path:
        """Where to write a file of a role: in its folder, or in a numbered one where roles that stay use that."""
        taken = {Path(kept).parts[0] for kept in self._kept_files()}
        folder = next(folder for number in range(1, 9) if (folder := _numbered(role, number)) not in taken)
        return self.file(f"{folder}/{name}")

    def name_of(self, file: Path) -> str:
        """The manifest's name of a file."""
        return file.relative_to(self.folder).as_posix()

    def finish(
        self,
        *,
        name: str | None = None,
        note: str | None = None,
        default_rule: str | None = None,
        length_tokenizer: RoleName | None = None,
    ) -> None:
        """Write the manifest with the digest of every file, and put the bundle in its place.

        What is not given stays as the existing bundle has it. Lengths are counted with the tokenizer of the role
        perplexity, without one with the reward model's.
        """
        roles: dict[RoleName, Any] = {
            **self._kept_roles(),
            **{role: entry.as_json() for role, entry in self.roles.items()},
        }
        counted = length_tokenizer or next(role for role in [*_COUNT_WITH, *roles] if role in roles)
        files = {
            self.name_of(file): {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
            for file in sorted(self.folder.rglob("*"))
            if file.is_file()
        }
        manifest = {
            "format": FORMAT_VERSION,
            "name": name or self._kept.get("name", self.path.name),
            "note": self._kept.get("note", "") if note is None else note,
            "default_rule": default_rule or self._kept.get("default_rule"),
            "length_tokenizer": counted,
            "written_with": {
                "instructmining": __version__,
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "transformers", "onnx-ir")},
            },
            "roles": roles,
            "files": files,
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        _put(self.folder, self.path)

    def check(self) -> None:
        """Look at what is there already; nothing is written.

        Raises:
            ExportError: the path is taken by something else, or a role would be replaced without ``overwrite``.
        """
        if not self.path.exists():
            return
        if self.whole and not self.overwrite:
            raise ExportError(f"{self.path}: exists; give --overwrite to replace it")
        if self.path.is_dir() and not any(self.path.iterdir()):
            return
        _check_all_of_a_bundle(self.path)
        if self.whole:
            return
        try:
            Bundle.open(self.path)
        except BundleError as error:
            raise ExportError(f"{self.path}: exists, and no role can be added to it: {error}") from error
        self._kept = json.loads((self.path / MANIFEST).read_bytes())
        there = [role for role in self._kept["roles"] if role in self.writes]
        if there and not self.overwrite:
            raise ExportError(f"{self.path}: has the role {there[0]} already; give --overwrite to replace it")

    def _kept_roles(self) -> dict[RoleName, Any]:
        return {role: entry for role, entry in self._kept.get("roles", {}).items() if role not in self.writes}

    def _kept_files(self) -> list[str]:
        """Files of the roles that stay; a graph comes with the data beside it."""
        named = {entry[key] for entry in self._kept_roles().values() for key in ("graph", "tokenizer", "references")}
        return [file for file in self._kept.get("files", {}) if file in named or file.removesuffix(".data") in named]


def copy_bundle(bundle: Path, out: Path, *, overwrite: bool = False) -> None:
    """A copy of a bundle in a place of its own.

    Raises:
        ExportError: the place is taken, by a bundle without ``overwrite`` or by something else, or cannot be written.
    """
    with _claimed(out):
        if out.exists():
            if not overwrite:
                raise ExportError(f"{out}: exists; give --overwrite to replace it")
            if not (out.is_dir() and not any(out.iterdir())):
                _check_all_of_a_bundle(out)
        with _making(out) as folder:
            try:
                shutil.copytree(bundle, folder, dirs_exist_ok=True)
            except OSError as error:
                raise ExportError(f"{out}: {error}") from error
            _put(folder, out)


def _check_all_of_a_bundle(path: Path) -> None:
    """Prove that nothing is lost where a bundle takes the place of what is there.

    Raises:
        ExportError: it is no bundle, or holds what is not of it.
    """
    foreign = foreign_files(path)
    if foreign is None:
        raise ExportError(f"{path}: exists and is not a bundle; choose another folder")
    if foreign:
        raise ExportError(f"{path}: holds {foreign[0]}, which is not of the bundle; move it, or choose another folder")


@contextmanager
def _claimed(path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(claimed(path))
        except OutputError as error:
            raise ExportError(str(error)) from error
        yield


@contextmanager
def _making(path: Path) -> Iterator[Path]:
    """A new folder beside a path, removed at the end unless it was put in its place."""
    folder = beside(path)
    try:
        folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _put(folder: Path, path: Path) -> None:
    try:
        put_folder(folder, path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror}") from error


def _numbered(role: str, number: int) -> str:
    return role if number == 1 else f"{role}-{number}"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(source, target)
