"""Turns the trials of OpenDataArena's R-Select into a table that ``fit`` reads.

A trial is a weight for each score and the loss of a model that was trained on the rows with the largest weighted sums.
``fit`` wants the means of the indicators over those rows, so that the selection is made again.

Source:
    github.com/OpenDataArena/R-Select: ``main.py`` (``select_top_k``, ``load_warmup_trials``),
    ``utils/trials_analysis.py`` (tables of trials as JSON and CSV), ``utils/score_normalization.py`` (``_orig``) and
    ``examples/warmstart/warmup_trials_example_Layer1_c1.json``.
"""

from __future__ import annotations

import csv
import io
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InputError
from instructmining.errors.arguments import shown
from instructmining.errors.names import no_such
from instructmining.reading.small_files import read_small
from instructmining.rules.fitting.training_runs import INDICATORS, LOSS
from instructmining.types import SourceRow
from instructmining.writing.atomic import Placement
from instructmining_experiments.opendataarena.scores import PREFIX, SHARED, flat, is_number, rows_of
from instructmining_experiments.state.tables import as_csv

_ORIGINAL = "_orig"  # follows the name of a score before it was normalized
_WEIGHT = "weight_"  # precedes the name of a score in a CSV
_WANTED = 'wanted a JSON list of {"weights": {…}, "eval_loss": …}, or the JSON or CSV of trials_analysis.py'
_OURS = {theirs: ours for ours, theirs in SHARED.items()}


@dataclass(frozen=True, slots=True)
class Trial:
    """Weights, and the loss of a model that was trained on what they select."""

    name: str
    loss: float
    weights: Mapping[str, float]  # score → weight


@dataclass(frozen=True, slots=True)
class ImportedTrials:
    """What was written."""

    runs: int
    columns: tuple[str, ...]
    skipped: Mapping[str, int]  # why → trials


def import_trials(pool: str, trials: str, out: str, *, top_k: int, overwrite: bool = False) -> ImportedTrials:
    """Write the table of runs of a study of R-Select: the loss of each trial and the means over the rows it selected.

    Reads the pool twice; memory holds 8 bytes for each row and weighted score. Scores called like one of our columns,
    or of the same quantity, have that name in the table, others ``oda.NAME``; the value before normalization counts
    where the pool has it. Of rows with equal sums the earlier are taken, which R-Select does not promise.

    Args:
        pool: the pool that the study selected from, with its ``scores``.
        trials: the table of its trials.
        out: the table to write.
        top_k: rows of each selection, as in the study's configuration.
        overwrite: replace OUT.

    Raises:
        InputError: a file cannot be read, a score is missing, or the pool has too few rows.
        OutputError: OUT exists, or cannot be written.
    """
    found, skipped = read_trials(trials)
    selected = _selected(pool, found, top_k)
    means = _means(pool, selected)
    lines = [
        [trial.name, trial.loss, *(None if np.isnan(values[at]) else float(values[at]) for values in means.values())]
        for at, trial in enumerate(found)
    ]
    with Placement([out], overwrite=overwrite, reads=[pool, trials]) as files:
        files.write(out, as_csv(["name", LOSS, *means], lines))
        files.put()
    return ImportedTrials(len(found), tuple(means), skipped)


def read_trials(file: str) -> tuple[list[Trial], dict[str, int]]:
    """Return the trials that have a loss, and how many have none, by reason.

    Raises:
        InputError: the file cannot be read, or is no table of trials.
    """
    try:
        text = read_small(file).decode()
        listed = _from_csv(text) if file.endswith(".csv") else json.loads(text)
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: is not a table of trials: {error}; {_WANTED}") from error
    if not isinstance(listed, list) or not listed:
        raise InputError(f"{file}: has no trials; {_WANTED}")
    trials: list[Trial] = []
    skipped: Counter[str] = Counter()
    for number, one in enumerate(listed):
        where = f"{file}, trial {number}"
        if not isinstance(one, dict) or not isinstance(one.get("weights"), dict):
            raise InputError(f"{where}: has no 'weights'; {_WANTED}")
        if one.get("is_warmup") in (True, "True"):
            skipped["injected as warm-up, not trained in this study"] += 1
        elif one.get("state", "COMPLETE") != "COMPLETE" or one.get("eval_loss") is None:
            skipped["without a loss"] += 1
        else:
            trials.append(_trial(one, number, where))
    if not trials:
        raise InputError(f"{file}: no trial has a loss")
    return trials, dict(skipped)


def _from_csv(text: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = []
    for line in csv.DictReader(io.StringIO(text, newline="")):
        weights = {
            name.removeprefix(_WEIGHT): float(cell or 0)
            for name, cell in line.items()
            if name and name.startswith(_WEIGHT)
        }
        loss = line.get("eval_loss")
        listed.append({**line, "weights": weights, "eval_loss": float(loss) if loss else None})
    return listed


def _trial(one: Mapping[str, Any], number: int, where: str) -> Trial:
    loss, weights = one["eval_loss"], one["weights"]
    wrong = [value for value in (loss, *weights.values()) if not is_number(value) or not np.isfinite(value)]
    if wrong or not weights:
        raise InputError(f"{where}: has {shown(wrong[0]) if wrong else 'no weight'}, wanted numbers; {_WANTED}")
    return Trial(f"trial-{one.get('trial_number', number)}", float(loss), weights)


def _selected(pool: str, trials: Sequence[Trial], top_k: int) -> list[NDArray[np.int64]]:
    """Return the rows that each trial selected, int64 (top_k,) in the pool's order."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.weights))
    values = {name: array("d") for name in names}
    rows = 0
    for row, scores in _scored(pool):
        for name in names:
            if (value := scores.get(name)) is None:
                raise InputError(f"{row.source}, line {row.line}: scores: {no_such('value of', name, scores)}")
            values[name].append(value)
        rows += 1
    if rows <= top_k:
        raise InputError(f"{pool}: has {rows:,} rows, wanted more than the {top_k:,} of each selection")
    columns = {name: np.frombuffer(values[name], dtype=np.float64) for name in names}
    selected = []
    for trial in trials:
        sums = np.zeros(rows)
        for name, weight in trial.weights.items():
            sums += weight * columns[name]
        selected.append(np.sort(np.argsort(-sums, kind="stable")[:top_k]))
    return selected


def _means(pool: str, selected: Sequence[NDArray[np.int64]]) -> dict[str, NDArray[np.float64]]:
    """Return the mean of each column over each selection where it is defined, (trials,)."""
    rows = np.concatenate(selected)
    trials = np.repeat(np.arange(len(selected)), [len(one) for one in selected])
    order = np.argsort(rows, kind="stable")
    rows, trials = rows[order], trials[order]
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, NDArray[np.int64]] = {}
    at = 0
    for number, (row, scores) in enumerate(_scored(pool)):
        begin = at
        while at < len(rows) and rows[at] == number:
            at += 1
        if at == begin:
            continue
        for name, value in _columns(row, scores).items():
            sums.setdefault(name, np.zeros(len(selected)))[trials[begin:at]] += value
            counts.setdefault(name, np.zeros(len(selected), dtype=np.int64))[trials[begin:at]] += 1
    return {
        name: np.where(counts[name] > 0, total / np.maximum(counts[name], 1), np.nan) for name, total in sums.items()
    }


def _columns(row: SourceRow, scores: Mapping[str, float]) -> dict[str, float]:
    """Return the values of a row by the names that they have in the table."""
    found: dict[str, float] = {name: value for name in INDICATORS if is_number(value := row.fields.get(name))}
    for name in scores:
        if not name.endswith(_ORIGINAL):
            ours = _OURS.get(name, name)
            found.setdefault(
                ours if ours in INDICATORS else f"{PREFIX}{name}", scores.get(name + _ORIGINAL, scores[name])
            )
    return found


def _scored(pool: str) -> Iterator[tuple[SourceRow, dict[str, float]]]:
    """Yield each row with its scores that are numbers.

    Raises:
        InputError: the pool cannot be read, or a row has no scores.
    """
    for row in rows_of(pool):
        scores = row.fields.get("scores")
        if not isinstance(scores, dict):
            raise InputError(f"{row.source}, line {row.line}: 'scores' is {shown(scores)}, wanted R-Select's object")
        yield row, {name: value for name, value in flat(scores) if is_number(value)}
