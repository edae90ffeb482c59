"""Sentence vectors, and the whole job from file to file."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.comparing import against, measured, ours_scores
from benchmarks.peers.lines import Entry, Run, check_close
from benchmarks.peers.material import RULE, Material
from benchmarks.peers.rounds import Side, Timed

WITHIN = 1e-4  # of a distance between unit vectors, of any column relative to its largest value
NEIGHBOUR = 6
COLUMNS = ("perplexity", "reward", "mtld", "output_length", "knn_6", "predicted_log_loss")
ON_NEIGHBOURS = ("knn_6", "predicted_log_loss")  # the script's search is approximate
FOUND_SHARE = 0.95  # of the rows, at least, for which it must find the sixth


def embedding(run: Run) -> Entry:
    """Texts to unit sentence vectors in float32; ours also finds each row's sixth neighbour, which is checked."""
    torch, onnx = "sentence-transformers, torch", "sentence-transformers, ONNX"
    entry = Entry("embedding")

    def sides(material: Material) -> list[Side]:
        encoder = {
            "rows": str(material.real_rows),
            "encoder": str(material.encoder),
            "onnx_encoder": str(material.kept / "encoder-onnx"),
            "threads": material.threads,
        }
        return [
            ours_scores(material, "knn_6", calibrate=bool(run.rounds)),
            Side(torch, "python", "sentences", "torch", encoder),
            Side(onnx, "python", "sentences", "onnx", encoder),
        ]

    def check(timed: dict[str, Timed]) -> None:
        for name in (torch, onnx):
            if name in timed:
                distances = _sixth(np.array(timed[name].values))
                entry.facts[f"largest difference, {name}"] = check_close(name, distances, timed["ours"].values, WITHIN)

    timed, missing = measured(run, sides, check)
    entry.timed = list(timed.values())
    entry.lines = against(run, "embedding fp32", timed, ((torch, 3.0), (onnx, 1.3)), missing)
    return entry


def job(run: Run) -> Entry:
    """File to file: perplexity, reward, embedding, mtld, knn and the rule."""
    script = "a script of transformers, sentence-transformers, lexicalrichness, pynndescent"
    entry = Entry("job")

    def sides(material: Material) -> list[Side]:
        shared: dict[str, Any] = {"rows": str(material.real_rows), "threads": material.threads}
        theirs = {
            "script_out": str(material.folder / "script.jsonl"),
            "rule": material.rule,
            "checkpoint": str(material.checkpoint),
            "tokenizer": str(material.tokenizer),
            "head": material.head,
            "encoder": str(material.encoder),
        }
        ours = {
            "out": str(material.folder / "ours.jsonl"),
            "bundle": str(material.bundle),
            "rule_name": RULE,
            "indicators": "perplexity,mtld",
            "calibrate": bool(run.rounds),
        }
        return [
            Side("ours", "ours", "ours", "job", shared | ours),
            Side(script, "python", "job_script", "job", shared | theirs),
        ]

    def check(timed: dict[str, Timed]) -> None:
        if script in timed:
            _check_columns(Path(timed["ours"].values), Path(timed[script].values), entry.facts)

    timed, missing = measured(run, sides, check)
    entry.timed = list(timed.values())
    entry.lines = against(run, "whole job, file to file", timed, ((script, 3.5),), missing)
    return entry


def _check_columns(ours: Path, theirs: Path, facts: dict[str, Any]) -> None:
    """All columns; where the script did not find the sixth neighbour, those that follow from it are left out."""
    found, wanted = _rows(ours), _rows(theirs)
    exact = [place for place, row in enumerate(wanted) if row["knn_6"] <= found[place]["knn_6"] + WITHIN]
    facts["share of neighbours that the script found"] = len(exact) / len(wanted)
    for name in COLUMNS:
        places = exact if name in ON_NEIGHBOURS and len(exact) >= FOUND_SHARE * len(wanted) else range(len(wanted))
        one, other = [[rows[place][name] for place in places] for rows in (found, wanted)]
        scale = max(1.0, *map(abs, other))
        facts[f"largest difference, {name}"] = check_close(f"job, {name}", one, other, WITHIN * scale)


def _sixth(vectors: np.ndarray) -> list[float]:
    """Distances to the sixth nearest other row, in float64."""
    vectors = vectors.astype(np.float64)
    distances = np.sqrt(np.maximum(((vectors[:, None] - vectors[None]) ** 2).sum(axis=2), 0))
    found: list[float] = np.sort(distances, axis=1)[:, NEIGHBOUR].tolist()
    return found


def _rows(path: Path) -> Sequence[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
