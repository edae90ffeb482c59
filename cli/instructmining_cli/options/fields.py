"""Options for how the fields of rows are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from instructmining_cli.options.checks import known_format

if TYPE_CHECKING:
    from instructmining.reading.formats import FieldOptions

Format: TypeAlias = Annotated[
    str | None,
    typer.Option(
        callback=known_format,
        help="Format of the rows: alpaca, sharegpt, messages, prompt_response, preference, capybara, ultrachat, oasst, "
        "text; by default detected in each file.",
    ),
]
Map: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--map",
        metavar="ROLE=FIELD,…",
        help="Name the fields instead of a format, as in prompt=query,response=reply. Roles: prompt, context, "
        "response, system, history, messages, chosen, rejected; role and content name the keys inside turns.",
    ),
]
Ignore: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--ignore", metavar="FIELD,…", help="Neither read nor report these fields."),
]
StrictFields: TypeAlias = Annotated[
    bool, typer.Option("--strict-fields", help="Stop at a row with text in a field that is not read.")
]


def field_options(
    *,
    format: str | None,
    mapping: list[str] | None = None,
    ignore: list[str] | None = None,
    strict_fields: bool = False,
) -> FieldOptions:
    """Return the options as the engine takes them.

    Raises:
        typer.BadParameter: a value is not known, or options contradict each other.
    """
    from instructmining.errors import InputError
    from instructmining.reading.formats import FieldOptions, format_name

    pairs: dict[str, str] = {}
    for pair in split(mapping):
        role, equals, field = (part.strip() for part in pair.partition("="))
        if not (equals and role and field):
            raise typer.BadParameter(f"--map {pair!r}: wanted ROLE=FIELD, as in prompt=query,response=reply")
        if role in pairs:
            raise typer.BadParameter(f"--map: {role!r} is given twice")
        pairs[role] = field
    try:
        return FieldOptions(format_name(format), pairs, frozenset(split(ignore)), "error" if strict_fields else "count")
    except InputError as error:
        raise typer.BadParameter(str(error)) from error


def split(values: list[str] | None) -> list[str]:
    """Split the comma-separated values of an option that can be repeated."""
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]
