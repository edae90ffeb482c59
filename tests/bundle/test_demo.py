from __future__ import annotations

import hashlib
import importlib.util
import os
from importlib.metadata import version
from pathlib import Path

import platformdirs
import pytest

from instructmining import __version__
from instructmining.bundle.demo import cached_demo_bundle, demo_folder, demo_place
from instructmining.errors import BundleError, OutputError
from instructmining.writing import cache as cache_module
from instructmining.writing.cache import cache_folder
from instructmining_export.demo.recipe import Recipe


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path))
    return tmp_path


def built(folder: Path, *, at: int = 0) -> Path:
    folder.mkdir()
    manifest = folder / "manifest.json"
    manifest.write_text("{}")
    os.utime(manifest, (at, at))
    return folder


def without_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)


def test_the_environment_names_the_folder_and_else_the_system(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("INSTRUCTMINING_CACHE")
    assert cache_folder() == platformdirs.user_cache_path("instructmining")


def test_the_demos_folder_is_named_by_the_version_and_the_recipes_manifest(cache: Path) -> None:
    digest = hashlib.sha256(Recipe.shipped().manifest.read_bytes())
    assert demo_place() == cache / f"demo-{__version__}-{digest.hexdigest()[:8]}"


def test_beside_an_exporter_only_the_bundle_of_its_recipe_counts(cache: Path) -> None:
    built(cache / f"demo-{__version__}-00000000")
    assert cached_demo_bundle() is None
    demo_place().mkdir()  # without a manifest
    assert cached_demo_bundle() is None
    demo_place().rmdir()
    built(demo_place())
    assert cached_demo_bundle() == demo_place()


def test_without_an_exporter_the_newest_whole_bundle_of_this_version_counts(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_exporter(monkeypatch)
    assert cached_demo_bundle() is None
    built(cache / f"demo-{__version__}-22222222", at=1)
    newest = built(cache / f"demo-{__version__}-11111111", at=2)
    built(cache / f"demo-{__version__}-33333333.partial-x", at=3)
    built(cache / "demo-0.0.9-44444444", at=4)
    (cache / f"demo-{__version__}-55555555").mkdir()
    assert cached_demo_bundle() == demo_folder() == newest


def test_where_there_is_none_the_message_says_how_to_write_it(cache: Path) -> None:
    with pytest.raises(BundleError, match=f"not in {cache}; write it once with 'instructmining export --preset demo"):
        demo_folder()


def test_the_package_has_the_version_of_its_distribution() -> None:
    assert version("instructmining") == __version__


def test_a_user_without_a_home_has_no_cache_and_is_told_so_where_one_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(_: str) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("INSTRUCTMINING_CACHE")
    monkeypatch.setattr(cache_module, "user_cache_path", no_home)
    cache_module.keep("a.json", b"1")
    assert cache_module.kept("a.json") is None
    assert cached_demo_bundle() is None
    with pytest.raises(OutputError, match="no home folder to keep a cache in; name a folder for it"):
        demo_folder()
