"""What no run is trained on: evaluation sets, rows near theirs, and rows kept for the comparison."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from instructmining.errors import InputError
from instructmining.types import Example
from instructmining_experiments.designing.embedding import Embed, distances_to_nearest
from instructmining_experiments.state.plan import EvaluationSet, LeftOut, PoolFile

MOST_HELD_OUT = 0.5  # of a file's rows
_EVALUATION, _RESERVE = 1, 2  # streams of random numbers


@dataclass(frozen=True, slots=True)
class PoolPart:
    """The rows of a file in the scored pool."""

    path: str
    rows: range


def parts_of(files: Sequence[PoolFile]) -> list[PoolPart]:
    """Return which rows of the pool each file has."""
    parts, begin = [], 0
    for file in files:
        parts.append(PoolPart(file.path, range(begin, begin + file.rows)))
        begin += file.rows
    return parts


def given_sets(parts: Sequence[PoolPart]) -> tuple[EvaluationSet, ...]:
    """Return a set for each evaluation file.

    Raises:
        InputError: a file has no row.
    """
    for part in parts:
        if not part.rows:
            raise InputError(f"{part.path}: has no row that can be scored; an evaluation set needs some")
    names = _names([part.path for part in parts])
    return tuple(EvaluationSet(name, part.path, tuple(part.rows)) for name, part in zip(names, parts, strict=True))


def drawn_sets(
    parts: Sequence[PoolPart], candidates: Collection[int], rows: int, *, seed: int
) -> tuple[EvaluationSet, ...]:
    """Draw a set from the first file of the pool and one from the last, or two from the only one.

    Args:
        parts: of the pool.
        candidates: rows that may be drawn.
        rows: of each set.
        seed: of the draw.

    Raises:
        InputError: a file has too few rows.
    """
    ends = [parts[0], parts[-1]]
    sets: list[EvaluationSet] = []
    names = _names([part.path for part in ends])
    for number, (name, part) in enumerate(zip(names, ends, strict=True)):
        free = [row for row in part.rows if row in candidates]
        most = int(len(free) * MOST_HELD_OUT) // (2 if len(parts) == 1 else 1)
        if rows > most:
            raise InputError(
                f"{part.path}: has {len(free):,} rows to draw an evaluation set from, too few for --evaluation-rows "
                f"{rows}; " + (f"give {most} or less, or --evaluation FILE" if most else "give --evaluation FILE")
            )
        taken = set(sets[0].rows) if sets else set()
        free = [row for row in free if row not in taken]
        rng = np.random.default_rng([seed, _EVALUATION, number])
        drawn = rng.choice(np.array(free), size=rows, replace=False)
        sets.append(EvaluationSet(name, part.path, tuple(sorted(int(row) for row in drawn))))
    return tuple(sets)


def _names(paths: Sequence[str]) -> list[str]:
    """Return the names of files without their suffixes, with a number where two are the same."""
    stems = [Path(path).name.split(".")[0] or "evaluation" for path in paths]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: number + 1].count(stem)}"
        for number, stem in enumerate(stems)
    ]


def repeats(examples: Sequence[Example], rows: range) -> set[int]:
    """Return the rows whose turns are those of an earlier row."""
    seen: set[object] = set()
    found = set()
    for row in rows:
        if examples[row].turns in seen:
            found.add(row)
        seen.add(examples[row].turns)
    return found


def near_rows(
    examples: Sequence[Example],
    candidates: Sequence[int],
    sets: Sequence[EvaluationSet],
    distance: float,
    embed: Embed | None,
) -> tuple[LeftOut, ...]:
    """Return the candidates that are too near to an evaluation row: those of the same prompt, and of a near embedding.

    Args:
        examples: of the scored pool.
        candidates: rows that are to be trained on.
        sets: evaluation sets.
        distance: Euclidean, between unit vectors; a row closer than this is too near.
        embed: embeds examples; without it only rows of the same prompt are found.
    """
    held_out = sorted({row for one in sets for row in one.rows})
    same: Mapping[object, int] = {_prompt(examples[row]): row for row in reversed(held_out)}
    found = {row: LeftOut(row, same[prompt], 0.0) for row in candidates if (prompt := _prompt(examples[row])) in same}
    others = [row for row in candidates if row not in found]
    if embed is not None and others:
        vectors = embed([examples[row] for row in (*held_out, *others)])
        points, queries = vectors[: len(held_out)], vectors[len(held_out) :]
        distances = distances_to_nearest(points, queries)
        for place in np.flatnonzero(distances < distance).tolist():
            apart = np.linalg.norm(points.astype(np.float64) - queries[place].astype(np.float64), axis=1)
            found[others[place]] = LeftOut(others[place], held_out[int(apart.argmin())], float(distances[place]))
    return tuple(found[row] for row in sorted(found))


def _prompt(example: Example) -> object:
    """Return all turns before the response."""
    return example.turns[:-1]


def reserved_rows(candidates: Sequence[int], fraction: float, *, seed: int) -> tuple[int, ...]:
    """Draw the rows that no run sees, a share of all, rounded to the nearest row."""
    rng = np.random.default_rng([seed, _RESERVE])
    drawn = rng.choice(np.array(candidates, dtype=np.int64), size=round(len(candidates) * fraction), replace=False)
    return tuple(sorted(int(row) for row in drawn))
