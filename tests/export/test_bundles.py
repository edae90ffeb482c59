from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from instructmining import Bundle
from instructmining.bundle import RoleName
from instructmining.errors import ExportError
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter, RoleEntry, copy_bundle

CONTENT = {"graph": "model.onnx", "tokenizer": "tokenizer.json", "references": "references.json"}


def entry(folder: str) -> RoleEntry:
    return RoleEntry(
        **{key: f"{folder}/{name}" for key, name in CONTENT.items()},
        template=templates.chatml(),
        max_length=64,
        source={"id": f"tests/{folder}"},
        parity={"rows": 1},
    )


def write(
    path: Path,
    *roles: RoleName,
    content: str = "first",
    overwrite: bool = False,
    whole: bool = False,
    shared: str | None = None,
    fails: bool = False,
) -> Path:
    """A bundle whose files are texts; ``shared`` is the role that takes the first one's graph."""
    with BundleWriter(path, frozenset(roles), overwrite, whole) as bundle:
        for role in roles:
            folder = bundle.file_of(role, "model.onnx").parent.name
            for name in CONTENT.values():
                bundle.file_of(role, name).write_text(content, encoding="utf-8")
            bundle.file_of(role, "model.onnx.data").write_text(f"data of {content}", encoding="utf-8")
            bundle.roles[role] = entry(bundle.roles[roles[0]].graph.split("/")[0] if role == shared else folder)
        if fails:
            raise ExportError("the gate says no")
        bundle.finish(default_rule="paper-v1")
    return path


def manifest(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((path / "manifest.json").read_bytes())
    return content


def content_of(path: Path, role: RoleName) -> str:
    return Bundle.open(path).roles[role].graph.read_text(encoding="utf-8")


def test_a_role_is_added_and_the_others_stay_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "reward", content="first")
    before = manifest(path)
    write(path, "embedding", content="second")
    after = manifest(path)
    assert after["roles"]["reward"] == before["roles"]["reward"]
    assert {name: after["files"][name] for name in before["files"]} == before["files"]
    assert (content_of(path, "reward"), content_of(path, "embedding")) == ("first", "second")
    assert after["default_rule"] == "paper-v1"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]
    Bundle.open(path).verify()


def test_a_role_that_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "reward", "embedding", content="first")
    with pytest.raises(ExportError, match="has the role embedding already; give --overwrite to replace it"):
        write(path, "embedding", content="second")
    assert content_of(path, "embedding") == "first"
    write(path, "embedding", content="third", overwrite=True)
    assert (content_of(path, "reward"), content_of(path, "embedding")) == ("first", "third")
    Bundle.open(path).verify()


def test_a_role_that_shares_the_replaced_ones_graph_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "perplexity", "reward", content="first", shared="reward")
    write(path, "perplexity", content="second", overwrite=True)
    bundle = Bundle.open(path)
    assert (content_of(path, "reward"), content_of(path, "perplexity")) == ("first", "second")
    assert bundle.roles["perplexity"].graph.parent.name == "perplexity-2"
    assert (path / "perplexity/model.onnx.data").read_text(encoding="utf-8") == "data of first"
    bundle.verify()


def test_files_of_a_replaced_role_do_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "reward", content="first")
    write(path, "reward", content="second", overwrite=True)
    assert {file.read_text(encoding="utf-8") for file in path.glob("reward/*")} == {"second", "data of second"}


def test_a_whole_bundle_takes_nothing_over(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "reward")
    with pytest.raises(ExportError, match="bundle: exists; give --overwrite to replace it"):
        write(path, "embedding", whole=True)
    write(path, "embedding", whole=True, overwrite=True)
    assert set(Bundle.open(path).roles) == {"embedding"}


def test_a_bundle_stays_as_it_was_when_the_export_fails(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "reward", content="first")
    before = {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    for roles in (("reward",), ("embedding",)):
        with pytest.raises(ExportError, match="the gate says no"):
            write(path, *roles, content="second", overwrite=True, fails=True)  # type: ignore[arg-type]
    assert {file.name: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


@pytest.mark.parametrize("there", ["a file", "a folder"])
def test_what_is_no_bundle_is_not_touched(tmp_path: Path, there: str) -> None:
    path = tmp_path / "bundle"
    if there == "a file":
        path.write_text("mine", encoding="utf-8")
    else:
        path.mkdir()
        (path / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match="exists and is not a bundle; choose another folder"):
        write(path, "reward", overwrite=True)
    assert (path if path.is_file() else path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_an_empty_folder_becomes_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    write(tmp_path / "bundle", "reward")
    assert set(Bundle.open(tmp_path / "bundle").roles) == {"reward"}


def test_lengths_are_counted_by_the_perplexity_role_and_else_by_the_reward_model(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    write(path, "embedding")
    assert Bundle.open(path).length_tokenizer == "embedding"
    write(path, "reward")
    assert Bundle.open(path).length_tokenizer == "reward"
    write(path, "perplexity")
    assert Bundle.open(path).length_tokenizer == "perplexity"


def test_of_two_exports_at_once_the_second_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    with BundleWriter(path, frozenset({"embedding"})), pytest.raises(ExportError, match="another run writes there"):
        write(path, "reward", content="second")
    write(path, "reward", content="third")
    files = manifest(path)["files"]
    assert files["reward/model.onnx"] == {"bytes": 5, "sha256": hashlib.sha256(b"third").hexdigest()}
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_what_is_not_of_the_bundle_is_not_lost_when_it_is_replaced(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle", "reward")
    (path / "notes.txt").write_text("mine", encoding="utf-8")
    for name, whole in (("embedding", False), ("embedding", True)):
        with pytest.raises(ExportError, match=r"holds notes\.txt, which is not of the bundle; move it"):
            write(path, name, overwrite=True, whole=whole)
    with pytest.raises(ExportError, match=r"holds notes\.txt"):
        copy_bundle(write(tmp_path / "other", "reward"), path, overwrite=True)
    assert (path / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_a_copy_takes_the_place_of_a_bundle_alone(tmp_path: Path) -> None:
    """The folder beside it may be called as it likes."""
    bundle, out = write(tmp_path / "bundle", "reward"), tmp_path / "models"
    out.mkdir()
    (out / "my-finetune.safetensors").write_text("precious", encoding="utf-8")
    (tmp_path / "models.partial").mkdir()
    (tmp_path / "models.partial" / "half").write_text("mine", encoding="utf-8")
    with pytest.raises(ExportError, match="exists; give --overwrite"):
        copy_bundle(bundle, out)
    with pytest.raises(ExportError, match="exists and is not a bundle; choose another folder"):
        copy_bundle(bundle, out, overwrite=True)
    with pytest.raises(ExportError, match="exists and is not a bundle; choose another folder"):
        write(out, "reward", overwrite=True, whole=True)
    assert [file.name for file in out.iterdir()] == ["my-finetune.safetensors"]
    (out / "my-finetune.safetensors").unlink()
    for _ in range(2):
        copy_bundle(bundle, out, overwrite=True)
        assert manifest(out) == manifest(bundle)
    assert (tmp_path / "models.partial" / "half").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle", "models", "models.partial"]


def test_a_bundle_whose_replacement_was_killed_half_way_is_there_again(tmp_path: Path) -> None:
    path = write(tmp_path / "bundle", "reward")
    path.rename(tmp_path / ".bundle.replaced.instructmining")
    (tmp_path / ".bundle.0123abcd.instructmining").mkdir()
    write(path, "embedding")
    assert set(Bundle.open(path).roles) == {"embedding", "reward"}
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]
