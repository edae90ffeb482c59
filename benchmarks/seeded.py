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
BASIS_SHA256 = "9afd22b78408eca5a3d1de19e78bd2acab623a037f158635c9cbf7cf02c603cf"

_SEED = 20261123
_DIMENSIONS = 48
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


def sentence_vectors(rows: int) -> NDArray[np.float32]:
    """float32 (rows, SIZE), of unit length, like sentences' in what a search for neighbours feels.

    They lie near a space of few dimensions, in groups of some thirty, a hundredth of them near duplicates. The digest
    is of the numbers that are drawn, before any rounding of ours.
    """
    draws = np.random.default_rng(_SEED)
    basis = draws.random((_DIMENSIONS, SIZE), dtype=np.float32) - np.float32(0.5)
    _check(basis.tobytes(), BASIS_SHA256)
    groups = draws.random((max(1, rows // 30), _DIMENSIONS), dtype=np.float32) - np.float32(0.5)
    inside = draws.random((rows, _DIMENSIONS), dtype=np.float32) - np.float32(0.5)
    vectors = (groups[draws.integers(len(groups), size=rows)] + inside) @ basis
    near = draws.integers(rows, size=(rows // 100, 2))
    vectors[near[:, 0]] = vectors[near[:, 1]] + np.float32(1e-3) * vectors[near[:, 0]]
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
