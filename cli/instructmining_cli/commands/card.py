"""``instructmining card``: writes the card of a data set for the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from instructmining_cli.options.output import Json, Out, Overwrite
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.process.terminal import warn
from instructmining_cli.reports.text_out import text_file


def card(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Files that select, score, merge or rescore wrote.")
    ],
    out: Out = None,
    name: Annotated[str | None, typer.Option(help="Name of the data set.")] = None,
    license: Annotated[
        str | None, typer.Option(help="License of the rows, as the hub names it, such as apache-2.0 or cc-by-4.0.")
    ] = None,
    language: Annotated[
        list[str] | None, typer.Option(metavar="CODE,…", help="Languages of the rows, such as en,de.")
    ] = None,
    prefix: ScoredPrefix = "",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Write a README.md for a data set: YAML that hubs read, and in words how rows were scored and selected.

    It is made from the files, their .selection.json and .run.json. What these do not say is left out, and named on
    standard error and in comments of the card.

    Examples:
        instructmining card best.jsonl -o README.md --license cc-by-4.0 --language en
        instructmining card best.parquet random.parquet -o README.md --name 'My set'
    """
    from instructmining.scored.card_facts import facts_of
    from instructmining.scored.card_text import CardOptions, card_text, front_matter, unknown_of
    from instructmining_cli.options.fields import split
    from instructmining_cli.reports.json_out import as_document

    beside = [f"{file}{end}" for file in files for end in (".run.json", ".selection.json")]
    options = CardOptions(name, license, tuple(split(language)))
    with text_file(out, overwrite=overwrite, reads=[*files, *beside], json=json) as text:
        facts = [facts_of(file, prefix=prefix) for file in files]
        names = [_from_folder(file, out) for file in files]
        unknown = unknown_of(facts, options)
        text.content = card_text(facts, options, names)
        text.document = as_document({"out": out, **front_matter(facts, options, names), "not_known": unknown}).decode()
    for line in unknown:
        warn(f"not in the card: {line}")


def _from_folder(file: str, out: str | None) -> str:
    """Return the path of a file from the card's folder, where it lies there or below; else its name alone."""
    if out in {None, "-"}:
        return Path(file).name
    place, folder = Path(file).resolve(), Path(str(out)).resolve().parent
    return place.relative_to(folder).as_posix() if place.is_relative_to(folder) else place.name
