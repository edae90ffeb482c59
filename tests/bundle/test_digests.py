"""A file of a bundle is read whole once for each state of it."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import altered_bundle
import pytest

from instructmining.bundle import Bundle, digests
from instructmining.bundle.digests import Digests
from instructmining.errors import BundleError

DATA = "perplexity/model.onnx.data"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    path = altered_bundle.copy(small_bundle, tmp_path)
    time.sleep(2 * digests._SETTLED_S)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were read whole."""
    names: list[str] = []
    original = hashlib.file_digest

    def counting(stream: object, kind: str) -> object:
        names.append(Path(stream.name).name)  # type: ignore[attr-defined]
        return original(stream, kind)  # type: ignore[arg-type, type-var]

    monkeypatch.setattr(hashlib, "file_digest", counting)
    return names


def test_a_bundle_that_did_not_change_is_read_once(copy: Path, read: list[str], tmp_path: Path) -> None:
    bundle = Bundle.open(copy)
    assert len(read) == len(bundle.files)
    (tmp_path / "link").symlink_to(copy)
    for path in (copy, tmp_path / "link"):
        Bundle.open(path)
    assert len(read) == len(bundle.files)
    bundle.verify()
    assert len(read) == 2 * len(bundle.files)


def changed_in_place(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def with_the_time_of_before(file: Path) -> None:
    before = file.stat()
    changed_in_place(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def another_put_in_its_place(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(file.read_bytes())
    with_the_time_of_before(other)
    os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
    other.replace(file)


@pytest.mark.parametrize("change", [changed_in_place, with_the_time_of_before, another_put_in_its_place])
def test_a_changed_byte_is_found_though_the_file_was_read_before(
    copy: Path, read: list[str], change: Callable[[Path], None]
) -> None:
    Bundle.open(copy)
    change(copy / DATA)
    read.clear()
    with pytest.raises(BundleError, match=rf"{DATA}: is not the file that was exported \(sha256"):
        Bundle.open(copy)
    assert read == ["model.onnx.data"]


def test_a_file_that_has_just_been_written_is_read_again(tmp_path: Path, read: list[str]) -> None:
    """It may change once more within one tick of the file system's clock."""
    (tmp_path / "file").write_bytes(b"content")
    for _ in range(2):
        found = Digests(tmp_path)
        assert found.sha256(tmp_path / "file") == hashlib.sha256(b"content").hexdigest()
        found.store()
    assert read == ["file", "file"]


def test_a_cache_that_cannot_be_written_costs_only_that_files_are_read_again(
    copy: Path, cache: Path, read: list[str]
) -> None:
    cache.write_text("no folder")
    for times in (1, 2):
        bundle = Bundle.open(copy)
        assert len(read) == times * len(bundle.files)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"x": []}', b"\xff"])
def test_a_damaged_memory_is_none(copy: Path, cache: Path, read: list[str], content: bytes) -> None:
    cache.mkdir()
    (cache / "digests.json").write_bytes(content)
    for _ in range(2):
        bundle = Bundle.open(copy)
    assert len(read) == len(bundle.files)


def test_an_entry_of_another_shape_is_none(copy: Path, cache: Path, read: list[str]) -> None:
    cache.mkdir()
    place = os.path.realpath(copy)
    (cache / "digests.json").write_text(f'{{"{place}": {{"{DATA}": 7}}, "{place}/gone": {{"x": [1]}}}}')
    bundle = Bundle.open(copy)
    assert len(read) == len(bundle.files)
    assert "gone" not in (cache / "digests.json").read_text()


def test_a_bundle_whose_folder_is_not_utf8_is_opened(copy: Path, cache: Path) -> None:
    other = Path(os.fsdecode(bytes(copy.with_name("b")) + b"\xff"))
    copy.rename(other)
    assert Bundle.open(other).roles
    assert not cache.exists()
