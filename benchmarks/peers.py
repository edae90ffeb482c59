"""How the peers do the same work: the standard library, transformers, lexicalrichness, scikit-learn, plain Python.

Each is written as its own documentation has it, at the settings that were fastest for it here, and shares no code
with the product.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from lexicalrichness import LexicalRichness
from numpy.typing import NDArray
from sklearn.neighbors import NearestNeighbors
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedModel, PreTrainedTokenizerFast

BATCH_ROWS = 2  # of 2, 4, 8 and 16 the fastest for both models, on 12 rows and 2 cores; try again with more rows
NEIGHBOUR = 6

Group: TypeAlias = list[int]  # rows that share a batch
Batching: TypeAlias = Callable[[Sequence[int]], list[Group]]


def alone(lengths: Sequence[int]) -> list[Group]:
    """Each row by itself: no padding at all."""
    return [[row] for row in range(len(lengths))]


def unsorted_batches(lengths: Sequence[int]) -> list[Group]:
    """Batches in input order."""
    rows = list(range(len(lengths)))
    return [rows[begin : begin + BATCH_ROWS] for begin in range(0, len(rows), BATCH_ROWS)]


def sorted_batches(lengths: Sequence[int]) -> list[Group]:
    """Batches of rows of like length, longest first."""
    rows = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    return [rows[begin : begin + BATCH_ROWS] for begin in range(0, len(rows), BATCH_ROWS)]


@dataclass(frozen=True, slots=True)
class ChatText:
    """A conversation as tokens; its last token closes the response and is not scored."""

    ids: list[int]
    response: int  # position of the response's first token


@dataclass(frozen=True, slots=True)
class ChatBatch:
    """Conversations padded on the right, on the way to a model."""

    rows: Group
    ids: NDArray[np.int64]  # (rows, width)
    mask: NDArray[np.int64]  # (rows, width)


@dataclass(frozen=True, slots=True)
class Models:
    """What the whole job needs, loaded."""

    language_model: PreTrainedModel
    chat_tokenizer: PreTrainedTokenizerFast
    reward_weight: torch.Tensor  # (hidden,)
    reward_bias: float
    sentence_model: PreTrainedModel
    sentence_tokenizer: PreTrainedTokenizerFast


def read(path: Path) -> list[tuple[str, str]]:
    """Prompt and response of each row, with the standard library."""
    pairs = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            pairs.append((prompt, row["output"]))
    return pairs


def tokenize(tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str]]) -> list[ChatText]:
    """All conversations in one call of the fast tokenizer; the response is found by its first character."""
    before = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt, _ in pairs]
    texts = [f"{start}{response}<|im_end|>" for start, (_, response) in zip(before, pairs, strict=True)]
    encoded = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)
    return [ChatText(ids, encoded.char_to_token(row, len(before[row]))) for row, ids in enumerate(encoded["input_ids"])]


def pad(tokenizer: PreTrainedTokenizerFast, texts: Sequence[ChatText], *, budget_tokens: int) -> list[ChatBatch]:
    """Sorted by length over all rows and padded by the tokenizer, under a budget of padded tokens."""
    batches: list[Group] = [[]]
    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row].ids)):
        group = batches[-1]
        if group and (len(group) + 1) * len(texts[group[0]].ids) > budget_tokens:
            batches.append([])
        batches[-1].append(row)
    padded = []
    for group in batches:
        arrays = tokenizer.pad({"input_ids": [texts[row].ids for row in group]}, return_tensors="np")
        padded.append(ChatBatch(group, arrays["input_ids"], arrays["attention_mask"]))
    return padded


def likelihoods(
    model: PreTrainedModel, texts: Sequence[ChatText], batching: Batching, reward: torch.Tensor | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean NLL of each response given its prompt and, with a head, the reward at the last token: (rows,) each.

    Logits are asked for from the batch's first response token on (``logits_to_keep``), the cheapest that the public
    call offers; a row by itself needs no mask.
    """
    losses, rewards = np.zeros(len(texts)), np.zeros(len(texts))
    for group in batching([len(text.ids) for text in texts]):
        ids = pad_sequence([torch.tensor(texts[row].ids) for row in group], batch_first=True)
        lengths = [len(texts[row].ids) for row in group]
        mask = torch.arange(ids.shape[1])[None] < torch.tensor(lengths)[:, None]
        first = min(texts[row].response for row in group) - 1
        with torch.inference_mode():
            output = model(
                input_ids=ids,
                attention_mask=mask.long() if len(group) > 1 else None,
                logits_to_keep=ids.shape[1] - first,
                output_hidden_states=reward is not None,
                use_cache=False,
            )
            for place, row in enumerate(group):
                begin, end = texts[row].response, lengths[place] - 1
                logits = output.logits[place, begin - 1 - first : end - 1 - first]
                losses[row] = cross_entropy(logits, ids[place, begin:end]).item()
                if reward is not None:
                    rewards[row] = (output.hidden_states[-1][place, lengths[place] - 1] @ reward).item()
    return losses, rewards


def embeddings(model: PreTrainedModel, texts: Sequence[Sequence[int]], batching: Batching) -> NDArray[np.float32]:
    """Mean over tokens of the last hidden states at unit length, float32 (rows, size)."""
    vectors: list[torch.Tensor] = [torch.empty(0)] * len(texts)
    for group in batching([len(text) for text in texts]):
        ids = pad_sequence([torch.tensor(texts[row]) for row in group], batch_first=True)
        mask = torch.arange(ids.shape[1])[None] < torch.tensor([len(texts[row]) for row in group])[:, None]
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=mask.long()).last_hidden_state
            means = (states * mask[:, :, None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
            for row, vector in zip(group, normalize(means, dim=1), strict=True):
                vectors[row] = vector
    return torch.stack(vectors).numpy()


def mtld(texts: Sequence[str]) -> list[float]:
    """By lexicalrichness."""
    return [LexicalRichness(text).mtld() for text in texts]


def neighbour_distances(vectors: NDArray[np.float32]) -> NDArray[np.float64]:
    """Distance of each row to its sixth nearest other row, float64 (rows,): scikit-learn, brute force."""
    search = NearestNeighbors(n_neighbors=NEIGHBOUR, algorithm="brute").fit(vectors)
    distances: NDArray[np.float64] = search.kneighbors()[0][:, -1]
    return distances


def predict(intercept: float, terms: dict[str, float], columns: dict[str, NDArray[np.float64]]) -> list[float]:
    """The rule row by row in plain Python."""
    values = {column: columns[column].tolist() for column in terms}
    rows = len(next(iter(values.values())))
    return [intercept + sum(terms[column] * values[column][row] for column in terms) for row in range(rows)]


def select(scored: Path, out: Path, *, top: int, by: str, columns: Sequence[str]) -> None:
    """The best rows without their columns, by the standard library: all rows in memory, sorted, written again."""
    with scored.open(encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    rows.sort(key=lambda row: row[by])
    with out.open("w", encoding="utf-8") as file:
        for row in rows[:top]:
            kept = {name: value for name, value in row.items() if name not in columns}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")


def whole_job(models: Models, source: Path, out: Path, batching: Batching) -> None:
    """From rows to scored rows as one would write it with these libraries; perplexity and reward share one pass."""
    pairs = read(source)
    texts = tokenize(models.chat_tokenizer, pairs)
    losses, rewards = likelihoods(models.language_model, texts, batching, models.reward_weight)
    documents = [f"{prompt}\n{response}" for prompt, response in pairs]
    ids = models.sentence_tokenizer(documents, truncation=True, max_length=256)["input_ids"]
    distances = neighbour_distances(embeddings(models.sentence_model, ids, batching))
    responses = [response for _, response in pairs]
    counts = models.chat_tokenizer(responses, add_special_tokens=False)["input_ids"]
    columns: dict[str, Sequence[Any]] = {
        "output_length": [len(tokens) for tokens in counts],
        "reward": (rewards + models.reward_bias).tolist(),
        "perplexity": np.exp(losses).tolist(),
        "mtld": mtld(responses),
        "knn_6": distances.tolist(),
    }
    with source.open(encoding="utf-8") as rows, out.open("w", encoding="utf-8") as file:
        for number, line in enumerate(rows):
            scored = json.loads(line) | {name: values[number] for name, values in columns.items()}
            file.write(json.dumps(scored, ensure_ascii=False) + "\n")
