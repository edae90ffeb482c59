"""The host's steps as a script of ``datasets.map``.

Rows are formatted and tokenized in batches for the chat model (the response's tokens known) and for the encoder, the
response is counted, all are sorted by length and padded under a budget of 512 padded tokens, a model of zeros gives
each its values, and the rows with them are written.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
import numpy as np
from protocol import Setting, Task, serve
from transformers import PreTrainedTokenizerFast

BUDGET_TOKENS = 512
DOCUMENT_TOKENS = 256  # as the encoder's limit is
BATCH_ROWS = 1000  # datasets' own default


class Host(Task):
    """In one process in which the tokenizers use their threads, or in two without."""

    settings = ({"processes": 1}, {"processes": 2})

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        self.rows, self.out = material["rows"], material["out"]
        bundle = Path(material["bundle"])
        self.chat = PreTrainedTokenizerFast(
            tokenizer_file=str(bundle / "perplexity/tokenizer.json"), pad_token="<|im_end|>"
        )
        self.encoder = PreTrainedTokenizerFast(
            tokenizer_file=str(bundle / "embedding/tokenizer.json"),
            pad_token="[PAD]",
            cls_token="[CLS]",
            sep_token="[SEP]",
        )
        datasets.disable_progress_bars()

    def run(self, setting: Setting) -> str:
        processes = setting["processes"]
        os.environ["TOKENIZERS_PARALLELISM"] = "true" if processes == 1 else "false"  # read at each call
        with TemporaryDirectory() as cache:
            data = datasets.load_dataset("json", data_files=self.rows, split="train", cache_dir=cache)
            num_proc = processes if processes > 1 else None
            data = data.map(self.tokenized, batched=True, batch_size=BATCH_ROWS, num_proc=num_proc)
            conversations, documents = data["conversation"][:], data["document"][:]
            perplexity = np.exp(zeros(self.chat, conversations))
            distances = zeros(self.encoder, documents)
            data = data.remove_columns(["conversation", "document", "first"])
            data = data.add_column("perplexity", perplexity).add_column("reward", distances)
            data.add_column("knn_6", distances).to_json(self.out)
        self.facts = {"tokens": sum(map(len, conversations)) + sum(map(len, documents))}
        return self.out

    def tokenized(self, batch: dict[str, list[str]]) -> dict[str, Any]:
        """A batch of rows with the tokens of each role."""
        rows = zip(batch["instruction"], batch["input"], strict=True)
        prompts = [f"{instruction}\n{more}" if more else instruction for instruction, more in rows]
        responses = batch["output"]
        before = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in prompts]
        texts = [f"{start}{response}<|im_end|>" for start, response in zip(before, responses, strict=True)]
        conversations = self.chat(texts, add_special_tokens=False, return_attention_mask=False)
        documents = self.encoder(
            [f"{prompt}\n{response}" for prompt, response in zip(prompts, responses, strict=True)],
            truncation=True,
            max_length=DOCUMENT_TOKENS,
            return_attention_mask=False,
            return_token_type_ids=False,
        )
        counts = self.chat(responses, add_special_tokens=False, return_attention_mask=False)
        return {
            "conversation": conversations["input_ids"],
            "first": [conversations.char_to_token(row, len(start)) for row, start in enumerate(before)],
            "document": documents["input_ids"],
            "output_length": [len(ids) for ids in counts["input_ids"]],
        }


def zeros(tokenizer: PreTrainedTokenizerFast, texts: list[list[int]]) -> np.ndarray:
    """Every text in a padded batch once, longest first; the model gives each zero."""
    values = np.ones(len(texts), dtype=np.float32)
    group: list[int] = []

    def run() -> None:
        padded = tokenizer.pad({"input_ids": [texts[row] for row in group]}, return_tensors="np")
        values[group] = (padded["input_ids"] * padded["attention_mask"]).sum(axis=1) * 0.0

    for row in sorted(range(len(texts)), key=lambda row: -len(texts[row])):
        if group and (len(group) + 1) * len(texts[group[0]]) > BUDGET_TOKENS:
            run()
            group = []
        group.append(row)
    run()
    return values


if __name__ == "__main__":
    serve({"host": Host}, ("datasets", "transformers", "tokenizers"))
