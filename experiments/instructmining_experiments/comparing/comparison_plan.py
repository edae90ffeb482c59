"""What a comparison will train: rows that no run has seen, selected by each method, written once."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.bundle import Bundle
from instructmining.errors import InputError, OutputError
from instructmining.rules import Rule
from instructmining.types import Example
from instructmining.writing.atomic import write_whole
from instructmining_experiments.comparing.selections import (
    NAMES,
    NEAREST,
    RANDOM,
    RULE,
    Repetitions,
    Selection,
    checked_methods,
    per_file,
    selections,
)
from instructmining_experiments.designing.drawing import Drawable
from instructmining_experiments.designing.embedding import Embed, distances_to_nearest, embedder
from instructmining_experiments.designing.held_out import near_rows, parts_of, repeats
from instructmining_experiments.designing.scoring import Progress, digest_of, score_pool
from instructmining_experiments.state.plan import Plan, content_digest
from instructmining_experiments.state.pool import SCORED, Pool
from instructmining_experiments.state.runs import RUNS

COMPARISON = "comparison"  # folder in the experiment's
SELECTIONS = "selections.json"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """What to compare."""

    methods: tuple[str, ...] = NAMES  # besides the rule and random rows
    seeds: int = 3  # runs of each method
    random: int = 5  # draws of random rows
    subset_tokens: int | None = None  # of a selection; None for those of the plan's subsets
    near: float = 0.2  # distance of embeddings below which a new row is too near to an evaluation row


@dataclass(frozen=True, slots=True)
class ComparisonPlan:
    """The selections of a comparison."""

    rule: str
    rule_digest: str
    files: Mapping[str, tuple[int, int]]  # that are selected from → first row and the one after the last
    candidates: int  # rows to select from
    candidate_tokens: int
    left: Mapping[str, int]  # why rows are not selected from → rows
    left_out_methods: tuple[str, ...]  # asked for, but without a column or an embedding role
    subset_tokens: int
    selections: tuple[Selection, ...]

    @property
    def parts(self) -> dict[str, range]:
        """The rows of each file."""
        return {name: range(*ends) for name, ends in self.files.items()}

    def from_files(self, method: str) -> dict[str, int]:
        """Return how many rows of each file a method's selections hold together."""
        rows = [row for one in self.selections if one.method == method for row in one.rows]
        return per_file(rows, self.parts)

    def save(self, folder: Path, asked: Mapping[str, object]) -> None:
        """Write it, with what it was asked for.

        Raises:
            OutputError: it cannot be written.
        """
        content = {"format": FORMAT, "asked": dict(asked), **asdict(self)}
        document = {"digest": content_digest(content), **content}
        write_whole(folder / SELECTIONS, orjson.dumps(document, option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, folder: Path) -> tuple[ComparisonPlan, Mapping[str, object]] | None:
        """Read it, with what it was asked for; None where there is none.

        Raises:
            InputError: it is damaged or was edited.
        """
        file = folder / SELECTIONS
        try:
            content: dict[str, Any] = orjson.loads(file.read_bytes())
            digest = content.pop("digest")
            if content_digest(content) != digest or content.pop("format") != FORMAT:
                raise InputError(f"{file}: was edited or is of another version; give --overwrite to select again")
            asked = content.pop("asked")
            content["files"] = {name: tuple(ends) for name, ends in content["files"].items()}
            content["left_out_methods"] = tuple(content["left_out_methods"])
            content["selections"] = tuple(
                Selection(**one | {"rows": tuple(one["rows"])}) for one in content["selections"]
            )
            return cls(**content), asked
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{file}: is not a comparison: {error}; give --overwrite to select again") from error


@dataclass(frozen=True, slots=True)
class Known:
    """What a comparison is made from."""

    folder: Path  # of the experiment
    plan: Plan
    pool: Pool  # of the plan
    plan_sha256: str


@dataclass(frozen=True, slots=True)
class Scoring:
    """How new rows are scored, where there are any."""

    open_bundle: Callable[[], Bundle]
    device: str = "auto"
    progress: Progress = lambda _what, _share: None


def select(
    known: Known, files: Sequence[str], options: CompareOptions, rule: Rule, scoring: Scoring, *, overwrite: bool
) -> tuple[ComparisonPlan, Pool]:
    """Return the selections and the pool that their rows are numbers of; written once.

    Args:
        known: the experiment.
        files: new rows; none to select from the rows that the plan reserved.
        options: what to compare.
        rule: that is tested.
        scoring: of new rows, and the bundle whose embeddings find the nearest rows.
        overwrite: replace another comparison.

    Raises:
        InputError: the rows are too few, or a file cannot be read.
        OutputError: the folder holds another comparison.
        BundleError: the bundle is not the one that scored the pool.
    """
    place = known.folder / COMPARISON
    asked = _asked(known, files, options, rule)
    found = None if overwrite else ComparisonPlan.load(place)
    if found is not None and found[1] != asked:
        name = next(name for name in asked if found[1].get(name) != asked[name])
        raise OutputError(f"{place}: holds another comparison, of another {name}; give --overwrite to replace it")
    if found is not None:
        return found[0], Pool.read(place / SCORED, known.plan.indicators) if files else known.pool
    _clear(place)
    place.mkdir(exist_ok=True)
    drawn, pool = _draw(known, files, replace(options, methods=checked_methods(options.methods)), rule, scoring)
    drawn.save(place, asked)
    return drawn, pool


def _asked(known: Known, files: Sequence[str], options: CompareOptions, rule: Rule) -> dict[str, object]:
    """Return all that the selections depend on, as JSON.

    Raises:
        InputError: a file cannot be read.
    """
    return {
        "plan": known.plan_sha256,
        "rule": {"id": rule.id, "intercept": rule.intercept, "terms": dict(rule.terms)},
        "pool": [digest_of(file) for file in files],
        **asdict(options),
        "methods": list(options.methods),
    }


def _clear(place: Path) -> None:
    """Remove the runs of another comparison, which :data:`SELECTIONS` no longer tells apart."""
    if (place / SELECTIONS).exists():
        (place / SELECTIONS).unlink()
    runs = place / RUNS
    if runs.exists():
        shutil.rmtree(runs)


def _draw(
    known: Known, files: Sequence[str], options: CompareOptions, rule: Rule, scoring: Scoring
) -> tuple[ComparisonPlan, Pool]:
    plan = known.plan
    wants_bundle = files or NEAREST in options.methods
    bundle = _checked_bundle(scoring.open_bundle(), plan) if wants_bundle else None
    embed = embedder(bundle, scoring.device) if bundle is not None else None
    if files and bundle is not None:
        pool, parts, rows, left = _new_rows(known, files, options, bundle, embed, scoring)
    else:
        pool, rows, left = known.pool, np.array(plan.reserved, dtype=np.int64), {}
        parts = {part.path: (part.rows.start, part.rows.stop) for part in parts_of(plan.files)}
    candidates = Drawable(rows, pool.tokens[rows], {name: values[rows] for name, values in pool.columns.items()})
    wants_distances = NEAREST in options.methods and embed is not None
    distances = _distances(known, [pool.examples[row] for row in rows], embed) if wants_distances and embed else None
    tokens = options.subset_tokens or plan.subset_tokens
    repetitions = Repetitions(options.seeds, options.random, tokens, plan.seed)
    drawn = selections(candidates, options.methods, repetitions, rule=rule, distances=distances)
    made = {RULE, RANDOM, *(one.method for one in drawn)}
    return (
        ComparisonPlan(
            rule=rule.id,
            rule_digest=rule.digest,
            files=parts,
            candidates=len(rows),
            candidate_tokens=int(candidates.tokens.sum()),
            left=left,
            left_out_methods=tuple(name for name in options.methods if name not in made),
            subset_tokens=tokens,
            selections=drawn,
        ),
        pool,
    )


def _checked_bundle(bundle: Bundle, plan: Plan) -> Bundle:
    if bundle.digest != plan.bundle:
        raise InputError(
            f"{bundle.path}: is not the bundle that scored the pool of the plan (digest {plan.bundle[:12]}, this one "
            f"has {bundle.digest[:12]}); name that one with --bundle"
        )
    return bundle


def _new_rows(
    known: Known,
    files: Sequence[str],
    options: CompareOptions,
    bundle: Bundle,
    embed: Embed | None,
    scoring: Scoring,
) -> tuple[Pool, dict[str, tuple[int, int]], NDArray[np.int64], dict[str, int]]:
    """Score new rows and leave out those that a run has seen, and those near an evaluation row."""
    place, plan = known.folder / COMPARISON, known.plan
    scored = score_pool(
        place,
        files,
        bundle=bundle,
        indicators=plan.indicators,
        device=scoring.device,
        overwrite=True,
        progress=scoring.progress,
    )
    pool = Pool.read(place / SCORED, plan.indicators)
    every = range(len(pool.examples))
    valued, repeated = pool.valued(), repeats(pool.examples, every)
    seen_turns = {known.pool.examples[row].turns for run in plan.runs for row in run.rows}
    seen = {row for row in every if pool.examples[row].turns in seen_turns}
    free = [row for row in every if valued[row] and row not in repeated and row not in seen]
    before = len(known.pool.examples)  # both pools as one, the plan's first
    both = [*known.pool.examples, *pool.examples]
    near = {
        one.row - before
        for one in near_rows(both, [row + before for row in free], plan.evaluation, options.near, embed)
    }
    left = {
        "without a value of an indicator": int((~valued).sum()),
        "that repeat an earlier row": len(repeated),
        "that a run has seen": len(seen - repeated),
        "near an evaluation row": len(near),
    }
    parts = {part.path: (part.rows.start, part.rows.stop) for part in parts_of(scored)}
    return pool, parts, np.array([row for row in free if row not in near], dtype=np.int64), left


def _distances(known: Known, examples: Sequence[Example], embed: Embed) -> NDArray[np.float64]:
    """Return the distance of each example to the nearest row of the first evaluation set, (examples,)."""
    held_out = known.plan.evaluation[0].rows
    vectors = embed([*(known.pool.examples[row] for row in held_out), *examples])
    return distances_to_nearest(vectors[: len(held_out)], vectors[len(held_out) :])
