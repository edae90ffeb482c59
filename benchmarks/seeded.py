"""Rows and vectors made from a seed: the same on every machine, which the digests asserted here prove."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

ROWS = 5000
SIZE = 384  # of a vector, as the demo's embeddings have
ROWS_SHA256 = "e89a5c1e1b624382634c235eaaaf16c9e5087bda34d694ae7f91cb855cf05d2d"
VECTORS_SHA256 = "5898fd95b8a416627a5fa147c8d82ad5fb5acc8e70d4bfd053ccc2f002c47930"
COLUMNS_SHA256 = "f0004cb466537aeabb8ba07488941d4c367987cf801635bdd5ee0ecd29600f27"

_SEED = 20261123
_WORDS = (  # noqa: SIM905 - a list of them would be a page
    "the of and to a in is that for it as with on be at by this from or an are was but not have which one you were "
    "all there when can more if no out so said what up its about than into them only other new some could time these "
    "two may then do first any my now such like our over man even most after also made many before must through back "
    "years where much your way well down should because each just those people too little state good very make world "
    "still own see men work long here get both between life being under never day same another know while last might "
    "great old year off come since against go came right used take three water list write explain answer question "
    "number garden bread science history energy temperature describe language computer programme example sentence "
    "mountain river company customer marketing recipe ingredients university government environment technology"
).split()


def write_rows(path: Path, rows: int = ROWS) -> Path:
    """Alpaca rows of made-up sentences as JSON lines; a third have an input, responses are of 3 to 200 words."""
    random = Random(_SEED)
    lines = []
    for _ in range(rows):
        row = {
            "instruction": _sentences(random, 4 + int(16 * random.random())),
            "input": _sentences(random, 3 + int(37 * random.random())) if random.random() < 1 / 3 else "",
            "output": _sentences(random, 3 + int(197 * random.random() ** 3)),
        }
        lines.append(json.dumps(row) + "\n")
    content = "".join(lines).encode()
    if rows == ROWS:
        _check(content, ROWS_SHA256)
    path.write_bytes(content)
    return path


def write_scored(path: Path, columns: dict[str, NDArray[np.float64]]) -> Path:
    """The rows with columns behind their own fields, as ``score`` writes them."""
    rows = write_rows(path).read_bytes().splitlines()
    names = list(columns)
    lines = [
        row[:-1] + b"," + json.dumps(dict(zip(names, values, strict=True)), separators=(",", ":")).encode()[1:] + b"\n"
        for row, values in zip(rows, np.stack(list(columns.values()), axis=1).tolist(), strict=False)
    ]
    path.write_bytes(b"".join(lines))
    return path


def columns(rows: int) -> dict[str, NDArray[np.float64]]:
    """The terms of the rule ``paper-v1``, uniform in ranges like those of real rows, float64 (rows,) each."""
    drawn = np.random.default_rng(_SEED).random((3, rows))
    if rows == ROWS:
        _check(drawn.tobytes(), COLUMNS_SHA256)
    return {"reward": 4 * drawn[0] - 2, "output_length": np.floor(400 * drawn[1]), "knn_6": 0.5 + drawn[2]}


def unit_vectors() -> NDArray[np.float32]:
    """float32 (ROWS, SIZE), of unit length; the digest is of the numbers drawn, before any rounding of ours."""
    drawn = np.random.default_rng(_SEED).random((ROWS, SIZE), dtype=np.float32)
    _check(drawn.tobytes(), VECTORS_SHA256)
    vectors = drawn - np.float32(0.5)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _sentences(random: Random, words: int) -> str:
    """Words with the common ones more often, in sentences of 12."""
    chosen = [_WORDS[int(len(_WORDS) * random.random() ** 2)] for _ in range(words)]
    sentences = [" ".join(chosen[begin : begin + 12]) for begin in range(0, words, 12)]
    return " ".join(sentence.capitalize() + "." for sentence in sentences)


def _check(content: bytes, wanted: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != wanted:
        raise RuntimeError(f"seeded data: sha256 {found}, wanted {wanted}; figures of other data cannot be compared")
