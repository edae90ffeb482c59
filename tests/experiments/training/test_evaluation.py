from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import causal_model
from transformers import AutoModelForCausalLM

from instructmining.bundle import Role
from instructmining.errors import ExportError
from instructmining.inference.devices import Device
from instructmining.tokenizing.truncation import Tokens
from instructmining_experiments.training.evaluation import as_json, base_role, export_base, from_json, graph_of, losses
from instructmining_experiments.training.loop import Places, Recipe, fine_tune
from instructmining_experiments.training.texts import tokens_of
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.originals import load_original
from instructmining_export.parity import parity_examples

CPU = Device("cpu", threads=1)


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Role]:
    folder = tmp_path_factory.mktemp(request.param)
    model = Checkpoint(causal_model(request.param, folder / "source"), {"id": "a/b"})
    return model, export_base(folder, model, template="auto", max_length=200, report=lambda _: None)


@pytest.fixture(scope="module")
def texts(subject: tuple[Checkpoint, Role]) -> list[Tokens]:
    return list(tokens_of(parity_examples()[:40], range(40), subject[1]).values())


def transformers_loss(model: Checkpoint, texts: list[Tokens]) -> float:
    """The mean over all response tokens, from transformers' logits, a row at a time."""
    loaded = load_original(AutoModelForCausalLM, model).eval()
    sums, tokens = [], 0
    with torch.inference_mode():
        for text in texts:
            found = torch.log_softmax(loaded(input_ids=torch.from_numpy(text.ids)[None]).logits[0], dim=-1)
            sums.append(float(-found[text.scored - 1, text.ids[text.scored]].double().sum()))
            tokens += len(text.scored)
    return sum(sums) / tokens


def test_the_engines_loss_of_a_trained_model_is_transformers(
    subject: tuple[Checkpoint, Role], texts: list[Tokens], tmp_path: Path
) -> None:
    base, role = subject
    places = Places(tmp_path / "model", tmp_path / "checkpoint.pt", 100)
    fine_tune(base, [texts[:10]] * 3, Recipe(1e-2, 0.1, 0.0, 1.0, 1), device=torch.device("cpu"), places=places)
    trained = Checkpoint(tmp_path / "model")
    with graph_of(trained, role, tmp_path, device=CPU) as graph:
        found = losses(graph, role, {"one": texts, "other": texts[:5]}, CPU)
    before = losses(role.graph, role, {"one": texts}, CPU)["one"]
    assert found["one"].loss == pytest.approx(transformers_loss(trained, texts), abs=1e-4)
    assert before.loss == pytest.approx(transformers_loss(base, texts), abs=1e-4)
    assert found["one"].loss < before.loss - 0.1
    assert found["one"].tokens == sum(len(text.scored) for text in texts)
    sums, tokens = np.array(found["one"].rows).T
    assert found["one"].loss == pytest.approx(sums.sum() / tokens.sum(), rel=1e-12)
    assert sums[:5] == pytest.approx(np.array(found["other"].rows)[:, 0], rel=1e-5)
    assert from_json(as_json(found)) == found


def test_the_base_models_own_weights_give_the_very_files_that_passed_the_gate(
    subject: tuple[Checkpoint, Role], tmp_path: Path
) -> None:
    base, role = subject
    with graph_of(base, role, tmp_path, device=CPU) as graph:
        for ending in ("", ".data"):
            made, gated = (Path(f"{file}{ending}") for file in (graph, role.graph))
            assert made.read_bytes() == gated.read_bytes()
    assert list(tmp_path.iterdir()) == []


def test_the_role_is_found_again(subject: tuple[Checkpoint, Role]) -> None:
    role = subject[1]
    assert base_role(role.graph.parents[2]) == role


def test_plain_text_is_trained_where_it_is_asked_for(subject: tuple[Checkpoint, Role], tmp_path: Path) -> None:
    role = export_base(tmp_path, subject[0], template="plain", max_length=64, report=lambda _: None)
    assert role.max_length == 64
    assert role.template.gaps["user>assistant"] == (("literal", "\n"),)


def test_a_family_without_a_graph_of_ours_is_one_clear_error(tmp_path: Path) -> None:
    model = Checkpoint(causal_model("opt", tmp_path / "opt"))
    with pytest.raises(ExportError, match="opt"):
        export_base(tmp_path, model, template="auto", max_length=None, report=lambda _: None)
    assert not (tmp_path / "model").exists()
