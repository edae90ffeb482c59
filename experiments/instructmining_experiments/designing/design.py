"""Designs an experiment: scores the pool once, holds rows out, draws the runs, and writes the plan."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.bundle import Bundle
from instructmining.bundle.digests import sha256_of
from instructmining.errors import InputError, OutputError
from instructmining.indicators.plan import indicator_names
from instructmining.indicators.plan import plan as check_roles
from instructmining.writing.atomic import claimed, write_whole
from instructmining_experiments.designing.cost import Cost, Spread, cost_of, spreads
from instructmining_experiments.designing.drawing import TOLERANCE, Drawable, Draws, draw_runs
from instructmining_experiments.designing.embedding import Embed, embedder
from instructmining_experiments.designing.held_out import (
    MOST_HELD_OUT,
    PoolPart,
    drawn_sets,
    given_sets,
    near_rows,
    parts_of,
    repeats,
    reserved_rows,
)
from instructmining_experiments.designing.power import Detectable, detectable
from instructmining_experiments.designing.scoring import Progress, digest_of, score_pool, versions
from instructmining_experiments.state.plan import PLAN, Plan, PoolFile
from instructmining_experiments.state.pool import SCORED, Pool

RECORD = "design.json"
_RUNS = "runs"  # folder of what was trained by the plan


@dataclass(frozen=True, slots=True)
class DesignOptions:
    """What to draw."""

    indicators: str = "all"  # columns, comma-separated; "all" that the bundle's roles allow
    runs: int = 40
    replicates: int = 8
    subset_tokens: int = 12_000
    evaluation: tuple[str, ...] = ()  # files, each a set of its own
    evaluation_rows: int = 100  # of each of two sets drawn from the pool, where no file is given
    reserve: float = 0.2  # share of the rows that no run sees
    max_row_tokens: int = 2000  # a longer row is not used: training would truncate it, and runs differ in tokens
    near: float = 0.2  # distance of embeddings below which a row is too near to an evaluation row
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Design:
    """A plan with what is known of it before anything runs."""

    plan: Plan
    new: bool  # False: it was there already
    left: Mapping[str, int]  # why rows are not drawn from → rows
    null: Mapping[str, int]  # indicator → rows without a value
    drawable_rows: int
    drawable_tokens: int
    reserved_tokens: int
    embedded: bool  # whether near rows were found by their embeddings
    cost: Cost
    detectable: Detectable
    spread: Mapping[str, Spread]

    def as_json(self) -> dict[str, object]:
        """Return everything but the plan's rows."""
        plan = self.plan
        return {
            "seed": plan.seed,
            "bundle": plan.bundle,
            "indicators": list(plan.indicators),
            "files": [asdict(file) for file in plan.files],
            "evaluation": [{"name": one.name, "source": one.source, "rows": len(one.rows)} for one in plan.evaluation],
            "not_drawn_from": dict(self.left),
            "null": dict(self.null),
            "near_by_embedding": self.embedded,
            "drawable": {"rows": self.drawable_rows, "tokens": self.drawable_tokens},
            "reserved": {"rows": len(plan.reserved), "tokens": self.reserved_tokens},
            "subset_tokens": plan.subset_tokens,
            "tolerance": TOLERANCE,
            "runs": {kind: sum(run.kind == kind for run in plan.runs) for kind in ("random", "tilted", "replicate")},
            "cost": asdict(self.cost),
            "detectable": asdict(self.detectable),
            "spread": {name: asdict(spread) for name, spread in self.spread.items()},
        }


def design(
    files: Sequence[str],
    folder: str | Path,
    options: DesignOptions,
    *,
    bundle: str | Path | Bundle,
    device: str = "auto",
    overwrite: bool = False,
    progress: Progress = lambda _what, _share: None,
) -> Design:
    """Score the pool, draw the runs, and write ``plan.json``; a design that is there already is left as it is.

    Cut at any moment, the same call continues: what was scored is kept, and all draws depend on the seed alone.

    Args:
        files: of the pool.
        folder: of the experiment.
        options: what to draw.
        bundle: scores the rows.
        device: as :meth:`Scorer.open` takes it.
        overwrite: replace another design, unless something was trained by it.
        progress: called while rows are scored.

    Raises:
        InputError: a file cannot be read, or the pool is too small for the design.
        OutputError: the folder holds another design, or the disk refuses it.
        BundleError: the bundle lacks a role.
        RuleError: an indicator is not known.
    """
    folder = Path(folder)
    opened = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
    columns = indicator_names(options.indicators, opened)
    check_roles(opened, None, columns)
    if both := sorted({*map(os.path.realpath, files)} & {*map(os.path.realpath, options.evaluation)}):
        raise InputError(f"{both[0]}: is a file of the pool and an evaluation file; name it once")
    asked = _asked(files, options, opened, columns)
    embedded = "embedding" in opened.roles
    with claimed(folder):
        _make(folder)
        known = _known(folder)
        if known == asked and (folder / PLAN).exists():
            plan = Plan.load(folder)
            pool = Pool.of_plan(folder, plan)
            own = _Own.of(pool, plan.files, len(files), options.max_row_tokens)
            return _design(plan, pool, own, new=False, embedded=embedded)
        if (folder / PLAN).exists():
            _check_replaceable(folder, known, asked, overwrite=overwrite)
            (folder / PLAN).unlink()
        every = [*files, *options.evaluation]
        scored = score_pool(
            folder, every, bundle=opened, indicators=columns, device=device, overwrite=overwrite, progress=progress
        )
        pool = Pool.read(folder / SCORED, columns)
        own = _Own.of(pool, scored, len(files), options.max_row_tokens)
        plan = _plan(pool, own, scored, options, columns, embedder(opened, device))
        plan = replace(
            plan,
            bundle=opened.digest,
            scored_sha256=sha256_of(folder / SCORED),
            reward_model=_reward_model(opened) if "reward" in columns else None,
        )
        write_whole(folder / RECORD, orjson.dumps({"asked": asked}, option=orjson.OPT_INDENT_2))
        plan.save(folder)
        return _design(plan, pool, own, new=True, embedded=embedded)


def _reward_model(bundle: Bundle) -> str | None:
    found = bundle.roles["reward"].source.get("id")
    return found if isinstance(found, str) else None


def _make(folder: Path) -> None:
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: {error.strerror}") from error


def _asked(files: Sequence[str], options: DesignOptions, bundle: Bundle, columns: Sequence[str]) -> dict[str, object]:
    """Return all that a plan depends on, as JSON.

    Raises:
        InputError: a file cannot be read.
    """
    return {
        **asdict(options),
        "indicators": list(columns),
        "bundle": bundle.digest,
        "pool": [digest_of(file) for file in files],
        "evaluation": [digest_of(file) for file in options.evaluation],
    }


def _known(folder: Path) -> Mapping[str, object] | None:
    """Return what the design in a folder was asked for; None where no record says it."""
    try:
        said = orjson.loads((folder / RECORD).read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{folder / RECORD}: is not the record of a design: {error}; name another folder") from error
    found = said.get("asked") if isinstance(said, dict) else None
    if not isinstance(found, dict):
        raise InputError(f"{folder / RECORD}: is not the record of a design; name another folder")
    return found


def _check_replaceable(
    folder: Path, known: Mapping[str, object] | None, asked: Mapping[str, object], *, overwrite: bool
) -> None:
    """Check that a plan may be replaced by another.

    Raises:
        OutputError: it may not; the message names what differs.
    """
    name = next((name for name in asked if known is not None and known.get(name) != asked[name]), None)
    differs = f": {name} was {_short(known.get(name))}, is now {_short(asked[name])}" if known and name else ""
    if not overwrite:
        raise OutputError(
            f"{folder}: holds another design{differs}; name another folder, or give --overwrite to replace it"
        )
    if (folder / _RUNS).is_dir() and any((folder / _RUNS).iterdir()):
        raise OutputError(f"{folder}: holds runs that were trained by another design{differs}; name another folder")


def _short(value: object) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 60 else f"{text[:60]}…"


@dataclass(frozen=True, slots=True)
class _Own:
    """The rows of the pool's own files, without those of evaluation files."""

    parts: Sequence[PoolPart]  # of all files, the evaluation files last
    files: int  # of the pool
    valued: NDArray[np.bool_]  # (rows,) whether a row of the scored pool has all columns
    long: NDArray[np.bool_]  # (rows,) whether it has more tokens than a row may have
    repeated: Collection[int]  # rows of the same turns as an earlier one

    @classmethod
    def of(cls, pool: Pool, files: Sequence[PoolFile], pool_files: int, max_row_tokens: int) -> Self:
        """Look at all rows."""
        parts = parts_of(files)
        return cls(
            parts,
            pool_files,
            pool.valued(),
            pool.tokens > max_row_tokens,
            repeats(pool.examples, range(parts[pool_files - 1].rows.stop)),
        )

    @property
    def rows(self) -> range:
        """All of them."""
        return range(self.parts[self.files - 1].rows.stop)

    def without(self, *others: Iterable[int]) -> list[int]:
        """Return the rows that have all columns, are not too long and repeat no earlier row, without others."""
        out = {row for rows in others for row in rows} | set(self.repeated)
        return [row for row in self.rows if self.valued[row] and not self.long[row] and row not in out]


def _plan(
    pool: Pool,
    own: _Own,
    files: Sequence[PoolFile],
    options: DesignOptions,
    columns: Sequence[str],
    embed: Embed | None,
) -> Plan:
    """Hold rows out and draw the runs; everything but the digests."""
    sets = (
        given_sets(own.parts[own.files :])
        if options.evaluation
        else drawn_sets(own.parts, set(own.without()), options.evaluation_rows, seed=options.seed)
    )
    held_out = [row for one in sets for row in one.rows]
    candidates = own.without(held_out)
    near = near_rows(pool.examples, candidates, sets, options.near, embed)
    if len(near) > MOST_HELD_OUT * len(candidates):
        raise InputError(
            f"{len(near):,} of {len(candidates):,} rows are nearer than {options.near} to an evaluation row, which "
            "leaves too few to train on; give a smaller --near, or other evaluation rows"
        )
    left_out = [one.row for one in near]
    reserved = reserved_rows(own.without(held_out, left_out), options.reserve, seed=options.seed)
    rows = np.array(own.without(held_out, left_out, reserved), dtype=np.int64)
    drawable = Drawable(rows, pool.tokens[rows], {name: pool.columns[name][rows] for name in columns})
    draws = Draws(options.runs, options.replicates, options.subset_tokens, options.seed)
    return Plan(
        seed=options.seed,
        bundle="",
        scored_sha256="",
        files=tuple(files),
        subset_tokens=options.subset_tokens,
        indicators=tuple(columns),
        evaluation=sets,
        reserved=reserved,
        left_out=near,
        runs=draw_runs(drawable, draws),
        written_with=versions(),
    )


def _design(plan: Plan, pool: Pool, own: _Own, *, new: bool, embedded: bool) -> Design:
    """Return a plan with its figures, which follow from the plan and the scored pool alone."""
    columns = {name: pool.columns[name] for name in plan.indicators}
    null = {name: int(np.isnan(values[own.rows]).sum()) for name, values in columns.items()}
    held_out = [row for one in plan.evaluation for row in one.rows]
    rows = own.without(held_out, plan.reserved, [one.row for one in plan.left_out])
    return Design(
        plan=plan,
        new=new,
        left={
            "without a value of an indicator": int((~own.valued[own.rows]).sum()),
            "that are longer than a row may be": int((own.long & own.valued)[own.rows].sum()),
            "that repeat an earlier row": sum(bool(own.valued[row] and not own.long[row]) for row in own.repeated),
            "in an evaluation set": sum(row in own.rows for row in held_out),
            "near an evaluation row": len(plan.left_out),
            "reserved": len(plan.reserved),
        },
        null={name: count for name, count in null.items() if count},
        drawable_rows=len(rows),
        drawable_tokens=int(pool.tokens[rows].sum()),
        reserved_tokens=int(pool.tokens[list(plan.reserved)].sum()),
        embedded=embedded,
        cost=cost_of(plan, pool.tokens),
        detectable=detectable(sum(run.kind != "replicate" for run in plan.runs), len(plan.indicators)),
        spread=spreads(plan.runs, columns),
    )
