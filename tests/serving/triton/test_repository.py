from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import altered_bundle
import onnxruntime as ort
import pytest
from pretended_triton import PretendedTriton

from instructmining import Bundle, Rule, Scorer
from instructmining.errors import ExportError, MissingRoleError, RuleError
from instructmining_serving.triton.repository import Repository


def of(bundle: Path, rule: Rule | None = None, indicators: str | None = None, device_kind: str = "cpu") -> Repository:
    return Repository.of(Bundle.open(bundle), rule, indicators, device_kind=device_kind)


def files(folder: Path) -> set[str]:
    return {file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file()}


def test_a_repository_has_the_front_and_a_model_for_each_graph(small_bundle: Path, tmp_path: Path) -> None:
    of(small_bundle, indicators="reward,perplexity").write(tmp_path / "models")
    assert files(tmp_path / "models") == {
        "instructmining/config.pbtxt",
        "instructmining/1/model.py",
        "instructmining/1/settings.json",
        "instructmining/1/bundle/manifest.json",
        "instructmining/1/bundle/perplexity/tokenizer.json",
        "instructmining/1/bundle/embedding/tokenizer.json",
        "instructmining_reward/config.pbtxt",
        "instructmining_reward/1/model.onnx/model.onnx",
        "instructmining_reward/1/model.onnx/model.onnx.data",
    }
    assert {entry.name for entry in tmp_path.iterdir()} == {"models"}
    ort.InferenceSession(str(tmp_path / "models" / "instructmining_reward" / "1" / "model.onnx" / "model.onnx"))


def test_by_default_all_columns_are_computed_that_need_no_neighbours(small_bundle: Path) -> None:
    repository = of(small_bundle)
    assert repository.columns == ("input_length", "output_length", "reward", "perplexity", "mtld", "ifd")
    assert repository.left_out(None) == []
    asked = of(small_bundle, indicators="all")
    assert asked.columns == repository.columns
    assert asked.left_out("all") == ["knn_6"]
    assert of(small_bundle, Rule("mine", 0.0, {"mtld": 1.0})).columns == ("mtld", "predicted_log_loss")


def test_what_triton_cannot_compute_is_refused(small_bundle: Path) -> None:
    with pytest.raises(RuleError, match="knn_6 needs the neighbours of each row"):
        of(small_bundle, Rule.load("paper-v1"))
    with pytest.raises(MissingRoleError, match="unieval"):
        of(small_bundle, indicators="naturalness")


def test_a_repository_for_gpus_has_the_graphs_for_cuda_and_gives_the_same_numbers(
    small_bundle: Path, tmp_path: Path, scorer: Scorer
) -> None:
    path = altered_bundle.copy(small_bundle, tmp_path)
    cuda = path / "perplexity" / "model.cuda.onnx"
    cuda.write_bytes((path / "perplexity" / "model.onnx").read_bytes())
    bundle = Bundle.open(path)
    roles = {
        name: replace(role, cuda_graph=cuda if name != "embedding" else None) for name, role in bundle.roles.items()
    }
    opened = replace(bundle, roles=roles)
    out = tmp_path / "models"
    Repository.of(opened, None, "perplexity,reward", device_kind="cuda").write(out)
    assert "KIND_GPU" in (out / "instructmining_reward" / "config.pbtxt").read_text(encoding="utf-8")
    assert files(out / "instructmining_reward" / "1") == {"model.onnx/model.onnx", "model.onnx/model.onnx.data"}
    server = PretendedTriton(out)
    row = {"instruction": "Name a colour.", "output": "Green is a colour."}
    (response,) = server.model.execute([server.request([json.dumps(row).encode()], "reward", "perplexity")])
    (wanted,) = scorer.score([row])
    for tensor in response.output_tensors():
        assert tensor.as_numpy()[0, 0] == pytest.approx(wanted.columns[tensor.name()], rel=1e-5)
    assert {asked.inputs["input_ids"].shape[1] % 16 for asked in server.asked} == {0}


def test_a_graph_in_int8_is_not_for_gpus(small_bundle: Path) -> None:
    bundle = Bundle.open(small_bundle)
    roles = {name: replace(role, precision="int8") for name, role in bundle.roles.items()}
    with pytest.raises(ExportError, match=r"role 'reward' is int8.*give --device cpu"):
        Repository.of(replace(bundle, roles=roles), None, "reward", device_kind="cuda")


def test_a_folder_is_replaced_only_if_it_is_a_repository_and_that_is_asked_for(
    small_bundle: Path, tmp_path: Path
) -> None:
    repository, out = of(small_bundle, indicators="reward"), tmp_path / "models"
    out.mkdir()
    repository.write(out)
    with pytest.raises(ExportError, match="exists; give --overwrite"):
        repository.write(out)
    repository.write(out, overwrite=True)
    (out / "resnet").mkdir()
    with pytest.raises(ExportError, match="holds resnet, which is no model of it"):
        repository.write(out, overwrite=True)
    shutil.rmtree(out / "instructmining")
    with pytest.raises(ExportError, match="exists and is not a model repository"):
        repository.write(out, overwrite=True)
    with pytest.raises(ExportError, match="exists and is not a model repository"):
        repository.write(small_bundle / "manifest.json", overwrite=True)
