from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altered_bundle
import pytest
from altered_bundle import Manifest

from instructmining.bundle import FORMAT_VERSION, Bundle
from instructmining.bundle.template import Template
from instructmining.errors import BundleError, MissingRoleError
from instructmining.tokenizing.templates import conversation
from instructmining.types import Example

DATA = "perplexity/model.onnx.data"


@pytest.fixture
def copy(small_bundle: Path, tmp_path: Path) -> Path:
    return altered_bundle.copy(small_bundle, tmp_path)


def first_byte_changed(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(content)


def test_a_bundle_opens_with_its_roles_and_what_the_manifest_says_of_them(small_bundle: Path) -> None:
    bundle = Bundle.open(str(small_bundle))
    assert bundle.path == small_bundle
    assert (bundle.name, bundle.note, bundle.default_rule) == ("small", "", "paper-v1")
    assert bundle.length_tokenizer == "perplexity"
    assert set(bundle.roles) == {"perplexity", "reward", "embedding"}
    role = bundle.roles["perplexity"]
    assert role.graph == small_bundle / "perplexity/model.onnx"
    assert role.tokenizer == small_bundle / "perplexity/tokenizer.json"
    assert (role.max_length, role.precision) == (512, "fp32")
    assert role.source == {"id": "tests/perplexity", "revision": "0", "licence": "Apache-2.0"}
    assert role.template.gaps["start>user"] == (("special", "<|im_start|>"), ("literal", "user\n"))
    assert role.bos is None
    assert role.shares == bundle.roles["reward"].shares != bundle.roles["embedding"].shares


def test_the_digest_is_that_of_the_manifest(small_bundle: Path) -> None:
    manifest = (small_bundle / "manifest.json").read_bytes()
    assert Bundle.open(small_bundle).digest == hashlib.sha256(manifest).hexdigest()


def test_a_bundle_may_lie_behind_a_symbolic_link(small_bundle: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(small_bundle)
    assert set(Bundle.open(link).roles) == set(Bundle.open(small_bundle).roles)


# The manifest


def test_a_folder_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError,
        match=r"is not a bundle: manifest\.json: No such file or directory; wanted a folder that instructmining",
    ):
        Bundle.open(tmp_path)


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(
        BundleError, match=r"gone: no such folder; wanted a bundle, which instructmining export writes$"
    ):
        Bundle.open(tmp_path / "gone")


@pytest.mark.parametrize("content", [b"{", b"", b'{"format": 1', b"\xff\xfe{}"])
def test_a_manifest_that_is_no_json_says_so(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match=r"manifest\.json: invalid JSON"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", ["[]", "1", "null", '"bundle"'])
def test_a_manifest_that_is_no_object_says_so(copy: Path, content: str) -> None:
    (copy / "manifest.json").write_text(content, encoding="utf-8")
    with pytest.raises(BundleError, match=r"manifest\.json: found \w+ where the manifest has an object"):
        Bundle.open(copy)


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, 0, None, "1"])
def test_another_format_says_which_is_read_and_how_to_mend_it(copy: Path, version: object) -> None:
    altered_bundle.edit(copy, lambda manifest: manifest.update(format=version))
    with pytest.raises(
        BundleError,
        match=rf"format {version}, this version reads 2 and {FORMAT_VERSION}; export the bundle again, or install",
    ):
        Bundle.open(copy)


def test_a_bundle_of_the_format_before_is_read(copy: Path) -> None:
    def as_before(manifest: dict[str, Any]) -> None:
        manifest["format"] = 2
        for role in manifest["roles"].values():
            role.pop("cuda_graph", None)

    altered_bundle.edit(copy, as_before)
    role = Bundle.open(copy).roles["perplexity"]
    assert role.graph_on("cuda") == role.graph_on("cpu") == role.graph


def test_a_role_may_have_a_graph_for_cuda_among_the_bundles_files(copy: Path) -> None:
    altered_bundle.edit(
        copy, lambda manifest: manifest["roles"]["perplexity"].update(cuda_graph="embedding/model.onnx")
    )
    role = Bundle.open(copy).roles["perplexity"]
    assert (role.graph_on("cpu"), role.graph_on("cuda")) == (role.graph, copy / "embedding" / "model.onnx")
    altered_bundle.edit(copy, lambda manifest: manifest["roles"]["perplexity"].update(cuda_graph="gone.onnx"))
    with pytest.raises(BundleError, match=r"cuda_graph 'gone.onnx' is not among the manifest's files"):
        Bundle.open(copy)


@pytest.mark.parametrize("key", ["files", "roles"])
def test_a_part_of_the_manifest_that_is_missing_is_named(copy: Path, key: str) -> None:
    altered_bundle.edit(copy, lambda manifest: manifest.pop(key))
    with pytest.raises(BundleError, match=f"'{key}' is missing; export the bundle again"):
        Bundle.open(copy)


def _role(name: str, **changes: object) -> Callable[[Manifest], None]:
    def change(manifest: Manifest) -> None:
        manifest["roles"][name].update(changes)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["roles"].update(fluency=m["roles"]["reward"]), "unknown role 'fluency'; known: reward, perplex"),
        (lambda m: m.update(length_tokenizer="fluency"), "unknown role 'fluency'"),
        (lambda m: m.update(length_tokenizer="unieval"), "length_tokenizer 'unieval' is not one of its roles"),
        (lambda m: m.pop("length_tokenizer"), "role None"),
        (lambda m: m.update(roles=[]), "found list where the manifest has an object"),
        (lambda m: m.update(files={DATA: 7}), "found int where the manifest has an object"),
        (_role("reward", graph="other.onnx"), "role 'reward': graph 'other.onnx' is not among the manifest's files"),
        (_role("reward", tokenizer=None), "role 'reward': tokenizer None is not among the manifest's files"),
        (_role("reward", references="no.json"), "role 'reward': references 'no.json' is not among"),
        (_role("reward", max_length=3), "role 'reward': max_length is 3, wanted at least 16"),
        (_role("reward", max_length="512"), "role 'reward': max_length is '512'"),
        (_role("reward", max_length=None), "role 'reward': max_length is None"),
        (_role("reward", bos=7), "role 'reward': bos is 7, wanted a token or null; export the bundle again"),
        (_role("reward", template="chatml"), "found str where the manifest has an object"),
        (_role("reward", template={}), "role 'reward': template: 'gaps' is missing; export the bundle again"),
        (_role("reward", template={"gaps": []}), "template: gaps: found list, wanted an object"),
        (
            _role("reward", template={"gaps": {"start>user": [["loud", "x"]]}}),
            r"role 'reward': template: gaps: \['loud', 'x'\] is not a template piece",
        ),
        (_role("reward", template={"gaps": {"start>user": [["bos"]]}}), r"\['bos'\] is not a template piece"),
        (
            _role("reward", template={"gaps": {"start>user": [["content", "response"]]}}),
            r"gaps: \['content', 'response'\] is not a template piece",
        ),
        (
            _role("reward", template={"gaps": {"user>robot": []}}),
            "'user>robot' is no transition such as 'user>assistant', between start, system, user, assistant, tool, res",
        ),
        (_role("reward", template={"gaps": {"end>user": []}}), "'end>user' is no transition"),
        (
            _role("reward", template={"gaps": {}, "questions": {"coherence": [["content", "future"]]}}),
            r"questions: \['content', 'future'\] is not a template piece",
        ),
        (
            _role("reward", template={"gaps": {}, "strip": {"user": "all"}}),
            "strip 'user': 'all' is none of 'none', 'left', 'right', 'both', 'left newlines'",
        ),
        (_role("reward", template={"gaps": {}, "strip": {"robot": "left"}}), "strip 'robot': 'left' is none of"),
        (_role("reward", template={"gaps": {}, "strip": "left"}), "strip '': 'left' is none of"),
        (_role("reward", bos=1), "role 'reward': bos is 1, wanted a token or null"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(copy: Path, change: Callable[[Manifest], object], message: str) -> None:
    altered_bundle.edit(copy, change)
    with pytest.raises(BundleError, match=message):
        Bundle.open(copy)


def test_a_role_without_references_opens(copy: Path) -> None:
    altered_bundle.edit(copy, lambda manifest: manifest["roles"]["reward"].pop("references"))
    bundle = Bundle.open(copy)
    assert bundle.roles["reward"].references is None
    assert bundle.roles["perplexity"].references == copy / "perplexity/references.json"


# The files


def test_a_graph_that_was_changed_does_not_open(copy: Path) -> None:
    first_byte_changed(copy / "perplexity/model.onnx")
    with pytest.raises(BundleError, match=r"model\.onnx: is not the file that was exported \(sha256 [0-9a-f]{12}…\)"):
        Bundle.open(copy)


def test_a_data_file_that_was_cut_does_not_open(copy: Path) -> None:
    file = copy / DATA
    size = file.stat().st_size
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(BundleError, match=rf"model\.onnx\.data: {size - 1} bytes, the manifest says {size}"):
        Bundle.open(copy)


@pytest.mark.parametrize("name", [DATA, "perplexity/tokenizer.json", "reward/references.json"])
def test_a_changed_file_of_the_same_size_is_found_before_and_after_the_bundle_is_opened(copy: Path, name: str) -> None:
    bundle = Bundle.open(copy)
    before = (copy / name).stat()
    first_byte_changed(copy / name)
    os.utime(copy / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    for check in (bundle.verify, lambda: Bundle.open(copy)):
        with pytest.raises(BundleError, match=f"{name}: is not the file that was exported"):
            check()


def test_verify_passes_every_file_of_a_sound_bundle_and_the_manifest_lists_them_all(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    bundle.verify()
    found = {file.relative_to(small_bundle).as_posix() for file in small_bundle.rglob("*") if file.is_file()}
    assert set(bundle.files) == found - {"manifest.json"}
    assert DATA in bundle.files


@pytest.mark.parametrize(
    "name", ["../stolen", "perplexity/../../stolen", "/etc/hostname", "..\\stolen", "C:stolen", "C:/stolen", ".."]
)
@pytest.mark.parametrize("where", ["files", "graph"])
def test_a_name_that_leads_out_of_the_bundle_is_refused(copy: Path, name: str, where: str) -> None:
    (copy.parent / "stolen").write_text("", encoding="utf-8")

    def change(manifest: Manifest) -> None:
        entry = {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}
        manifest["files"] = (
            {name: entry, **manifest["files"]} if where == "files" else manifest["files"] | {name: entry}
        )
        if where == "graph":
            manifest["roles"]["reward"]["graph"] = name

    altered_bundle.edit(copy, change)
    with pytest.raises(BundleError, match="which is outside of the bundle"):
        Bundle.open(copy)


def test_a_file_that_is_a_link_is_refused(copy: Path) -> None:
    file = copy / DATA
    elsewhere = copy.parent / "elsewhere"
    file.rename(elsewhere)
    file.symlink_to(elsewhere)
    with pytest.raises(BundleError, match=r"model\.onnx\.data: is a symbolic link; a bundle must contain its files"):
        Bundle.open(copy)


def test_a_folder_inside_that_is_a_link_is_refused(copy: Path) -> None:
    folder = copy / "perplexity"
    elsewhere = copy.parent / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    with pytest.raises(BundleError, match="is a symbolic link"):
        Bundle.open(copy)


# Roles and templates


def test_a_bundle_whose_graphs_run_elsewhere_needs_its_tokenizers_alone(copy: Path) -> None:
    for file in copy.rglob("*"):
        if file.is_file() and file.name not in {"manifest.json", "tokenizer.json"}:
            file.unlink()
    with pytest.raises(BundleError, match="is missing"):
        Bundle.open(copy)
    bundle = Bundle.open(copy, tokenizers_alone=True)
    assert bundle.roles["reward"].graph == copy / "perplexity" / "model.onnx"
    bundle.verify()
    first_byte_changed(copy / "perplexity" / "tokenizer.json")
    with pytest.raises(BundleError, match="is not the file that was exported"):
        Bundle.open(copy, tokenizers_alone=True)
    (copy / "perplexity" / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json: is missing"):
        Bundle.open(copy, tokenizers_alone=True)


def test_a_role_that_is_missing_is_named_with_who_needs_it_and_how_to_get_it(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    assert bundle.role("reward", wanted_by="rule 'mine'").name == "reward"
    with pytest.raises(
        BundleError,
        match=r"has no role 'unieval', which rule 'mine' needs; its roles: .*embedding.*; add it: .* --unieval MODEL",
    ):
        bundle.role("unieval", wanted_by="rule 'mine'")


def test_the_error_of_a_missing_role_is_the_same_in_another_process(small_bundle: Path) -> None:
    with pytest.raises(MissingRoleError) as raised:
        Bundle.open(small_bundle).role("unieval", wanted_by="rule 'mine'")
    found = pickle.loads(pickle.dumps(raised.value))
    assert (str(found), found.lacks, found.role, found.how) == (
        str(raised.value),
        raised.value.lacks,
        "unieval",
        raised.value.how,
    )


def test_a_template_is_read_as_it_was_written() -> None:
    template = Template.from_json(
        {
            "gaps": {"start>user": [["bos", "<s>"], ["literal", "Q: "]], "document>end": [["special", "</s>"]]},
            "strip": {"response": "left newlines"},
            "questions": {"coherence": [["content", "history"], ["content", "response"]]},
        },
        "here",
    )
    assert template == Template(
        gaps={"start>user": (("bos", "<s>"), ("literal", "Q: ")), "document>end": (("special", "</s>"),)},
        strip={"response": "left newlines"},
        questions={"coherence": (("content", "history"), ("content", "response"))},
    )
    assert Template.from_json({"gaps": {}}, "here") == Template({})


def test_the_token_that_begins_a_text_is_the_roles(copy: Path) -> None:
    altered_bundle.edit(copy, _role("perplexity", bos="<|endoftext|>"))
    roles = Bundle.open(copy).roles
    assert roles["perplexity"].bos == "<|endoftext|>"
    assert roles["reward"].bos is None


def test_rendering_changes_nothing_in_what_roles_share(small_bundle: Path) -> None:
    one, other = Bundle.open(small_bundle).roles["reward"], Bundle.open(small_bundle).roles["reward"]
    conversation(Example.of("a", "b"), one.template)
    assert one.shares == other.shares
    assert one.template == other.template


def test_roles_of_one_graph_with_another_limit_or_template_do_not_share(copy: Path) -> None:
    altered_bundle.edit(copy, _role("reward", max_length=256))
    roles = Bundle.open(copy).roles
    assert roles["reward"].shares != roles["perplexity"].shares


def test_a_limit_of_tokens_holds_for_every_model_that_takes_more(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    limits = {name: role.max_length for name, role in bundle.roles.items()}
    assert limits == {"perplexity": 512, "reward": 512, "embedding": 64}
    limited = bundle.limited(100)
    assert {name: role.max_length for name, role in limited.roles.items()} == limits | {
        "perplexity": 100,
        "reward": 100,
    }
    assert bundle.limited(None) == bundle


def test_the_manifest_is_readable_text(small_bundle: Path) -> None:
    manifest = json.loads((small_bundle / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["format"] == FORMAT_VERSION
    assert {"instructmining", "python", "torch", "transformers", "onnx-ir"} == set(manifest["written_with"])
