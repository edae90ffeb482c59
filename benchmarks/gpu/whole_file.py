"""Step ``file``: ``instructmining score`` by a whole rule from file to file, with models of true shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from benchmarks.gpu.checkpoints import Made, make
from benchmarks.gpu.parts import Measure, Part, Place
from benchmarks.gpu.rows import lengths
from benchmarks.gpu.subjects import EMBEDDING, REWARD_V1, REWARD_V3, TINY, UNIEVAL, Subject, named
from benchmarks.machine import ROOT
from instructmining.bundle import PrecisionName, RoleName
from instructmining_export import templates
from instructmining_export.bundles import BundleWriter, RoleEntry

_Template: TypeAlias = Callable[[Tokenizer], dict[str, Any]]
# By rule: each role's model and template.
_RULES: Mapping[str, Mapping[RoleName, tuple[str, _Template]]] = {
    "paper-v1": {
        "reward": (REWARD_V1, templates.pair),
        "embedding": (EMBEDDING, lambda _: templates.sentence("</s>", "</s>")),
    },
    "paper-v3": {
        "reward": (REWARD_V3, lambda _: templates.open_assistant()),
        "unieval": (UNIEVAL, lambda _: templates.unieval()),
    },
}
_OUTPUTS: Mapping[RoleName, str] = {"reward": "reward", "embedding": "embedding", "unieval": "yes"}
ROWS = int(os.environ.get("BENCH_FILE_ROWS", "40" if TINY else "20000"))
PAPER_ROWS_S = 11  # of the authors' own code, on hardware that is not known
_SPECIALS = ["<pad>", "</s>", "<|endoftext|>", "<|prompter|>", "<|assistant|>"]
_WORDS = 1200


def file_parts() -> list[Part]:
    return [Part("file", rule, _file(rule), 120) for rule in _RULES]


def _file(rule: str) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        subjects = {subject.name: subject for subject in named(*(name for name, _ in _RULES[rule].values()))}
        made = {name: make(subject, place.models, place.device, place.precision) for name, subject in subjects.items()}
        words = _words()
        place.models.mkdir(parents=True, exist_ok=True)
        # On the models' disk, for links to them.
        with tempfile.TemporaryDirectory(dir=place.models) as name:
            folder = Path(name)
            _write_bundle(rule, subjects, made, folder / "bundle", _tokenizer(words), place.precision)
            _write_rows(folder / "rows.jsonl", words)
            yield _scored(rule, folder, place)

    return measure


def _scored(rule: str, folder: Path, place: Place) -> dict[str, Any]:
    """Rows a second and the run file's figures; the process's start and the loading of the models are in the time."""
    command = [sys.executable, "-m", "instructmining", "score", str(folder / "rows.jsonl")]
    command += ["-o", str(folder / "out.jsonl"), "--bundle", str(folder / "bundle"), "--rule", rule]
    command += ["--device", place.device.kind]
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()[-300:]}")
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


def _write_bundle(
    rule: str,
    subjects: Mapping[str, Subject],
    made: Mapping[str, Made],
    folder: Path,
    tokenizer: Tokenizer,
    precision: PrecisionName,
) -> None:
    roles = _RULES[rule]
    with BundleWriter(folder, frozenset(roles)) as bundle:
        for role, (name, template) in roles.items():
            for file in made[name].graph.parent.glob("model.onnx*"):
                os.link(file, bundle.file(f"{role}/{file.name}"))
            tokenizer.save(str(bundle.file(f"{role}/tokenizer.json")))
            content = json.dumps({"output": _OUTPUTS[role], "rows": []})
            bundle.file(f"{role}/references.json").write_text(content, encoding="utf-8")
            bundle.roles[role] = RoleEntry(
                graph=f"{role}/model.onnx",
                tokenizer=f"{role}/tokenizer.json",
                template=template(tokenizer),
                max_length=subjects[name].max_length,
                source={"id": f"random weights, shape of {name}", "revision": "0", "licence": "Apache-2.0"},
                parity={},
                references=f"{role}/references.json",
                precision=precision,
                multiply_adds=dict(made[name].multiply_adds),
            )
        bundle.finish(name="random weights", default_rule=rule, length_tokenizer="reward")


def _write_rows(path: Path, words: list[str]) -> None:
    generator = np.random.default_rng(29)
    chosen = np.array(words)
    with path.open("w", encoding="utf-8") as lines:
        for prompt, response in zip(*lengths(ROWS), strict=True):
            texts = (" ".join(generator.choice(chosen, size=size)) for size in (prompt, response))
            lines.write(json.dumps(dict(zip(("instruction", "output"), texts, strict=True))) + "\n")
