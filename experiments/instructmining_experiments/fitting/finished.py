"""Reads ``runs.csv`` beside the plan that its runs are from."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InputError
from instructmining.errors.names import few, no_such
from instructmining.rules.fitting.training_runs import LOSS, Table, is_empty, read_table, varies
from instructmining_experiments.state.plan import PLAN, Plan
from instructmining_experiments.state.tables import NAME, RUNS_CSV


@dataclass(frozen=True, slots=True)
class Finished:
    """The runs that have a loss, in the order of the plan."""

    names: tuple[str, ...]
    losses: NDArray[np.float64]  # (runs,) raw loss on the first evaluation set
    means: Mapping[str, NDArray[np.float64]]  # indicator → (runs,), without those that have no value in any run
    sha256: str  # of the file

    @classmethod
    def read(cls, folder: Path, plan: Plan) -> Finished:
        """Read ``runs.csv``; a run without a line or without a loss is not among them.

        Raises:
            InputError: there is no such file, it has other columns than the plan's, or a run that the plan has not.
            FittingError: it is no CSV, or a cell is no number.
        """
        file = folder / RUNS_CSV
        if not file.exists():
            raise InputError(f"{folder}: has no {RUNS_CSV}; 'instructmining experiment train' writes it")
        table = read_table(file)
        _check_columns(file, table, plan)
        table, names = _with_loss(file, table, plan)
        losses, filled = table.losses(), [name for name in plan.indicators if not table.is_empty(name)]
        found = cls(names, losses, {name: table.numbers(name) for name in filled}, table.digest or "")
        return found.only([run.name for run in plan.runs])

    @property
    def log_losses(self) -> NDArray[np.float64]:
        """(runs,) natural logarithm of the losses."""
        return np.log(self.losses)

    @property
    def varying(self) -> tuple[str, ...]:
        """The indicators whose means differ between the runs."""
        return tuple(name for name, values in self.means.items() if len(values) and varies(values))

    def only(self, names: Collection[str]) -> Finished:
        """Return those of some runs that are here, in their order there."""
        places = [self.names.index(name) for name in names if name in self.names]
        means = {name: values[places] for name, values in self.means.items()}
        return Finished(tuple(self.names[at] for at in places), self.losses[places], means, self.sha256)

    def columns(self) -> dict[str, Sequence[object] | NDArray[np.generic]]:
        """Return the table as ``fit`` takes it."""
        return {NAME: self.names, LOSS: self.losses, **self.means}


def _check_columns(file: Path, table: Table, plan: Plan) -> None:
    wanted = (NAME, LOSS, *plan.indicators)
    if missing := [name for name in wanted if name not in table.columns]:
        raise InputError(f"{file}: {no_such('column', missing, table.columns)}; {PLAN} wants {', '.join(wanted)}")
    if more := [name for name in table.columns if name not in wanted]:
        raise InputError(f"{file}: column {more[0]!r} is none of {PLAN}'s, which wants {', '.join(wanted)}")


def _with_loss(file: Path, table: Table, plan: Plan) -> tuple[Table, tuple[str, ...]]:
    """Return the lines that have a loss, and their runs' names."""
    names = [str(cell).strip() for cell in table.columns[NAME]]
    known = [run.name for run in plan.runs]
    for number, (name, place) in enumerate(zip(names, table.places, strict=True)):
        if name not in known:
            raise InputError(f"{file}, {place}: run {name!r} is not in {PLAN}; its runs are {few(known)}")
        if name in names[:number]:
            raise InputError(f"{file}, {place}: run {name!r} has a line already; keep one")
    kept = [at for at, cell in enumerate(table.columns[LOSS]) if not is_empty(cell)]
    columns = {name: [cells[at] for at in kept] for name, cells in table.columns.items()}
    return replace(table, columns=columns, places=[table.places[at] for at in kept]), tuple(names[at] for at in kept)
