"""The ways to make a role's graph; imports nothing heavy, as the command line reads them first."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Via: TypeAlias = Literal["auto", "own", "optimum", "transformers"]  # auto: our builder, else the exporter installed
VIAS: tuple[Via, ...] = get_args(Via)
