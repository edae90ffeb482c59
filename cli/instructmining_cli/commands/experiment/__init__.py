"""The commands of an experiment: ``instructmining experiment ...``."""

from __future__ import annotations

from instructmining_cli.commands.experiment.design import design

COMMANDS = (design,)  # in the order of an experiment
