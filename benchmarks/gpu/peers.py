"""The same models in transformers, packed and not, sentence-transformers and vLLM, on the same weights."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers as hf
from numpy.typing import NDArray
from tokenizers import Tokenizer, models
from torch.nn.functional import cross_entropy, normalize

from benchmarks.gpu.checkpoints import NO, YES, reward_head
from benchmarks.gpu.subjects import Subject
from instructmining.inference.batching import Batch

# Values of one batch on the host: (n,) NLLs in the order of its scored positions, (rows, size), or (rows,).
Step: TypeAlias = Callable[[Batch], NDArray[np.float32]]


class Transformers:
    """transformers, asked for no more than the role wants: logits of the scored positions alone, one decoder step."""

    def __init__(
        self,
        subject: Subject,
        folder: Path,
        *,
        device: str,
        dtype: torch.dtype,
        attention: str = "sdpa",
        packed: bool = False,
    ) -> None:
        """Load the checkpoint.

        Args:
            subject: which model.
            folder: its checkpoint.
            device: torch's name.
            dtype: of weights and products.
            attention: transformers' name.
            packed: put the rows of a batch one after another in one row without padding; perplexity only.

        Raises:
            ValueError: the family has no attention of this kind.
        """
        kind = getattr(hf, subject.kind + subject.head)
        self._model = kind.from_pretrained(folder, dtype=dtype, attn_implementation=attention).to(device).eval()
        self._subject = subject
        self._device = device
        self._packed = packed
        linear = subject.decoder and subject.output == "reward"
        self._head = torch.from_numpy(reward_head(subject).weight).to(device, dtype) if linear else None

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Values of a batch."""
        with torch.inference_mode():
            values = self._packed_nll(batch) if self._packed else self._values(batch)
            found: NDArray[np.float32] = values.float().cpu().numpy()
        return found

    def _packed_nll(self, batch: Batch) -> torch.Tensor:
        kept = batch.mask.astype(bool)
        starts = np.cumsum([0, *batch.mask.sum(axis=1)])[:-1]
        ids, positions = self._put(batch.ids[kept])[None], self._put(batch.positions[kept])[None]
        places = self._put(starts[batch.scored[:, 0]] + batch.scored[:, 1])
        # Without a mask, positions that begin anew tell transformers where texts begin.
        states = self._model.base_model(ids, position_ids=positions, use_cache=False).last_hidden_state[0, places - 1]
        logits = self._model.get_output_embeddings()(states).float()
        return cross_entropy(logits, ids[0, places], reduction="none")

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


class Sentences:
    """sentence-transformers with mean pooling and normalized vectors."""

    def __init__(self, subject: Subject, folder: Path, *, device: str, dtype: torch.dtype) -> None:
        """Load the checkpoint."""
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415
        from sentence_transformers import models as parts  # noqa: PLC0415

        _write_tokenizer(folder)
        states = parts.Transformer(str(folder), max_seq_length=subject.max_length, model_args={"dtype": dtype})
        pooling = parts.Pooling(subject.config["hidden_size"], pooling_mode="mean")
        self._model = SentenceTransformer(modules=[states, pooling, parts.Normalize()], device=device).eval()
        self._device = device

    def __call__(self, batch: Batch) -> NDArray[np.float32]:
        """Vectors of a batch."""
        with torch.inference_mode():
            ids, mask = (torch.from_numpy(array).to(self._device) for array in (batch.ids, batch.mask))
            found = self._model({"input_ids": ids, "attention_mask": mask})["sentence_embedding"]
            vectors: NDArray[np.float32] = found.float().cpu().numpy()
        return vectors


class VLLM:
    """vLLM's log-probabilities of prompt tokens, in its own order and batches."""

    def __init__(self, subject: Subject, folder: Path) -> None:
        """Load the checkpoint."""
        import vllm  # noqa: PLC0415

        _write_tokenizer(folder)
        self._model = vllm.LLM(
            model=str(folder),
            dtype="float16",
            skip_tokenizer_init=True,
            max_model_len=subject.max_length + 1,
            enable_prefix_caching=False,
            gpu_memory_utilization=0.6,
        )
        self._sampling = vllm.SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)

    def __call__(self, work: Sequence[Batch]) -> Iterator[NDArray[np.float32]]:
        """Values of all batches at once."""
        prompts = [
            {"prompt_token_ids": ids[: mask.sum()].tolist()}
            for batch in work
            for ids, mask in zip(batch.ids, batch.mask, strict=True)
        ]
        rows: Iterator[Any] = iter(self._model.generate(prompts, self._sampling, use_tqdm=False))
        for batch in work:
            found = [next(rows).prompt_logprobs for _ in batch.members]
            values = [-found[row][place][int(batch.ids[row, place])].logprob for row, place in batch.scored.tolist()]
            yield np.array(values, dtype=np.float32)


def installed(package: str) -> bool:
    """Whether a package can be imported."""
    return importlib.util.find_spec(package) is not None


def _write_tokenizer(folder: Path) -> None:
    """Peers that get tokens load a tokenizer all the same."""
    made = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    hf.PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[UNK]").save_pretrained(folder)
