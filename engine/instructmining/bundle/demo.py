"""Finds the demo bundle in the cache."""

from __future__ import annotations

import hashlib
import importlib.util
from importlib.metadata import version
from pathlib import Path

from instructmining.bundle import MANIFEST
from instructmining.errors import BundleError, OutputError
from instructmining.writing.cache import cache_folder

_EXPORTER = "instructmining_export"
_DEMO = f"demo-{version('instructmining')}-"


def demo_place() -> Path:
    """Return the folder of the demo bundle that the installed package writes, whether or not it exists."""
    recipe = _recipe()
    digest = hashlib.sha256(recipe.read_bytes() if recipe is not None else b"").hexdigest()
    return cache_folder() / f"{_DEMO}{digest[:8]}"


def demo_places() -> list[Path]:
    """Return all folders of this version's demo bundles, also of other recipes and of interrupted runs."""
    return list(cache_folder().glob(f"{_DEMO}*"))


def cached_demo_bundle() -> Path | None:
    """Return the demo bundle, or None where it is not written.

    Where the exporter is installed, only the bundle of its recipe counts; otherwise the newest one of this version.
    """
    try:
        places = [demo_place()] if _recipe() is not None else demo_places()
    except OutputError:  # the user has no folder for a cache
        return None
    built = [place for place in places if ".partial" not in place.name and (place / MANIFEST).is_file()]
    return max(built, key=lambda place: ((place / MANIFEST).stat().st_mtime, place.name), default=None)


def demo_folder() -> Path:
    """Return the demo bundle.

    Raises:
        BundleError: it is not in the cache; the message names the commands that write it.
    """
    if (cached := cached_demo_bundle()) is not None:
        return cached
    raise BundleError(
        f"no bundle was given, and the demo bundle is not in {cache_folder()}; write it once with 'instructmining "
        "export --preset demo -o demo-bundle' or 'instructmining score FILE -o OUT', or give the folder of a bundle"
    )


def _recipe() -> Path | None:
    """Return the manifest that the demo bundle is written to, of all its files; None where no exporter is installed."""
    spec = importlib.util.find_spec(_EXPORTER)
    places = spec.submodule_search_locations if spec is not None else None
    file = Path(places[0]) / "demo" / "recipe" / MANIFEST if places else None
    return file if file is not None and file.is_file() else None
