"""How a rule is fitted: which terms are considered and chosen, and their intervals."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from instructmining_cli.options.checks import a_count

Terms: TypeAlias = Annotated[
    str | None, typer.Option(help="Indicators to consider, comma-separated; by default all that there are.")
]
Choose: TypeAlias = Annotated[
    Literal["loo", "adjusted-r2", "paper", "all"],
    typer.Option(
        help="How terms are chosen: the subset with the least leave-one-out error, the one with the highest adjusted "
        "R2, as in the paper (highest R2, then p-values), or all."
    ),
]
Bootstrap: TypeAlias = Annotated[
    int,
    typer.Option(
        min=0, callback=a_count, help="Resamples of the runs for intervals of the coefficients; 0 for no intervals."
    ),
]


def names_in(terms: str | None) -> tuple[str, ...] | None:
    """Return the terms that a comma-separated text names; None for all."""
    return None if terms is None else tuple(term.strip() for term in terms.split(","))
