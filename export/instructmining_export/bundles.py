"""Writes a bundle: roles into a folder beside the target, then the manifest, then one rename."""

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

# By default the first of these that the bundle has counts lengths.
_COUNT_WITH: tuple[RoleName, ...] = ("perplexity", "reward")


@dataclass(slots=True)
class RoleEntry:
    """A role's entry in the manifest; paths are relative to the bundle."""

    graph: str
    tokenizer: str
    template: dict[str, Any]
    max_length: int
    source: dict[str, str]
    parity: dict[str, object]
    references: str
    cuda_graph: str | None = None  # where CUDA wants other operators than a CPU
    precision: str = "fp32"
    bos: str | None = None
    multiply_adds: dict[str, int] = field(default_factory=dict)  # of the graph, by GraphBuilder's units
    details: dict[str, object] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class BundleWriter:
    """Writes a bundle; a context manager that removes the new files unless :meth:`put` was called.

    Other roles of an existing bundle stay: their files are linked or copied into the new one.
    """

    path: Path
    writes: frozenset[RoleName]  # roles to write
    overwrite: bool = False  # roles of an existing bundle may be replaced
    whole: bool = False  # replaces an existing bundle whole, with all its roles
    roles: dict[RoleName, RoleEntry] = field(default_factory=dict)
    folder: Path = field(init=False)
    _stack: ExitStack = field(init=False)
    _kept: dict[str, Any] = field(default_factory=dict)  # manifest of the existing bundle

    def __enter__(self) -> Self:
        """Create the folder that is written to, with the files of the roles that stay.

        Raises:
            ExportError: the path holds something other than a bundle, or a role would be replaced without
                ``overwrite``.
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
        """Remove the new files unless the bundle is finished."""
        self._stack.close()

    def file(self, name: str) -> Path:
        """Return where to write a file of the bundle; creates its folder."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def file_of(self, role: RoleName, name: str) -> Path:
        """Return where to write a file of a role: in its folder, or a numbered one if a role that stays uses that."""
        taken = {Path(kept).parts[0] for kept in self._kept_files()}
        folder = next(folder for number in range(1, 9) if (folder := _numbered(role, number)) not in taken)
        return self.file(f"{folder}/{name}")

    def name_of(self, file: Path) -> str:
        """Return a file's name in the manifest."""
        return file.relative_to(self.folder).as_posix()

    def finish(
        self,
        *,
        name: str | None = None,
        note: str | None = None,
        default_rule: str | None = None,
        length_tokenizer: RoleName | None = None,
    ) -> None:
        """Write the manifest with the digest of every file, and move the bundle to its path.

        Arguments that are None keep the existing bundle's values, except that lengths are counted with the tokenizer of
        the role perplexity, or of reward where there is none.
        """
        roles: dict[RoleName, Any] = {
            **self._kept_roles(),
            **{role: entry.as_json() for role, entry in self.roles.items()},
        }
        counting_role = length_tokenizer or next(role for role in [*_COUNT_WITH, *roles] if role in roles)
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
            "length_tokenizer": counting_role,
            "written_with": {
                "instructmining": __version__,
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "transformers", "onnx-ir")},
            },
            "roles": roles,
            "files": files,
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self.put()

    def put(self) -> None:
        """Move the bundle, whose manifest is written, to its path."""
        _put(self.folder, self.path)

    def check(self) -> None:
        """Check that the bundle can be written; writes nothing.

        Raises:
            ExportError: the path holds something other than a bundle, or a role would be replaced without
                ``overwrite``.
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
        replaced = [role for role in self._kept["roles"] if role in self.writes]
        if replaced and not self.overwrite:
            raise ExportError(f"{self.path}: has the role {replaced[0]} already; give --overwrite to replace it")

    def _kept_roles(self) -> dict[RoleName, Any]:
        return {role: entry for role, entry in self._kept.get("roles", {}).items() if role not in self.writes}

    def _kept_files(self) -> list[str]:
        """Return the files of the roles that stay, including the weights beside each graph."""
        keys = ("graph", "cuda_graph", "tokenizer", "references")
        named = {entry.get(key) for entry in self._kept_roles().values() for key in keys}
        return [file for file in self._kept.get("files", {}) if file in named or file.removesuffix(".data") in named]


def copy_bundle(bundle: Path, out: Path, *, overwrite: bool = False) -> None:
    """Copy a bundle to another path.

    Raises:
        ExportError: the path holds a bundle and ``overwrite`` is off, holds something else, or cannot be written.
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
    """Refuse to replace anything but a bundle.

    Raises:
        ExportError: the path holds no bundle, or files that do not belong to it.
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
    """Create a folder beside a path; removes it at the end unless it was moved."""
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
