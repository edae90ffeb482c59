"""Copies of a bundle with something changed, for the tests of what must be noticed."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]


def copy(bundle: Path, into: Path) -> Path:
    """A copy of the bundle in a new folder."""
    path = into / "altered"
    shutil.copytree(bundle, path)
    return path


def edit(path: Path, change: Callable[[Manifest], object]) -> Path:
    """Change the manifest in place; it is the one file that nothing holds the digest of."""
    file = path / "manifest.json"
    manifest = json.loads(file.read_bytes())
    change(manifest)
    file.write_text(json.dumps(manifest), encoding="utf-8")
    return path


def rewrite(path: Path, name: str, content: bytes) -> Path:
    """Replace a file, its size and its digest with it: a change that only the numbers can show."""
    (path / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return edit(path, lambda manifest: manifest["files"].update({name: entry}))
