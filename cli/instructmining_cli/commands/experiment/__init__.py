"""``instructmining experiment``: from a pool to a tested rule, a step a command."""

from __future__ import annotations

from collections.abc import Callable

from instructmining_cli.commands.experiment.compare import compare
from instructmining_cli.commands.experiment.design import design
from instructmining_cli.commands.experiment.evaluate import evaluate
from instructmining_cli.commands.experiment.export_oda import export_oda
from instructmining_cli.commands.experiment.fit import fit
from instructmining_cli.commands.experiment.import_oda import import_oda
from instructmining_cli.commands.experiment.run import run
from instructmining_cli.commands.experiment.train import train

COMMANDS: tuple[Callable[..., None], ...] = (design, train, evaluate, fit, compare, run, import_oda, export_oda)
