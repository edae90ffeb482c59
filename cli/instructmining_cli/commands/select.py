"""``instructmining select``: writes the best rows of a scored file."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from instructmining_cli.options.checks import (
    a_count,
    a_distance,
    a_number,
    a_share,
    conditions,
    known_target,
    named_rule,
    rows_out,
)
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.fields import Format, Map, field_options, split
from instructmining_cli.options.output import OUT_HELP, Json, check_json
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.process.terminal import say, warn

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    import numpy as np
    from numpy.typing import NDArray

    from instructmining.scored.selection import Selection
    from instructmining.scored.selection.options import SelectionOptions
    from instructmining.types import Example


def select(
    scored: Annotated[str, typer.Argument(metavar="SCORED", help="A file that score wrote.")],
    out: Annotated[str, typer.Option("-o", "--out", callback=rows_out, help=OUT_HELP)],
    top: Annotated[
        int | None, typer.Option(min=1, callback=a_count, help="Keep N rows; with --group-by, N of each group.")
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(
            callback=a_share,
            help="Keep this share of the candidates (of each group), 0..1, rounded to the nearest row.",
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=a_count,
            help="Keep rows in order until the next one would exceed this many tokens in total.",
        ),
    ] = None,
    max_loss: Annotated[
        float | None, typer.Option(callback=a_number, help="Keep rows whose value is at most this.")
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CONDITION",
            callback=conditions,
            help="Take rows that fulfil NAME OP VALUE on any column or field, such as 'perplexity<=30' or "
            "'category==open qa'. OP is <, <=, >, >=, == or !=; for text == or !=. Values are compared by the type in "
            'the row: numbers as numbers, text by its exact characters; "7" in quotes is text. Null fulfils no '
            "condition. Can be repeated.",
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Group rows by this column or field; rows without it are the group null."),
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=N",
            help="Keep N rows of this group; or a JSON file with an object {group: N}. Can be repeated. A group "
            "without a quota keeps what --top and --fraction allow, and no row without them.",
        ),
    ] = None,
    distinct: Annotated[
        float | None,
        typer.Option(
            metavar="DISTANCE",
            callback=a_distance,
            help="Drop rows whose embedding is closer than this to a better row that is kept; Euclidean between unit "
            "vectors, 0..2. The next row takes the place of a dropped one.",
        ),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle with an embedding role, for --distinct; by default the demo bundle.")
    ] = None,
    device: DeviceName = "auto",
    format: Format = None,
    map: Map = None,
    by: Annotated[str, typer.Option(help="Column to sort by, ascending.")] = "predicted_log_loss",
    descending: Annotated[
        bool,
        typer.Option("--descending", help="Sort the largest first, for columns where more is better, such as reward."),
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=rows_out,
            help="Write a JSON line per row: whether it was kept, why not, and what each term of the rule adds.",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            callback=named_rule, help="Rule whose terms --explain shows; by default the one in SCORED.run.json."
        ),
    ] = None,
    random_baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=rows_out,
            help="Write as many rows drawn at random from all that have a value, as a baseline.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, callback=a_count, help="Seed of --random-baseline.")] = 0,
    as_: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="SHAPE",
            callback=known_target,
            help="Write rows as trainers read them, instead of in their own shape: messages, alpaca, sharegpt or "
            "preference. docs/outputs.md says which trainer reads which.",
        ),
    ] = None,
    keep_fields: Annotated[
        list[str] | None,
        typer.Option("--keep-fields", metavar="FIELD,…", help="With --as: write these fields of the row too."),
    ] = None,
    prefix: ScoredPrefix = "",
    keep_scores: Annotated[bool, typer.Option("--keep-scores", help="Keep the added columns in the rows.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT and the other output files.")] = False,
    json: Json = False,
) -> None:
    """Write the original rows with the smallest predicted loss, ascending; ties keep their input order.

    Give at least one of --top, --fraction, --tokens, --max-loss, --where, --quota and --distinct; a row must meet all
    that are given. --where and --quota choose candidates, the others how many of them are kept. Rows without a value
    are dropped. OUT.selection.json records the settings and counts by reason; -o - writes only the rows.

    Examples:
        instructmining select scored.jsonl -o best.jsonl --fraction 0.25
        instructmining select scored.jsonl -o train.jsonl --top 1000 --as messages
    """
    from instructmining.errors import SelectionError
    from instructmining.scored.selection import select as select_rows
    from instructmining.scored.selection.converting import Conversion
    from instructmining.scored.selection.near_duplicates import Distinct
    from instructmining.scored.selection.options import Extras, SelectionOptions
    from instructmining.writing.atomic import check_apart
    from instructmining.writing.shapes import target_name
    from instructmining_cli.reports.json_out import print_record

    check_json(json, out)
    if descending and max_loss is not None:
        raise typer.BadParameter("--max-loss keeps the smallest values and cannot be used with --descending")
    if keep_fields and as_ is None:
        raise typer.BadParameter("--keep-fields goes with --as; without it, rows keep all their fields")
    fields = field_options(format=format, mapping=map)
    if all(way is None for way in (top, fraction, tokens, max_loss, distinct)) and not where and not quota:
        raise typer.BadParameter(
            "give at least one of --top, --fraction, --tokens, --max-loss, --where, --quota and --distinct"
        )
    check_apart([*_outputs(out), explain, random_baseline], [bundle, *(quota or ())])
    with ExitStack() as stack:
        encoder = None if distinct is None else Encoder(bundle, device, stack)
        try:
            choice = SelectionOptions(
                top=top,
                fraction=fraction,
                max_loss=max_loss,
                tokens=tokens,
                where=tuple(where or ()),
                group_by=group_by,
                quotas=_quotas(quota or []),
                distinct=None
                if distinct is None or encoder is None
                else Distinct(distinct, encoder, fields=fields, encoder=encoder.facts),
            )
        except SelectionError as error:
            raise typer.BadParameter(str(error)) from error
        kept = select_rows(
            scored,
            out,
            choice,
            by=by,
            prefix=prefix,
            descending=descending,
            keep_scores=keep_scores,
            convert=None
            if as_ is None
            else Conversion(target_name(as_), fields if format or map else None, tuple(split(keep_fields))),
            overwrite=overwrite,
            extras=Extras(explain=explain, rule=rule, random_baseline=random_baseline, seed=seed),
        )
    _say_result(kept, choice, f"{prefix}{by} {'down' if descending else 'up'} to", out)
    if json:
        print_record(out, ".selection.json")


def _outputs(out: str) -> list[str]:
    """Return OUT and the file written next to it."""
    return [] if out == "-" else [out, f"{out}.selection.json"]


def _quotas(given: list[str]) -> dict[str, int]:
    """Return the quota of each group, from GROUP=N or JSON files.

    Raises:
        typer.BadParameter: a value is neither.
    """
    import orjson

    from instructmining.reading.small_files import read_small

    quotas: dict[str, int] = {}
    for text in given:
        group, equals, count = text.rpartition("=")
        if equals and count.strip().isdecimal():
            quotas[group] = int(count)
            continue
        problem = f"--quota {text!r}: wanted GROUP=N or a JSON file of an object {{group: N}}"
        try:
            given_in_file = orjson.loads(read_small(text))
        except (OSError, orjson.JSONDecodeError) as error:
            raise typer.BadParameter(f"{problem}: {error}") from error
        if not isinstance(given_in_file, dict) or not all(type(count) is int for count in given_in_file.values()):
            raise typer.BadParameter(problem)
        quotas |= given_in_file
    return quotas


class Encoder:
    """Embeds rows for ``--distinct``; opens its bundle with the first row, after everything else is checked.

    Attributes:
        facts: name, digest and device of the bundle, for the selection file; empty until it is open.
    """

    def __init__(self, bundle: str | None, device: str, stack: ExitStack) -> None:
        """Store what to open; the stack closes it."""
        self.facts: dict[str, object] = {}
        self._bundle, self._device, self._stack = bundle, device, stack

    def embeddings(self, examples: Iterable[Example]) -> Generator[NDArray[np.float32], None, None]:
        """Yield the unit vectors of all examples in order; see :meth:`instructmining.Scorer.embeddings`.

        Raises:
            InstructMiningError: the bundle cannot be opened or built, or an example cannot be embedded.
        """
        from instructmining.scorer.scorer import Scorer
        from instructmining_cli.run.demo_bundle import demo_bundle, naming_another

        folder = self._bundle or demo_bundle(say)
        with naming_another():
            scorer = self._stack.enter_context(Scorer.open(folder, roles=["embedding"], device=self._device))
        say(f"device: {', '.join(map(str, scorer.devices))}")
        self.facts |= {"bundle": scorer.bundle.name, "digest": scorer.bundle.digest, "device": str(scorer.device)}
        yield from scorer.embeddings(examples)


def _say_result(kept: Selection, choice: SelectionOptions, bound: str, out: str) -> None:
    worst = f", {bound} {kept.worst:.4f}" if kept.worst is not None else ""
    tokens = f", {kept.tokens:,} of {choice.tokens:,} tokens" if kept.tokens is not None else ""
    say(f"kept {kept.kept:,} of {kept.rows:,} rows{worst}{tokens}: {out}")
    for reason, rows in kept.left_out.items():
        say(f"left out: {rows:,}, {reason}")
    for remark in kept.remarks:
        warn(f"caution: {remark}")
