"""The whole job from file to file as one would write it: transformers, sentence-transformers, lexicalrichness and
pynndescent. Perplexity and reward come from one pass; models are loaded before.
"""

from __future__ import annotations

import json
import math
from typing import Any

import torch
from lexicalrichness import LexicalRichness
from protocol import Setting, Task, pairs_of, serve
from pynndescent import NNDescent
from sentence_transformers import SentenceTransformer
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

NEIGHBOUR = 6
ENCODER_BATCH_ROWS = 4


class Job(Task):
    """Settings: the language model's batches, which take nearly all of the time."""

    settings = (
        {"batch_rows": 1, "sorted": False},
        {"batch_rows": 2, "sorted": True},
        {"batch_rows": 4, "sorted": True},
        {"batch_rows": 4, "sorted": False},
    )

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        torch.set_num_threads(material["threads"])
        self.rows, self.out, self.rule = material["rows"], material["script_out"], material["rule"]
        self.model = AutoModelForCausalLM.from_pretrained(material["checkpoint"], dtype=torch.float32).eval()
        self.tokenizer = PreTrainedTokenizerFast(tokenizer_file=material["tokenizer"], pad_token="<|im_end|>")
        self.head = torch.tensor(material["head"]["weight"], dtype=torch.float32).flatten()
        self.bias = float(material["head"]["bias"])
        self.encoder = SentenceTransformer(material["encoder"], device="cpu")
        NNDescent(torch.rand(200, 384).numpy(), metric="euclidean")  # compiles

    def run(self, setting: Setting) -> str:
        pairs = pairs_of(self.rows)
        losses, rewards = self.language_model(pairs, setting)
        documents = [f"{prompt}\n{response}" for prompt, response in pairs]
        vectors = self.encoder.encode(documents, batch_size=ENCODER_BATCH_ROWS, show_progress_bar=False)
        neighbours = min(30, len(vectors) - 1)  # 30 is its default; it takes no more than there are rows
        distances = NNDescent(vectors, metric="euclidean", n_neighbors=neighbours).neighbor_graph[1][:, NEIGHBOUR]
        responses = [response for _, response in pairs]
        counts = self.tokenizer(responses, add_special_tokens=False)["input_ids"]
        with open(self.rows, encoding="utf-8") as source, open(self.out, "w", encoding="utf-8") as out:  # noqa: PTH123
            for number, line in enumerate(source):
                columns = {
                    "output_length": len(counts[number]),
                    "reward": rewards[number],
                    "perplexity": math.exp(losses[number]),
                    "mtld": LexicalRichness(responses[number]).mtld(),
                    "knn_6": float(distances[number]),
                }
                columns["predicted_log_loss"] = self.rule["intercept"] + sum(
                    weight * columns[name] for name, weight in self.rule["terms"].items()
                )
                out.write(json.dumps(json.loads(line) | columns, ensure_ascii=False) + "\n")
        return self.out

    def language_model(self, pairs: list[tuple[str, str]], setting: Setting) -> tuple[list[float], list[float]]:
        """Mean NLL of each response and reward at the token that closes it."""
        before = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt, _ in pairs]
        texts = [f"{start}{response}<|im_end|>" for start, (_, response) in zip(before, pairs, strict=True)]
        encoded = self.tokenizer(texts, add_special_tokens=False)
        ids = encoded["input_ids"]
        starts = [encoded.char_to_token(row, len(start)) for row, start in enumerate(before)]
        order = list(range(len(ids)))
        if setting["sorted"]:
            order.sort(key=lambda row: -len(ids[row]))
        losses, rewards = [0.0] * len(ids), [0.0] * len(ids)
        for begin in range(0, len(order), setting["batch_rows"]):
            group = order[begin : begin + setting["batch_rows"]]
            batch = pad_sequence([torch.tensor(ids[row]) for row in group], batch_first=True)
            lengths = torch.tensor([len(ids[row]) for row in group])
            first = min(starts[row] for row in group) - 1
            with torch.inference_mode():
                output = self.model(
                    input_ids=batch,
                    attention_mask=(torch.arange(batch.shape[1]) < lengths[:, None]).long() if len(group) > 1 else None,
                    logits_to_keep=batch.shape[1] - first,
                    output_hidden_states=True,
                    use_cache=False,
                )
                for place, row in enumerate(group):
                    start, end = starts[row], len(ids[row]) - 1
                    logits = output.logits[place, start - 1 - first : end - 1 - first]
                    losses[row] = cross_entropy(logits, batch[place, start:end]).item()
                    rewards[row] = (output.hidden_states[-1][place, end] @ self.head).item() + self.bias
        return losses, rewards


if __name__ == "__main__":
    serve({"job": Job}, ("transformers", "sentence-transformers", "lexicalrichness", "pynndescent", "torch"))
