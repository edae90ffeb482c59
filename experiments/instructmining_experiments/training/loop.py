"""Fine-tunes a language model on rows: all weights, by one plain loop, so that the same call gives the same weights."""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray
from transformers import AutoModelForCausalLM, PreTrainedModel

from instructmining.errors import OutputError, TrainingError
from instructmining.inference.batching import Batch, batches
from instructmining.tokenizing.truncation import Tokens
from instructmining.writing.atomic import Placement, beside, claimed, put_folder
from instructmining_experiments.training.schedule import rate_at
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.hub import TEXT_FILES
from instructmining_export.originals import load_original, logits_at, read_config

TRAINED = "training.json"  # in the folder of a trained model
# Padded tokens of a batch by device, and how many are enough for one whose next row is over a tenth shorter.
_BATCH_TOKENS = {"cpu": (512, 128), "cuda": (8192, 2048)}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a model is trained."""

    learning_rate: float  # the highest
    warmup: float  # share of the steps in which the rate rises
    weight_decay: float
    clip: float  # largest norm of the gradient
    seed: int


@dataclass(slots=True)
class Trained:
    """What came of training, so far."""

    learning_rate: float
    losses: list[float] = field(default_factory=list)  # of each step, in nats per response token
    tokens: int = 0
    scored: int = 0  # response tokens among them
    seconds: float = 0.0

    @classmethod
    def read(cls, model: Path) -> Trained:
        """Read what :func:`fine_tune` wrote beside a model."""
        return cls(**orjson.loads((model / TRAINED).read_bytes()))


@dataclass(frozen=True, slots=True)
class Places:
    """Where a run's files go."""

    model: Path  # folder of the trained model
    checkpoint: Path  # file
    every_steps: int  # between two checkpoints


def fine_tune(
    base: Checkpoint, steps: Sequence[Sequence[Tokens]], recipe: Recipe, *, device: torch.device, places: Places
) -> Trained:
    """Train, from the last checkpoint if there is one, and write the model in the Hugging Face layout.

    Float32 on a CPU; on CUDA bfloat16 products with float32 weights. A run that was killed and goes on ends with the
    same weights, to the bit on a CPU.

    Args:
        base: the model to begin with.
        steps: texts of each step.
        recipe: how.
        device: where.
        places: where the model and the checkpoint are written.

    Raises:
        TrainingError: the loss is no number, or memory runs out.
        ExportError: the base model cannot be loaded.
        OutputError: the disk refuses a file.
    """
    try:
        model = load_original(AutoModelForCausalLM, base, attention=_attention(base))
        torch.nn.Module.to(model, device).train()
        loop = _Loop(model, recipe, len(steps))
        done = _resume(loop, places.checkpoint, device)
        for number in range(len(done.losses), len(steps)):
            begin = time.perf_counter()
            done.losses.append(loop.step(number, steps[number]))
            done.tokens += sum(len(text.ids) for text in steps[number])
            done.scored += sum(len(text.scored) for text in steps[number])
            done.seconds += time.perf_counter() - begin
            if (number + 1) % places.every_steps == 0 and number + 1 < len(steps):
                _save_checkpoint(loop, done, places.checkpoint)
        _save_model(model, base, done, places.model)
    except (torch.OutOfMemoryError, MemoryError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]  # Python's own says nothing
        raise TrainingError(f"memory runs out: {said}; use a smaller --max-length") from error
    finally:
        model = loop = None  # type: ignore[assignment]
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()  # the session that evaluates has its own memory
    places.checkpoint.unlink(missing_ok=True)
    return done


def _attention(base: Checkpoint) -> str:
    """Return transformers' implementation: its fused one leaves out the bound on scores that Gemma 2 has."""
    return "eager" if getattr(read_config(base), "attn_logit_softcapping", None) is not None else "sdpa"


class _Loop:
    """A model with its optimizer."""

    def __init__(self, model: PreTrainedModel, recipe: Recipe, steps: int) -> None:
        self.model = model
        self.recipe = recipe
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        self._steps = steps

    def step(self, number: int, texts: Sequence[Tokens]) -> float:
        """Make one step from 0 and return its loss before the step.

        Raises:
            TrainingError: the loss or the gradient is no number.
        """
        for group in self.optimizer.param_groups:
            share = rate_at(number, steps=self._steps, warmup=self.recipe.warmup)
            group["lr"] = self.recipe.learning_rate * share
        torch.manual_seed(self.recipe.seed * 1_000_003 + number)  # of dropout; a resumed run draws the same
        self.optimizer.zero_grad(set_to_none=True)
        loss = add_gradients(self.model, texts)
        norm = float(torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip))
        if not np.isfinite([loss, norm]).all():
            raise TrainingError(
                f"step {number + 1} of {self._steps}: loss {loss:g}, norm of the gradient {norm:g}; "
                f"use a lower rate than {self.recipe.learning_rate:g}"
            )
        self.optimizer.step()
        return loss


def add_gradients(model: PreTrainedModel, texts: Sequence[Tokens], *, max_batch_tokens: int | None = None) -> float:
    """Add the gradients of a step's loss, and return the loss in nats per response token.

    The loss is the sum over all response tokens of the step, divided by their number: every token weighs the same,
    in whichever batch it is. Batches hold texts of like length.

    Args:
        model: in training.
        texts: of the step.
        max_batch_tokens: padded tokens of a batch; by default what suits the device.
    """
    device = model.device
    budget, enough = _BATCH_TOKENS[device.type]
    scored = sum(len(text.scored) for text in texts)
    total = 0.0
    for batch in batches(texts, max_batch_tokens=max_batch_tokens or budget, enough_tokens=enough):
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            nll = _token_nll(model, batch)
        (nll.sum() / scored).backward()
        total += float(nll.detach().double().sum())
    return total / scored


def _token_nll(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Return the NLL of each scored token, float32 (n,).

    A causal model needs no mask: no token sees the padding after it.
    """
    ids = torch.from_numpy(batch.ids).to(model.device)
    rows, positions = (torch.from_numpy(column).to(model.device) for column in batch.scored.T)
    with logits_at(model, rows, positions - 1):
        logits = model(input_ids=ids, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits.float(), ids[rows, positions], reduction="none")


def _save_checkpoint(loop: _Loop, done: Trained, file: Path) -> None:
    state = {
        "recipe": asdict(loop.recipe),
        "model": loop.model.state_dict(),
        "optimizer": loop.optimizer.state_dict(),
        "done": asdict(done),
    }
    with Placement([file], overwrite=True) as placed:
        with placed.open(file) as opened:
            torch.save(state, opened)
        placed.put()


def _resume(loop: _Loop, file: Path, device: torch.device) -> Trained:
    """Load the checkpoint, if there is one of the same recipe."""
    fresh = Trained(loop.recipe.learning_rate)
    if not file.is_file():
        return fresh
    state: dict[str, Any] = torch.load(file, map_location=device, weights_only=True)
    if state["recipe"] != asdict(loop.recipe):
        return fresh
    loop.model.load_state_dict(state["model"])
    loop.optimizer.load_state_dict(state["optimizer"])
    return Trained(**state["done"])


def _save_model(model: PreTrainedModel, base: Checkpoint, done: Trained, folder: Path) -> None:
    """Write weights, config, tokenizer and what came of training, whole or not at all."""
    with claimed(folder):
        partial = beside(folder)
        try:
            model.save_pretrained(partial)
            for file in base.folder.iterdir():
                if TEXT_FILES.fullmatch(file.name) and not (partial / file.name).exists():
                    shutil.copyfile(file, partial / file.name)
            (partial / TRAINED).write_bytes(orjson.dumps(asdict(done)))
            put_folder(partial, folder)
        except OSError as error:
            raise OutputError(f"{folder}: {error.strerror or error}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def lengths(texts: Sequence[Tokens]) -> NDArray[np.int64]:
    """Return the tokens of each text, int64 (texts,)."""
    return np.array([len(text.ids) for text in texts], dtype=np.int64)
