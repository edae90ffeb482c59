"""The host's steps as a script of ``datasets.map``: ``python host_path_datasets.py BUNDLE ROWS OUT SETTING``.

Rows are formatted and tokenized in batches for the chat model (the response's tokens known) and for the encoder, the
response is counted, all are sorted by length and padded under a budget of 512 padded tokens, a model of zeros gives
each its values, and the rows with them are written. SETTING: ``threads``, one process in which the tokenizers use their
threads, or ``processes``, two processes without. It needs datasets and transformers, and nothing of ours.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

PROCESSES = sys.argv[4] == "processes"
os.environ["TOKENIZERS_PARALLELISM"] = "false" if PROCESSES else "true"

import datasets  # noqa: E402 - reads the environment
import numpy as np  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402

BUDGET_TOKENS = 512
DOCUMENT_TOKENS = 256  # as the encoder's limit is
BATCH_ROWS = 1000  # datasets' own default


def steps(
    chat: PreTrainedTokenizerFast, encoder: PreTrainedTokenizerFast, batch: dict[str, list[str]]
) -> dict[str, Any]:
    """A batch of rows with the tokens of each role."""
    rows = zip(batch["instruction"], batch["input"], strict=True)
    prompts = [f"{instruction}\n{more}" if more else instruction for instruction, more in rows]
    responses = batch["output"]
    before = [f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n" for prompt in prompts]
    texts = [f"{start}{response}<|im_end|>" for start, response in zip(before, responses, strict=True)]
    conversations = chat(texts, add_special_tokens=False, return_attention_mask=False)
    documents = encoder(
        [f"{prompt}\n{response}" for prompt, response in zip(prompts, responses, strict=True)],
        truncation=True,
        max_length=DOCUMENT_TOKENS,
        return_attention_mask=False,
        return_token_type_ids=False,
    )
    counts = chat(responses, add_special_tokens=False, return_attention_mask=False)
    return {
        "conversation": conversations["input_ids"],
        "first": [conversations.char_to_token(row, len(start)) for row, start in enumerate(before)],
        "document": documents["input_ids"],
        "output_length": [len(ids) for ids in counts["input_ids"]],
    }


def run_zeros(tokenizer: PreTrainedTokenizerFast, texts: list[list[int]]) -> np.ndarray:
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


def main(bundle: Path, rows: str, out: str) -> dict[str, Any]:
    """One round."""
    chat = PreTrainedTokenizerFast(tokenizer_file=str(bundle / "perplexity/tokenizer.json"), pad_token="<|im_end|>")
    encoder = PreTrainedTokenizerFast(
        tokenizer_file=str(bundle / "embedding/tokenizer.json"), pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    datasets.disable_progress_bars()
    with TemporaryDirectory() as cache:
        begin, cpu = time.perf_counter(), time.process_time()
        data = datasets.load_dataset("json", data_files=rows, split="train", cache_dir=cache)
        data = data.map(
            lambda batch: steps(chat, encoder, batch),
            batched=True,
            batch_size=BATCH_ROWS,
            num_proc=2 if PROCESSES else None,
        )
        conversations, documents = data["conversation"][:], data["document"][:]
        perplexity = np.exp(run_zeros(chat, conversations))
        distances = run_zeros(encoder, documents)
        tokens = {"conversation": sum(map(len, conversations)), "document": sum(map(len, documents))}
        data = data.remove_columns(["conversation", "document", "first"])
        data = data.add_column("perplexity", perplexity).add_column("reward", distances).add_column("knn_6", distances)
        data.to_json(out)
        seconds = time.perf_counter() - begin
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "rows": len(data),
        "tokens": tokens,
        "stages": {},
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])))
