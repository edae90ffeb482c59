from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import causal_model
from transformers import AutoModelForCausalLM, PreTrainedModel

from instructmining.errors import TrainingError
from instructmining.tokenizing.truncation import Tokens
from instructmining_experiments.training import loop as training
from instructmining_experiments.training.loop import Places, Recipe, Trained, add_gradients, fine_tune
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.originals import load_original

RECIPE = Recipe(learning_rate=1e-3, warmup=0.2, weight_decay=0.01, clip=1.0, seed=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return Checkpoint(causal_model("llama", tmp_path_factory.mktemp("model") / "llama"))


@pytest.fixture
def model(base: Checkpoint) -> PreTrainedModel:
    return load_original(AutoModelForCausalLM, base)


def texts(*lengths: int, seed: int = 0) -> list[Tokens]:
    """Random tokens, of which the last half is scored."""
    generator = np.random.default_rng(seed)
    return [Tokens(generator.integers(10, 300, size), np.arange(max(1, size // 2), size)) for size in lengths]


def token_losses(model: PreTrainedModel, text: Tokens) -> list[torch.Tensor]:
    """Of each scored token, from the logits of all positions: what the definition says."""
    logits = model(input_ids=torch.from_numpy(text.ids)[None]).logits[0]
    return [-torch.log_softmax(logits[at - 1], dim=-1)[text.ids[at]] for at in text.scored.tolist()]


@pytest.mark.parametrize("max_batch_tokens", [1, 30, 512])
def test_every_response_token_of_a_step_weighs_the_same_in_whichever_batch_it_is(
    model: PreTrainedModel, max_batch_tokens: int
) -> None:
    step = texts(4, 25, 9, 13)
    loss = add_gradients(model, step, max_batch_tokens=max_batch_tokens)
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    every = [one for text in step for one in token_losses(model, text)]
    assert len(every) == 2 + 13 + 5 + 7
    mean = sum(every[1:], every[0]) / len(every)
    mean.backward()
    assert loss == pytest.approx(mean.item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


def test_one_step_is_one_step_of_adamw_by_hand(base: Checkpoint, model: PreTrainedModel, tmp_path: Path) -> None:
    step = texts(12, 20)
    fine_tune(base, [step], RECIPE, device=CPU, places=places(tmp_path))
    trained = load_original(AutoModelForCausalLM, Checkpoint(tmp_path / "model"))
    every = [one for text in step for one in token_losses(model, text)]
    (sum(every[1:], every[0]) / len(every)).backward()
    norm = torch.linalg.vector_norm(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]))
    weight = model.model.embed_tokens.weight
    gradient = weight.grad * min(1.0, RECIPE.clip / (norm.item() + 1e-6))
    # After one step both moments are the gradient's own, so that the step is its sign.
    wanted = weight * (1 - RECIPE.learning_rate * RECIPE.weight_decay)
    wanted = wanted - RECIPE.learning_rate * gradient / (gradient.abs() + 1e-8)
    moved = gradient.abs() > 1e-5
    torch.testing.assert_close(trained.model.embed_tokens.weight[moved], wanted[moved], rtol=1e-5, atol=1e-5)


def places(folder: Path, every_steps: int = 2) -> Places:
    return Places(folder / "model", folder / "checkpoint.pt", every_steps)


@pytest.mark.parametrize("killed_at", [0, 1, 2, 4, 5])
def test_a_run_that_was_cut_ends_with_the_same_weights(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    steps: Sequence[Sequence[Tokens]] = [texts(7, 12, 5, seed=number) for number in range(6)]
    whole = fine_tune(base, steps, RECIPE, device=CPU, places=places(tmp_path / "whole"))
    made = training.add_gradients
    taken = iter(range(100))

    def cut(model: PreTrainedModel, step: Sequence[Tokens]) -> float:
        if next(taken) == killed_at:
            raise KeyboardInterrupt
        return made(model, step)

    monkeypatch.setattr(training, "add_gradients", cut)
    with pytest.raises(KeyboardInterrupt):
        fine_tune(base, steps, RECIPE, device=CPU, places=places(tmp_path / "cut"))
    assert (tmp_path / "cut" / "checkpoint.pt").exists() == (killed_at >= 2)
    resumed = fine_tune(base, steps, RECIPE, device=CPU, places=places(tmp_path / "cut"))
    assert next(taken) == 1 + killed_at + 6 - killed_at // 2 * 2
    one, other = ((tmp_path / name / "model" / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other
    assert (resumed.losses, resumed.tokens, resumed.scored) == (whole.losses, whole.tokens, whole.scored)
    assert not (tmp_path / "cut" / "checkpoint.pt").exists()
    assert Trained.read(tmp_path / "cut" / "model").losses == whole.losses


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(
    base: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [texts(7, seed=number) for number in range(3)]
    with monkeypatch.context() as patched:
        patched.setattr(training, "_save_model", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            fine_tune(base, steps, Recipe(1e-4, 0.2, 0.0, 1.0, 3), device=CPU, places=places(tmp_path))
    assert (tmp_path / "checkpoint.pt").exists()
    found = fine_tune(base, steps, RECIPE, device=CPU, places=places(tmp_path))
    fresh = fine_tune(base, steps, RECIPE, device=CPU, places=places(tmp_path / "fresh"))
    assert (found.learning_rate, found.losses) == (RECIPE.learning_rate, fresh.losses)


def test_a_loss_that_is_no_number_ends_the_run_with_its_step_and_rate(base: Checkpoint, tmp_path: Path) -> None:
    recipe = Recipe(1e30, 0.0, 0.0, 1.0, 3)
    with pytest.raises(TrainingError, match=r"step 2 of 3: loss .*; use a lower rate than 1e\+30"):
        fine_tune(base, [texts(9)] * 3, recipe, device=CPU, places=places(tmp_path))
    assert not (tmp_path / "model").exists()
