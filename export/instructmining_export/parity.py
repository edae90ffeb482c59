"""The gate after every export: the written graph against transformers in float32, together and alone."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoModelForCausalLM

from instructmining.errors import ExportError
from instructmining.inputs import read_examples
from instructmining.records import Example, Tokens
from instructmining.references import Agreement, References, agreement
from instructmining.sessions import Device, GraphSession, cpu_threads
from instructmining_export.graphs.decoder import LinearHead


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a graph may differ by; beyond it the bundle is not written."""

    row_error: float = 1e-4
    token_error: float = 1e-3
    batch_difference: float = 1e-5


FP32 = Bounds()


def parity_examples() -> list[Example]:
    """The rows that every export is checked on: of mixed length and language, written for this project."""
    with resources.as_file(resources.files("instructmining_export") / "data" / "parity_rows.jsonl") as path:
        return list(read_examples(path))


def decoder_references(folder: Path, texts: list[Tokens], head: LinearHead | None) -> tuple[References, References]:
    """NLLs of the scored tokens from transformers in float32, and the head's reward on the same pass.

    Args:
        folder: checkpoint in the Hugging Face layout.
        texts: what the perplexity role is given.
        head: a linear head on the last token's last hidden state; without it there are no rewards.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    losses: list[NDArray[np.float32]] = []
    rewards: list[NDArray[np.float32]] = []
    with torch.inference_mode():
        for text in texts:
            hidden = model.base_model(torch.from_numpy(text.ids)[None]).last_hidden_state[0]
            scored = torch.from_numpy(text.scored)
            log_likelihoods = torch.log_softmax(model.lm_head(hidden[scored - 1]), dim=-1)
            chosen = log_likelihoods.gather(1, torch.from_numpy(text.ids)[scored][:, None])
            losses.append(-chosen[:, 0].numpy())
            if head is not None:
                rewards.append((hidden[-1].numpy().astype(np.float64) @ head.weight.T + head.bias).astype(np.float32))
    return References("nll", texts, losses), References("reward", texts if rewards else [], rewards)


def encoder_references(folder: Path, texts: list[Tokens]) -> References:
    """Mean over tokens and L2 norm of the last hidden states, from transformers in float32."""
    model = AutoModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    with torch.inference_mode():
        means = [model(torch.from_numpy(text.ids)[None]).last_hidden_state[0].mean(dim=0) for text in texts]
    return References("embedding", texts, [torch.nn.functional.normalize(mean, dim=0).numpy() for mean in means])


def check(role: str, references: References, graph: Path, bounds: Bounds = FP32) -> Agreement:
    """Compare a written graph with its references.

    Returns:
        The figures for the manifest.

    Raises:
        ExportError: one is beyond its bound; the message says which.
    """
    found = agreement(references, GraphSession(graph, Device("cpu", threads=cpu_threads())))
    figures = {
        "row_error": (found.row_error, bounds.row_error),
        "token_error": (found.token_error or 0.0, bounds.token_error),
        "batch_difference": (found.batch_difference, bounds.batch_difference),
    }
    beyond = [
        f"{name} {value:.2e} (at most {bound:.0e})" for name, (value, bound) in figures.items() if not value <= bound
    ]
    if beyond:
        raise ExportError(f"role {role!r}: the graph is not equal to its checkpoint: {'; '.join(beyond)}")
    return found
