"""Finds the demo bundle in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.metadata import version
from pathlib import Path

from instructmining.bundle import FORMAT_VERSION, MANIFEST
from instructmining.errors import BundleError, OutputError
from instructmining.writing.cache import cache_folder

_EXPORTER = "instructmining_export"
_DEMO = f"demo-{version('instructmining')}-"


def demo_place() -> Path:
    """Return the folder of the demo bundle that the installed exporter builds, whether or not it exists."""
    return cache_folder() / f"{_DEMO}{_digest(_exporter())[:8]}"


def demo_places() -> list[Path]:
    """Return all folders of this version's demo bundles, also of other exporters and of interrupted builds."""
    return list(cache_folder().glob(f"{_DEMO}*"))


def cached_demo_bundle() -> Path | None:
    """Return the demo bundle, or None where it is not built.

    Where an exporter is installed, only its own bundle counts; otherwise the newest one of this version.
    """
    try:
        places = [demo_place()] if _exporter() is not None else demo_places()
    except OutputError:  # the user has no folder for a cache
        return None
    built = [place for place in places if ".partial" not in place.name and (place / MANIFEST).is_file()]
    return max(built, key=lambda place: ((place / MANIFEST).stat().st_mtime, place.name), default=None)


def demo_folder() -> Path:
    """Return the demo bundle.

    Raises:
        BundleError: it is not built; the message names the commands that build it.
    """
    if (cached := cached_demo_bundle()) is not None:
        return cached
    raise BundleError(
        f"no bundle was given, and the demo bundle is not in {cache_folder()}; build it once with 'instructmining "
        "export --preset demo -o demo-bundle' or 'instructmining score FILE -o OUT', or give the folder of a bundle"
    )


def _exporter() -> Path | None:
    """Return the exporter's folder without importing it; None where it is not installed."""
    spec = importlib.util.find_spec(_EXPORTER)
    return Path(spec.submodule_search_locations[0]) if spec is not None and spec.submodule_search_locations else None


def _digest(exporter: Path | None) -> str:
    """Digest the exporter's code and data, so that a bundle of an older exporter is never used as the demo."""
    digest = hashlib.sha256(f"{FORMAT_VERSION}".encode())
    if exporter is not None:
        for file in sorted(exporter.rglob("*")):
            if file.suffix in {".py", ".json", ".jsonl"}:
                digest.update(file.relative_to(exporter).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()
