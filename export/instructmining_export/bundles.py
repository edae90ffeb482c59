"""Writes a bundle: roles into a folder beside it, the manifest last, then one rename."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import tempfile
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instructmining import __version__
from instructmining.bundle import FORMAT_VERSION, MANIFEST, RoleName
from instructmining.errors import ExportError
from instructmining.references import Agreement

Pieces = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RoleEntry:
    """What the manifest says of a role; paths are relative to the bundle."""

    graph: str
    tokenizer: str
    template: dict[str, Any]
    max_tokens: int
    source: dict[str, str]
    parity: Agreement
    references: str
    precision: str = "fp32"

    def as_json(self) -> dict[str, Any]:
        """The entry as JSON."""
        entry = {name: getattr(self, name) for name in ("graph", "tokenizer", "template", "max_tokens", "precision")}
        return entry | {"source": self.source, "parity": self.parity.as_json(), "references": self.references}


@dataclass(slots=True)
class BundleWriter:
    """A bundle in the making; used as a context manager, which removes it unless it was finished."""

    path: Path
    overwrite: bool = False
    roles: dict[RoleName, RoleEntry] = field(default_factory=dict)
    folder: Path = field(init=False)

    def __enter__(self) -> Self:
        """Make the folder that is written to.

        Raises:
            ExportError: the bundle exists and may not be replaced.
        """
        if self.path.exists() and not self.overwrite:
            raise ExportError(f"{self.path}: exists; give --overwrite to replace it")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # A name of its own: two processes may build the same bundle at once.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.path.name}.partial-", dir=self.path.parent))
        self.folder.chmod(0o755)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove what is half written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def file(self, name: str) -> Path:
        """Where to write a file of the bundle; its folder is made."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, *, name: str, note: str, default_rule: str | None, length_tokenizer: RoleName) -> None:
        """Write the manifest with the digest of every file, and put the bundle in its place."""
        files = {
            file.relative_to(self.folder).as_posix(): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted(self.folder.rglob("*"))
            if file.is_file()
        }
        manifest = {
            "format": FORMAT_VERSION,
            "name": name,
            "note": note,
            "default_rule": default_rule,
            "length_tokenizer": length_tokenizer,
            "written_with": {
                "instructmining": __version__,
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "transformers", "onnx-ir")},
            },
            "roles": {role: entry.as_json() for role, entry in self.roles.items()},
            "files": files,
        }
        (self.folder / MANIFEST).write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        if self.path.exists():
            shutil.rmtree(self.path)
        self.folder.rename(self.path)


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
