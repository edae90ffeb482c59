"""``instructmining score --rule paper-v3`` from file to file, over the graphs that ``speed.py`` made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from benchmarks.gpu.models import SUBJECTS, TINY
from benchmarks.gpu.rows import lengths
from instructmining.bundle import RoleName
from instructmining.inference.devices import Device
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter, RoleEntry

REWARD, UNIEVAL = "Pythia-1.4B reward", "T5-large UniEval"
ROWS = int(os.environ.get("BENCH_FILE_ROWS", "40" if TINY else "20000"))
PAPER_ROWS_S = 11  # of the authors' own code, on hardware that is not known
_SPECIALS = ["<pad>", "</s>", "<|endoftext|>", "<|prompter|>", "<|assistant|>"]
_WORDS = 1200


def score(graphs: Mapping[str, Path], folder: Path, device: Device, precision: str) -> dict[str, Any]:
    """Rows a second and the run file's figures; the process's start and the loading of the models are in the time."""
    folder.mkdir()
    words = _words()
    tokenizer = _tokenizer(words)
    _write_bundle(graphs, folder / "bundle", tokenizer, precision)
    _write_rows(folder / "rows.jsonl", words)
    code = "from instructmining_cli.main import main; main()"
    command = [sys.executable, "-c", code, "score", str(folder / "rows.jsonl"), "-o", str(folder / "out.jsonl")]
    command += ["--bundle", str(folder / "bundle"), "--rule", "paper-v3", "--device", device.kind]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - begin
    if done.returncode:
        return {"failed": f"exit code {done.returncode}: {done.stderr.strip()[-500:]}"}
    with (folder / "out.jsonl").open("rb") as lines:
        rows = sum(1 for _ in lines)
    run_file = json.loads((folder / "out.jsonl.run.json").read_bytes())
    return {
        "rows": rows,
        "seconds": round(seconds, 2),
        "rows_s": round(rows / seconds, 1),
        "times_the_papers": round(rows / seconds / PAPER_ROWS_S, 2),
        "run_file": {name: value for name, value in run_file.items() if name not in {"bundle", "rule", "caution"}},
    }


def _words() -> list[str]:
    """Words that are one token each, a space before."""
    generator = np.random.default_rng(23)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return sorted({"".join(generator.choice(letters, size=5)) for _ in range(_WORDS)})


def _tokenizer(words: list[str]) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    # The merges of 1,200 words of five letters do not all fit into a tiny model's vocabulary.
    trainer = trainers.BpeTrainer(
        vocab_size=1900 if TINY else 20000, special_tokens=_SPECIALS, initial_alphabet=alphabet, show_progress=False
    )
    made.train_from_iterator([" ".join(["", *words])], trainer)
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", made.token_to_id("</s>"))]
    )
    return made


def _write_bundle(graphs: Mapping[str, Path], folder: Path, tokenizer: Tokenizer, precision: str) -> None:
    roles: dict[RoleName, tuple[str, dict[str, Any]]] = {
        "reward": (REWARD, templates.open_assistant()),
        "unieval": (UNIEVAL, templates.unieval()),
    }
    limits = {subject.name: subject.max_length for subject in SUBJECTS}
    with BundleWriter(folder, frozenset(roles)) as bundle:
        for role, (name, template) in roles.items():
            for file in graphs[name].parent.glob("model.onnx*"):
                os.link(file, bundle.file(f"{role}/{file.name}"))
            tokenizer.save(str(bundle.file(f"{role}/tokenizer.json")))
            bundle.file(f"{role}/references.json").write_text('{"output": "reward", "rows": []}', encoding="utf-8")
            bundle.roles[role] = RoleEntry(
                graph=f"{role}/model.onnx",
                tokenizer=f"{role}/tokenizer.json",
                template=template,
                max_length=limits[name],
                source={"id": f"random weights, shape of {name}", "revision": "0", "licence": "Apache-2.0"},
                parity={},
                references=f"{role}/references.json",
                precision=precision,
            )
        bundle.finish(name="random weights", default_rule="paper-v3", length_tokenizer="reward")


def _write_rows(path: Path, words: list[str]) -> None:
    generator = np.random.default_rng(29)
    chosen = np.array(words)
    with path.open("w", encoding="utf-8") as lines:
        for prompt, response in zip(*lengths(ROWS), strict=True):
            texts = (" ".join(generator.choice(chosen, size=size)) for size in (prompt, response))
            lines.write(json.dumps(dict(zip(("instruction", "output"), texts, strict=True))) + "\n")
