"""Options of ``score`` that other commands share: the bundle, what is computed, and how columns are named."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from instructmining_cli.options.checks import a_count, as_utf8, known_indicators, known_roles, known_rule

BundleFolder: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Bundle folder, or its address in a store; by default the demo's, fetched (180 MB) the first time."
    ),
]
RuleName: TypeAlias = Annotated[
    str | None,
    typer.Option(callback=known_rule, help="paper-v1, paper-v3 or a JSON file; by default the bundle's rule."),
]
Indicators: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=known_indicators,
        help="Columns to compute, comma-separated, or 'all' that the bundle supports. With --rule the rule's terms are "
        "computed too; without it nothing is predicted.",
    ),
]
Roles: TypeAlias = Annotated[
    str,
    typer.Option(
        callback=known_roles,
        metavar="ROLE,...",
        help="Models to open beside those that the columns need: perplexity, reward, embedding, unieval. Without "
        "--rule and --indicators no column is computed then.",
    ),
]
IndicatorsAlone: TypeAlias = Annotated[
    str,
    typer.Option(
        "--indicators",
        callback=known_indicators,
        help="Columns to compute, comma-separated, or 'all' that the bundle supports.",
    ),
]
MaxLength: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=16, callback=a_count, help="Most tokens of a text that a model gets; by default each model's own limit."
    ),
]
Prefix: TypeAlias = Annotated[str, typer.Option(callback=as_utf8, help="Put before the name of each added column.")]
ScoredPrefix: TypeAlias = Annotated[str, typer.Option(callback=as_utf8, help="The --prefix that score was given.")]
