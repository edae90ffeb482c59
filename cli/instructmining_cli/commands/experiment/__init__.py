"""The commands of an experiment: ``instructmining experiment ...``."""

from __future__ import annotations

from collections.abc import Callable

from instructmining_cli.commands.experiment.evaluate import evaluate
from instructmining_cli.commands.experiment.train import train

COMMANDS: tuple[Callable[..., None], ...] = (train, evaluate)  # in the order of an experiment
