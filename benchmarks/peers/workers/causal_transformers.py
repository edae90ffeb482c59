"""Mean NLL of responses by transformers, float32, as its documentation has it."""

from __future__ import annotations

from typing import Any

import torch
from protocol import Setting, Task, serve, texts_of
from torch.nn.functional import cross_entropy
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM

BATCHINGS = (
    {"batch_rows": 1, "sorted": False},
    *({"batch_rows": rows, "sorted": True} for rows in (2, 4, 8)),
    *({"batch_rows": rows, "sorted": False} for rows in (2, 4)),
)


def groups(lengths: list[int], setting: Setting) -> list[list[int]]:
    """Rows that share a batch, in input order or longest first."""
    rows = list(range(len(lengths)))
    if setting["sorted"]:
        rows.sort(key=lambda row: -lengths[row])
    size = setting["batch_rows"]
    return [rows[begin : begin + size] for begin in range(0, len(rows), size)]


class Perplexity(Task):
    """``keep``: logits only from the batch's first response on, the cheapest that the public call offers."""

    settings = BATCHINGS

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        torch.set_num_threads(material["threads"])
        self.texts = texts_of(material)
        self.keep = material["keep"]
        self.model = AutoModelForCausalLM.from_pretrained(material["checkpoint"], dtype=torch.float32).eval()

    def run(self, setting: Setting) -> list[float]:
        losses = [0.0] * len(self.texts)
        for group in groups([len(text["ids"]) for text in self.texts], setting):
            texts = [self.texts[row] for row in group]
            ids = pad_sequence([torch.tensor(text["ids"]) for text in texts], batch_first=True)
            lengths = torch.tensor([len(text["ids"]) for text in texts])
            first = min(text["response"] for text in texts) - 1 if self.keep else 0
            with torch.inference_mode():
                logits = self.model(
                    input_ids=ids,
                    attention_mask=(torch.arange(ids.shape[1]) < lengths[:, None]).long() if len(group) > 1 else None,
                    logits_to_keep=ids.shape[1] - first if self.keep else 0,
                    use_cache=False,
                ).logits
                for place, (row, text) in enumerate(zip(group, texts, strict=True)):
                    begin, end = text["response"], len(text["ids"])
                    kept = logits[place, begin - 1 - first : end - 1 - first]
                    losses[row] = cross_entropy(kept, ids[place, begin:end]).item()
        return losses


if __name__ == "__main__":
    serve({"perplexity": Perplexity}, ("transformers", "torch"))
