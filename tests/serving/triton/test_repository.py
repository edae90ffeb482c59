from __future__ import annotations

import shutil
from pathlib import Path

import onnxruntime as ort
import pytest

from instructmining import Bundle, Rule
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
    assert of(small_bundle, Rule("mine", 0.0, {"mtld": 1.0})).columns == ("mtld", "predicted_log_loss")


def test_what_triton_cannot_compute_is_refused(small_bundle: Path) -> None:
    with pytest.raises(RuleError, match="knn_6 needs the neighbours of each row"):
        of(small_bundle, Rule.load("paper-v1"))
    with pytest.raises(MissingRoleError, match="unieval"):
        of(small_bundle, indicators="naturalness")


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
