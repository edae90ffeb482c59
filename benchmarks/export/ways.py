"""One batch to a role's values, by our graph, by transformers, and by a stock export in onnxruntime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, normalize
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoModelForSequenceClassification
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from benchmarks.export.families import Output, Subject
from instructmining.inference.batching import Batch
from instructmining.inference.devices import Device, cpu_threads
from instructmining.inference.sessions import GraphSession

# Values of one batch: (n,) NLLs in the order of its scored positions, (rows, size), or (rows,).
Step: TypeAlias = Callable[[Batch], NDArray[np.float32]]

YES, NO = 5, 9  # ids that stand for the two answers
TASKS: dict[Output, str] = {
    "nll": "text-generation",  # without the cache of keys and values, which a single pass has no use for
    "embedding": "feature-extraction",
    "reward": "text-classification",
    "yes": "text2text-generation",
}
_CLASSES: dict[Output, type[_BaseAutoModelClass]] = {
    "nll": AutoModelForCausalLM,
    "embedding": AutoModel,
    "reward": AutoModelForSequenceClassification,
    "yes": AutoModelForSeq2SeqLM,
}


def our_step(graph: Path, output: Output) -> Step:
    """The engine's own session."""
    session = GraphSession(graph, Device("cpu", threads=cpu_threads()))
    return lambda batch: session.run(batch, (output,))[output]


def transformers_step(subject: Subject, attention: str) -> Step:
    """transformers in float32, asked for no more than the role wants.

    Raises:
        ValueError: the family has no attention of this kind.
    """
    model = _CLASSES[subject.output].from_pretrained(
        subject.folder, dtype=torch.float32, attn_implementation=attention, local_files_only=True
    )
    model.eval()

    def states(batch: Batch) -> torch.Tensor:
        # Right-padded rows of a causal model need no mask, nor does a row alone; without it attention is faster.
        bare = subject.output == "nll" or len(batch.ids) == 1
        arguments = {"use_cache": False} if subject.output == "nll" else {}
        mask = None if bare else torch.from_numpy(batch.mask)
        body = model if subject.output == "embedding" else model.base_model
        hidden: torch.Tensor = body(torch.from_numpy(batch.ids), attention_mask=mask, **arguments).last_hidden_state
        return hidden

    def step(batch: Batch) -> NDArray[np.float32]:
        with torch.inference_mode():
            if subject.output == "nll":
                rows, positions = (torch.from_numpy(column) for column in batch.scored.T)
                return _nll(model.get_output_embeddings()(states(batch)[rows, positions - 1]), batch)
            if subject.output == "embedding":
                return _embedding(states(batch), batch)
            arguments = {"input_ids": torch.from_numpy(batch.ids), "attention_mask": torch.from_numpy(batch.mask)}
            if subject.output == "reward":
                reward: NDArray[np.float32] = model(**arguments).logits[:, 0].numpy()
                return reward
            start = torch.full((len(batch.ids), 1), model.config.decoder_start_token_id)
            return _yes(model(**arguments, decoder_input_ids=start, use_cache=False).logits)

    return step


def stock_step(graphs: Sequence[Path], output: Output) -> Step:
    """A stock export, with what its graph leaves out done by torch on the same threads."""
    sessions = {graph.stem: _open(graph) for graph in graphs}

    def run(name: str, batch: Batch, **more: NDArray[np.generic]) -> torch.Tensor:
        feeds = {
            "input_ids": batch.ids,
            "attention_mask": batch.mask,
            "position_ids": batch.positions,
            "token_type_ids": np.zeros_like(batch.ids),
        } | more
        wanted = [value.name for value in sessions[name].get_inputs()]
        return torch.from_numpy(sessions[name].run(None, {each: feeds[each] for each in wanted})[0])

    def step(batch: Batch) -> NDArray[np.float32]:
        if output == "nll":
            rows, positions = (torch.from_numpy(column) for column in batch.scored.T)
            return _nll(run("model", batch)[rows, positions - 1], batch)
        if output == "embedding":
            return _embedding(run("model", batch), batch)
        if output == "reward":
            reward: NDArray[np.float32] = run("model", batch)[:, 0].numpy()
            return reward
        encoded = run("encoder_model", batch).numpy()
        start = np.zeros((len(batch.ids), 1), dtype=np.int64)
        decoder = {"input_ids": start, "encoder_hidden_states": encoded, "encoder_attention_mask": batch.mask}
        return _yes(run("decoder_model", batch, **decoder))

    return step


def _open(graph: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = cpu_threads()
    options.log_severity_level = 3
    return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])


def _nll(logits: torch.Tensor, batch: Batch) -> NDArray[np.float32]:
    """Of logits (n, words) before each scored position."""
    targets = torch.from_numpy(batch.ids[batch.scored[:, 0], batch.scored[:, 1]])
    values: NDArray[np.float32] = cross_entropy(logits, targets, reduction="none").numpy()
    return values


def _embedding(states: torch.Tensor, batch: Batch) -> NDArray[np.float32]:
    mask = torch.from_numpy(batch.mask)[:, :, None]
    values: NDArray[np.float32] = normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1).numpy()
    return values


def _yes(logits: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = torch.sigmoid(logits[:, 0, YES] - logits[:, 0, NO]).numpy()
    return values
