"""Weights of a checkpoint: safetensors and pickles, whole, in shards, linked, damaged, and not to be trusted."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint

INDEX = "model.safetensors.index.json"
PICKLE_INDEX = "pytorch_model.bin.index.json"
LLAMA = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
}
Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def tensors(*names: str, dtype: torch.dtype = torch.float32) -> Tensors:
    """Small tensors, each with values of its own."""
    return {name: (torch.arange(6).reshape(2, 3) + 10 * place).to(dtype) for place, name in enumerate(names)}


def write_index(folder: Path, index: str, where: Mapping[str, str]) -> None:
    (folder / index).write_text(json.dumps({"metadata": {}, "weight_map": dict(where)}), encoding="utf-8")


def pickled_shards(folder: Path, dtype: torch.dtype = torch.float32) -> Tensors:
    """Two shards of two tensors."""
    made = tensors("a", "b", "c", "d", dtype=dtype)
    where = {"a": "one.bin", "b": "one.bin", "c": "two.bin", "d": "two.bin"}
    for file in ("one.bin", "two.bin"):
        torch.save({name: made[name] for name, shard in where.items() if shard == file}, folder / file)
    write_index(folder, PICKLE_INDEX, where)
    return made


def read(folder: Path, name: str) -> np.ndarray:
    with Checkpoint(folder).weights() as weights:
        return weights(name)


# Where tensors are read from


@pytest.mark.parametrize("form", ["safetensors", "pickle", "old pickle"])
def test_every_form_of_weights_gives_the_same_tensors(tmp_path: Path, form: str) -> None:
    made = tensors("a", "b")
    if form == "safetensors":
        save_file(made, tmp_path / "model.safetensors")
    else:
        torch.save(made, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=form == "pickle")
    with Checkpoint(tmp_path).weights() as weights:
        for name, tensor in made.items():
            np.testing.assert_array_equal(weights(name), tensor.numpy())
            assert weights.shape(name) == (2, 3)
    assert Checkpoint(tmp_path).pickled == (form != "safetensors")


def test_safetensors_are_preferred_to_a_pickle(tmp_path: Path) -> None:
    save_file(tensors("a"), tmp_path / "model.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    assert read(tmp_path, "a").shape == (2, 3)
    assert not Checkpoint(tmp_path).pickled
    assert [file.name for file in Checkpoint(tmp_path).weight_files()] == ["model.safetensors"]


def test_files_that_the_index_does_not_name_are_not_looked_at(tmp_path: Path) -> None:
    made = tensors("a", "b")
    save_file({"a": made["a"]}, tmp_path / "model-1.safetensors")
    save_file({"b": made["b"]} | tensors("c"), tmp_path / "model-2.safetensors")
    save_file({"a": torch.zeros(1), "d": torch.zeros(1)}, tmp_path / "consolidated.safetensors")
    write_index(tmp_path, INDEX, {"a": "model-1.safetensors", "b": "model-2.safetensors"})
    with Checkpoint(tmp_path).weights() as weights:
        for name in made:
            np.testing.assert_array_equal(weights(name), made[name].numpy())
        assert "d" not in weights
        assert "c" not in weights
    assert [file.name for file in Checkpoint(tmp_path).weight_files()] == ["model-1.safetensors", "model-2.safetensors"]


def test_pickles_in_shards_are_read_in_any_order(tmp_path: Path) -> None:
    made = pickled_shards(tmp_path)
    with Checkpoint(tmp_path).weights() as weights:
        for name in "acbdca":
            np.testing.assert_array_equal(weights(name), made[name].numpy())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux what is mapped")
def test_one_pickled_shard_is_mapped_at_a_time(tmp_path: Path) -> None:
    pickled_shards(tmp_path, torch.float16)  # float32 would be a view that keeps its file mapped

    def mapped() -> set[str]:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
        return {Path(line.split()[-1]).name for line in lines if str(tmp_path) in line}

    with Checkpoint(tmp_path).weights() as weights:
        assert mapped() == set()
        kept = [weights("a")]
        assert mapped() == {"one.bin"}
        kept.append(weights("c"))
        assert mapped() == {"two.bin"}
    assert mapped() == set()
    assert [array[0, 0] for array in kept] == [0, 20]


def test_links_into_a_store_of_blobs_are_followed(tmp_path: Path) -> None:
    """The layout of the hub's cache."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    made = pickled_shards(blobs)
    for number, file in enumerate(sorted(blobs.iterdir())):
        file.rename(blobs / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    np.testing.assert_array_equal(read(snapshot, "d"), made["d"].numpy())
    (blobs / "2").unlink()
    with pytest.raises(ExportError, match=r"shard two\.bin is missing"):
        read(snapshot, "a")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("safe", [True, False])
def test_other_floating_point_numbers_are_read_as_float32(tmp_path: Path, dtype: torch.dtype, safe: bool) -> None:
    made = tensors("a", dtype=dtype)
    if safe:
        save_file(made, tmp_path / "model.safetensors")
    else:
        torch.save(made, tmp_path / "pytorch_model.bin")
    found = read(tmp_path, "a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, made["a"].float().numpy())
    assert Checkpoint(tmp_path).bytes_fp32 == 6 * 4


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_quantized_numbers_are_refused_when_they_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file(tensors("a", dtype=dtype) | tensors("b"), tmp_path / "model.safetensors")
    torch.save(tensors("a", dtype=dtype), tmp_path / "pytorch_model.bin")
    np.testing.assert_array_equal(read(tmp_path, "b"), tensors("b")["b"].numpy())
    with pytest.raises(ExportError, match=r"model\.safetensors: a has dtype (I8|F8_E4M3); wanted float16"):
        read(tmp_path, "a")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(
        ExportError, match=r"pytorch_model\.bin: a has dtype torch\.(int8|float8_e4m3fn); wanted float16"
    ):
        read(tmp_path, "a")


def test_parameters_and_tied_tensors_of_a_pickle_are_plain_numbers(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    torch.save({"a": parameter, "b": parameter.t()}, tmp_path / "pytorch_model.bin")
    assert read(tmp_path, "a").shape == (3, 4)
    assert read(tmp_path, "b").shape == (4, 3)


def test_the_size_in_float32_counts_every_shard_and_no_integers(tmp_path: Path) -> None:
    save_file(tensors("a") | tensors("positions", dtype=torch.int64), tmp_path / "one.safetensors")
    save_file(tensors("b", "c", dtype=torch.bfloat16), tmp_path / "two.safetensors")
    write_index(tmp_path, INDEX, {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"})
    assert Checkpoint(tmp_path).bytes_fp32 == 3 * 6 * 4


# Names


def test_a_name_is_found_after_the_prefix_of_a_base_model(tmp_path: Path) -> None:
    made = tensors("bert.layer.weight", "classifier.weight")
    save_file(made, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path).weights() as weights:
        assert "layer.weight" in weights
        assert weights.shape("layer.weight") == (2, 3)
        np.testing.assert_array_equal(weights("layer.weight"), made["bert.layer.weight"].numpy())
        assert "weight" not in weights  # a head is no base model
        with pytest.raises(ExportError, match=r"no tensor 'weight', by itself or after bert\., "):
            weights("weight")


def test_the_exact_name_comes_before_a_prefix(tmp_path: Path) -> None:
    made = tensors("model.norm", "norm", "model.other")
    save_file(made, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(read(tmp_path, "norm"), made["norm"].numpy())


def test_of_two_prefixes_the_one_with_most_names_is_taken(tmp_path: Path) -> None:
    made = tensors("bert.norm", "transformer.norm", "transformer.other")
    save_file(made, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(read(tmp_path, "norm"), made["transformer.norm"].numpy())


def test_two_prefixes_with_as_many_names_are_an_error(tmp_path: Path) -> None:
    save_file(tensors("bert.norm", "transformer.norm"), tmp_path / "model.safetensors")
    with pytest.raises(ExportError, match=r"'norm' stands for bert\.norm and transformer\.norm; wanted one"):
        read(tmp_path, "norm")


# What is refused


class Payload:
    """Runs a command where a pickle is loaded without care."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("form", ["zip", "old", "plain"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path: Path, form: str) -> None:
    file, ran = tmp_path / "pytorch_model.bin", tmp_path / "ran"
    content = tensors("a") | {"b": Payload(f"touch '{ran}'")}
    if form == "plain":
        file.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, file, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ExportError, match=r"pytorch_model\.bin: refused, .* wanted tensors only") as caught:
        read(tmp_path, "a")
    assert not ran.exists()
    assert "\n" not in str(caught.value)
    assert "weights_only" not in str(caught.value)
    if form != "plain":
        assert "it holds posix.system" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": torch.ones(1), "epoch": 3}, "refused, 'epoch' is of type int"),
        ({"state_dict": {"a": torch.ones(1)}}, "refused, 'state_dict' is of type dict"),
        ({0: torch.ones(1)}, "refused, 0 is of type Tensor"),
        ([torch.ones(1)], "refused, it holds a list"),
        ({"a": Path("a")}, r"refused, it holds pathlib\.\w+"),
    ],
)
def test_a_pickle_with_anything_but_tensors_by_name_is_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match=rf"pytorch_model\.bin: {message}; wanted"):
        read(tmp_path, "a")


def test_a_program_is_refused(tmp_path: Path) -> None:
    """TorchScript; only the name of the member that tells it is needed."""
    torch.save(tensors("a"), tmp_path / "archive")
    shutil.unpack_archive(tmp_path / "archive", tmp_path / "unpacked", "zip")
    next((tmp_path / "unpacked").iterdir()).joinpath("constants.pkl").write_bytes(b"")
    shutil.make_archive(str(tmp_path / "script"), "zip", tmp_path / "unpacked")
    (tmp_path / "script.zip").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match=r"pytorch_model\.bin: refused, it is a TorchScript program"):
        read(tmp_path, "a")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "old.bin"])
@pytest.mark.parametrize("kept", [0.0, 0.03, 0.5, 0.999])
def test_a_file_that_was_cut_short_is_an_error(tmp_path: Path, name: str, kept: float) -> None:
    file = tmp_path / name.replace("old", "pytorch_model")
    made = {"a": torch.ones(40, 40)}
    if name == "model.safetensors":
        save_file(made, file)
    else:
        torch.save(made, file, _use_new_zipfile_serialization=name != "old.bin")
    os.truncate(file, int(file.stat().st_size * kept))
    with pytest.raises(ExportError, match=rf"{file.name}: (cannot be read|refused)"), Checkpoint(tmp_path).weights():
        pass


def test_a_pointer_of_git_lfs_is_told_from_a_damaged_file(tmp_path: Path) -> None:
    for name in ("model.safetensors", "pytorch_model.bin"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n", encoding="utf-8")
        with pytest.raises(ExportError, match=rf"{name}: found a git-lfs pointer.*run git lfs pull"):
            read(tmp_path, "a")
        (tmp_path / name).unlink()


def test_a_folder_without_weights_says_what_it_found_and_what_was_wanted(tmp_path: Path) -> None:
    save_file(tensors("a"), tmp_path / "adapter_model.safetensors")
    for asked in (lambda one: one.weights().__enter__(), Checkpoint.weight_files, Checkpoint.loading_arguments):
        with pytest.raises(
            ExportError, match=r"found adapter_model\.safetensors; wanted model\.safetensors or pytorch_mod"
        ):
            asked(Checkpoint(tmp_path))


@pytest.mark.parametrize("index", [INDEX, PICKLE_INDEX])
def test_a_missing_shard_is_named_before_anything_is_read(tmp_path: Path, index: str) -> None:
    write_index(tmp_path, index, {"a": "model-00001-of-00002.x"})
    with pytest.raises(ExportError, match=r"shard model-00001-of-00002\.x is missing"), Checkpoint(tmp_path).weights():
        pass


def test_every_shard_is_looked_at_before_the_first_tensor_is_read(tmp_path: Path) -> None:
    pickled_shards(tmp_path)
    os.truncate(tmp_path / "two.bin", 300)
    with pytest.raises(ExportError, match=r"two\.bin: cannot be read"), Checkpoint(tmp_path).weights():
        pass


@pytest.mark.parametrize("index", [INDEX, PICKLE_INDEX])
def test_a_tensor_that_its_shard_does_not_hold_is_an_error(tmp_path: Path, index: str) -> None:
    save_file(tensors("a"), tmp_path / "one.safetensors")
    torch.save(tensors("a"), tmp_path / "one.bin")
    shard = "one.safetensors" if index == INDEX else "one.bin"
    write_index(tmp_path, index, {"a": shard, "b": shard})
    with pytest.raises(ExportError, match=rf"{shard}: no tensor 'b', which the index"):
        read(tmp_path, "b")


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": "../a.safetensors"}}']
)
def test_a_damaged_index_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content, encoding="utf-8")
    with pytest.raises(ExportError, match=r"index\.json: .*wanted"):
        read(tmp_path, "a")


# transformers reads the same files


def save_model(model: LlamaForCausalLM, folder: Path, *, safe: bool, shard: str) -> None:
    """As version 4 of transformers saves a model; version 5 writes no pickles."""
    model.save_pretrained(folder, max_shard_size=shard)
    if safe:
        return
    for file in folder.glob("*.safetensors"):
        torch.save(load_file(file), folder / pickled_name(file.name))
        file.unlink()
    if (folder / INDEX).is_file():
        where = json.loads((folder / INDEX).read_bytes())["weight_map"]
        write_index(folder, PICKLE_INDEX, {name: pickled_name(shard) for name, shard in where.items()})
        (folder / INDEX).unlink()


def pickled_name(file: str) -> str:
    return file.replace("model", "pytorch_model").replace(".safetensors", ".bin")


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("shard", ["5GB", "5KB"])
def test_transformers_loads_the_same_weights_with_the_loading_arguments(tmp_path: Path, safe: bool, shard: str) -> None:
    torch.manual_seed(0)
    made = LlamaForCausalLM(LlamaConfig(**LLAMA)).to(torch.float16)
    save_model(made, tmp_path, safe=safe, shard=shard)
    checkpoint = Checkpoint(tmp_path)
    assert (len(checkpoint.weight_files()) > 1) == (shard == "5KB")
    assert checkpoint.pickled != safe
    loaded = LlamaForCausalLM.from_pretrained(tmp_path, **checkpoint.loading_arguments())
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert checkpoint.bytes_fp32 == 4 * sum(parameter.numel() for parameter in made.parameters())
    with checkpoint.weights() as weights:
        for name, parameter in loaded.named_parameters():
            np.testing.assert_array_equal(weights(name), parameter.detach().numpy())


@pytest.mark.parametrize("preferred", ["single", "shards"])
def test_where_both_forms_stand_transformers_and_the_reader_take_the_same(tmp_path: Path, preferred: str) -> None:
    """The single file before the shards, safetensors before pickles: the reference values come from transformers."""
    other = preferred == "shards"
    for seed, (safe, shard) in enumerate([(True, "5KB"), (False, "5GB")] if other else [(True, "5KB"), (True, "5GB")]):
        torch.manual_seed(seed)
        part = tmp_path / str(seed)
        save_model(LlamaForCausalLM(LlamaConfig(**LLAMA)), part, safe=safe, shard=shard)
        shutil.copytree(part, tmp_path / "both", dirs_exist_ok=True)
    checkpoint = Checkpoint(tmp_path / "both")
    loaded = LlamaForCausalLM.from_pretrained(checkpoint.folder, **checkpoint.loading_arguments())
    np.testing.assert_array_equal(read(checkpoint.folder, "norm.weight"), loaded.model.norm.weight.detach().numpy())
    with checkpoint.weights() as weights:
        np.testing.assert_array_equal(weights("lm_head.weight"), loaded.lm_head.weight.detach().numpy())
