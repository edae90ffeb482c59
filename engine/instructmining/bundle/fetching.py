"""Copies a bundle from a store to the cache of this machine, since a session maps its graph."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from instructmining.errors import BundleError, OutputError
from instructmining.stores.addresses import joined, plain
from instructmining.stores.transfers import download
from instructmining.writing.atomic import beside, claimed, sync_folder, write_whole
from instructmining.writing.cache import cache_folder

MANIFEST = "manifest.json"


def check_inside(folder: str | Path, name: str) -> None:
    """Check that the name of a file leads into its bundle.

    Raises:
        BundleError: it leads out of it.
    """
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or ":" in name:
        raise BundleError(f"{folder}: the manifest names {name!r}, which is outside of the bundle")


def fetched(address: str, manifest: bytes, files: Mapping[str, Mapping[str, object]]) -> Path:
    """Copy what the cache has not of a bundle; returns its folder there, whose digests are still to be checked.

    Args:
        address: of the bundle's folder.
        manifest: its content.
        files: name in the folder → entry of the manifest.

    Raises:
        BundleError: a file cannot be fetched, or lies outside of the bundle.
        OutputError: the cache cannot be written.
    """
    folder = cache_folder() / "bundles" / hashlib.sha256(manifest).hexdigest()[:16]
    with claimed(folder, on_wait=lambda: None):
        try:
            for name, entry in files.items():
                check_inside(address, name)
                target = folder / name
                if target.is_file() and target.stat().st_size == entry.get("bytes"):
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                partial = beside(target)
                download(joined(plain(address), name), partial)
                partial.replace(target)
                sync_folder(target.parent)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EROFS, errno.EDQUOT}:
                raise OutputError(f"{folder}: {error.strerror}") from error
            raise BundleError(f"{joined(address, name)}: {error.strerror}") from error
        write_whole(folder / MANIFEST, manifest)
    return folder
