"""Models of true shape for ``speed.py``: random weights, our graph, and transformers on the same weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy, normalize
from transformers import PreTrainedModel

from instructmining.inference.batching import Batch
from instructmining_export import families, originals
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import bidirectional, causal, t5
from instructmining_export.graphs.causal import LinearHead
from instructmining_export.graphs.graph_builder import GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save
from instructmining_export.transformers_versions import graph_settings

Output: TypeAlias = Literal["nll", "reward", "embedding", "yes"]
# Values of one batch on the host: (n,) NLLs in the order of its scored positions, (rows, size), or (rows,).
Step: TypeAlias = Callable[[Batch], NDArray[np.float32]]

TINY = os.environ.get("BENCH_TINY") == "1"
YES, NO = 5, 9  # ids that stand for the two answers
_HEAD_WIDTH = 64
_TABLES = ("embed_tokens", "embeddings", "embed_in", "shared")  # parts of the names of embeddings
_TINY: dict[str, Any] = {"vocab_size": 2000, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
_TINY |= {"num_attention_heads": 2}


@dataclass(frozen=True, slots=True)
class Subject:
    """A model as it is published, but for its weights."""

    name: str
    output: Output
    kind: str  # its classes' name in transformers, without their endings
    head: str  # the ending of the model's class
    max_length: int
    config: Mapping[str, Any]

    @property
    def words(self) -> int:
        """Of the vocabulary as it is made here."""
        return int(self.made()["vocab_size"])

    def made(self) -> dict[str, Any]:
        """The config, small where BENCH_TINY is set."""
        if not TINY:
            return dict(self.config)
        if self.kind == "T5":
            return {**self.config, "vocab_size": 2000, "d_model": 128, "d_ff": 256, "num_layers": 2, "num_heads": 2}
        grouped = {"num_key_value_heads": 1} if "num_key_value_heads" in self.config else {}
        return {**self.config, **_TINY, **grouped}


_LLAMA = {"rms_norm_eps": 1e-5, "tie_word_embeddings": True, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SUBJECTS = (
    Subject(
        "SmolLM2-135M perplexity", "nll", "Llama", "ForCausalLM", 2048,
        _LLAMA | {
            "vocab_size": 49152, "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
            "num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 8192, "rope_theta": 1e5,
        },
    ),
    Subject(
        "Llama-1B perplexity", "nll", "Llama", "ForCausalLM", 2048,
        _LLAMA | {
            "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
            "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rope_theta": 5e5,
        },
    ),
    Subject(
        "MiniLM-L6 embedding", "embedding", "Bert", "Model", 256,
        {
            "vocab_size": 30522, "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6,
            "num_attention_heads": 12, "max_position_embeddings": 512, "pad_token_id": 0,
        },
    ),
    Subject(
        "DeBERTa-v3-large reward", "reward", "DebertaV2", "ForSequenceClassification", 512,
        {
            "vocab_size": 128100, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24,
            "num_attention_heads": 16, "max_position_embeddings": 512, "relative_attention": True,
            "position_buckets": 256, "norm_rel_ebd": "layer_norm", "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"], "position_biased_input": False, "max_relative_positions": -1,
            "type_vocab_size": 0, "num_labels": 1, "pad_token_id": 0,
        },
    ),
    Subject(
        "Pythia-1.4B reward", "reward", "GPTNeoX", "Model", 2048,
        {
            "vocab_size": 50288, "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24,
            "num_attention_heads": 16, "max_position_embeddings": 2048, "rotary_pct": 0.25,
            "use_parallel_residual": True, "pad_token_id": 0,
        },
    ),
    Subject(
        "T5-large UniEval", "yes", "T5", "ForConditionalGeneration", 1024,
        {
            "vocab_size": 32128, "d_model": 1024, "d_kv": 64, "d_ff": 2816, "num_layers": 24, "num_heads": 16,
            "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0,
            "pad_token_id": 0, "eos_token_id": 1,
        },
    ),
)  # fmt: skip


def make_checkpoint(subject: Subject, folder: Path, device: str) -> None:
    """Write the model in half precision, with weights at which every layer matters and nothing saturates.

    A Linear's standard deviation is 1/√in instead of 0.02, that of T5's queries 1/√(in · head), since T5 does not scale
    its products of queries and keys; biases and norms are not 0 and 1. Both sides read the same rounded weights.
    """
    torch.manual_seed(5)
    config = getattr(hf, subject.kind + "Config")(**subject.made())
    with torch.device(device):
        model: PreTrainedModel = getattr(hf, subject.kind + subject.head)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
            elif name.endswith("bias.weight"):  # of relative positions
                parameter.normal_(std=0.5)
            elif any(table in name for table in _TABLES):
                parameter.normal_(std=0.05)
            else:
                scale = _HEAD_WIDTH if name.endswith(".q.weight") else 1
                parameter.normal_(std=(parameter.shape[-1] * scale) ** -0.5)
    model.half().save_pretrained(folder)


def export_graph(subject: Subject, folder: Path, precision: str) -> Path:
    """Our graph of the checkpoint, without the gate: the values are compared on the device itself."""
    checkpoint = Checkpoint(folder)
    path = folder / precision / "model.onnx"
    path.parent.mkdir()
    with checkpoint.weights() as weights:
        save(_tape(subject, checkpoint, weights, Precision(precision)).model(), path)
    return path


def _tape(subject: Subject, checkpoint: Checkpoint, weights: Weights, precision: Precision) -> GraphBuilder:
    config = originals.read_config(checkpoint)
    decoder = subject.output == "nll" or subject.kind == "GPTNeoX"
    table: Mapping[str, Any] = families.CAUSAL if decoder else families.ENCODERS
    if subject.output == "yes":
        table = families.SEQUENCE_TO_SEQUENCE
    backbone = table[config.model_type].from_config(graph_settings(config), max_length=subject.max_length)
    if decoder:
        head = _head(subject) if subject.output == "reward" else None
        return causal.build(backbone, weights, vocabulary=head is None, reward=head, precision=precision)
    if subject.output == "embedding":
        return bidirectional.build_embedding(backbone, weights, pooling="mean", precision=precision)
    if subject.output == "reward":
        return bidirectional.build_reward(backbone, weights, separator=None, precision=precision)
    return t5.build(backbone, weights, yes=YES, no=NO, precision=precision)


def _head(subject: Subject) -> LinearHead:
    """Of a decoder that is a reward model, on its last token."""
    hidden = subject.made()["hidden_size"]
    weight = np.random.default_rng(3).normal(scale=hidden**-0.5, size=(1, hidden))
    return LinearHead(weight.astype(np.float32), np.zeros(1, dtype=np.float32))


class Peer:
    """transformers, asked for no more than the role wants: logits of the scored positions alone, one decoder step."""

    def __init__(self, subject: Subject, folder: Path, *, device: str, dtype: torch.dtype, attention: str) -> None:
        """Load the checkpoint.

        Raises:
            ValueError: the family has no attention of this kind.
        """
        kind = getattr(hf, subject.kind + subject.head)
        self._model = kind.from_pretrained(folder, dtype=dtype, attn_implementation=attention).to(device).eval()
        self._subject = subject
        self._device = device
        self._head = torch.from_numpy(_head(subject).weight).to(device, dtype) if subject.kind == "GPTNeoX" else None

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Values of a batch."""
        with torch.inference_mode():
            values: NDArray[np.float32] = self._values(batch).float().cpu().numpy()
        return values

    def _values(self, batch: Batch) -> torch.Tensor:
        ids, mask = self._put(batch.ids), self._put(batch.mask)
        if self._subject.output == "nll":
            rows, positions = self._put(batch.scored).T
            # Right-padded rows of a causal model need no mask, and without it attention is faster.
            states = self._model.base_model(ids, use_cache=False).last_hidden_state[rows, positions - 1]
            logits = self._model.get_output_embeddings()(states).float()
            return cross_entropy(logits, ids[rows, positions], reduction="none")
        if self._head is not None:
            states = self._model(ids, use_cache=False).last_hidden_state
            last = states[torch.arange(len(ids), device=self._device), mask.sum(dim=1) - 1]
            return (last @ self._head.T)[:, 0]
        if self._subject.output == "embedding":
            states = self._model(ids, attention_mask=mask).last_hidden_state
            summed = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            return normalize(summed, dim=1)
        if self._subject.output == "reward":
            return self._model(input_ids=ids, attention_mask=mask).logits[:, 0]
        start = torch.full((len(ids), 1), self._model.config.decoder_start_token_id, device=self._device)
        logits = self._model(input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False).logits
        return torch.sigmoid((logits[:, 0, YES] - logits[:, 0, NO]).float())

    def _put(self, array: NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)
