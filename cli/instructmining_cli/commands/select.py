"""``instructmining select``: the best rows of a scored file."""

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
    named_rule,
    rows_out,
)
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.fields import Format, Map, field_options
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
        int | None, typer.Option(min=1, callback=a_count, help="Keep N rows; with --group-by N of each group.")
    ] = None,
    fraction: Annotated[
        float | None,
        typer.Option(
            callback=a_share, help="Keep this share of the candidates (of each group), 0..1, to the nearest row."
        ),
    ] = None,
    tokens: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=a_count,
            help="Keep rows in order up to the first that would exceed this many tokens, all together.",
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
            help="Take rows that fulfil NAME OP VALUE on any column or field, as 'perplexity<=30' or "
            "'category==open qa'; OP one of <, <=, >, >=, ==, !=, for text == and !=. Each row is compared by its own "
            'type: a number with the number, text with the exact characters; "7" in quotes is text. Null never does. '
            "Repeat it for several conditions.",
        ),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Make groups by this column or field; without one: null.")
    ] = None,
    quota: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GROUP=N",
            help="Keep N rows of this group, or a JSON file of an object {group: N}. Repeat it for several. Groups "
            "without one keep what --top and --fraction say, and nothing without these.",
        ),
    ] = None,
    distinct: Annotated[
        float | None,
        typer.Option(
            metavar="DISTANCE",
            callback=a_distance,
            help="Leave out a row whose embedding is closer than this to that of a better row that is kept; Euclidean "
            "between unit vectors, 0..2. The next row takes its place.",
        ),
    ] = None,
    bundle: Annotated[
        str | None, typer.Option(help="Bundle with the embedding role for --distinct; by default the demo bundle.")
    ] = None,
    device: DeviceName = "auto",
    format: Format = None,
    map: Map = None,
    by: Annotated[str, typer.Option(help="Column to order by, ascending.")] = "predicted_log_loss",
    descending: Annotated[
        bool, typer.Option("--descending", help="Largest first, for columns where more is better, as reward.")
    ] = False,
    explain: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=rows_out,
            help="Write a JSON line for each row: kept or why not, and each term's part.",
        ),
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(
            callback=named_rule, help="Whose terms --explain shows; by default the one that SCORED.run.json names."
        ),
    ] = None,
    random_baseline: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            callback=rows_out,
            help="Write as many rows at random, from all that have a value, to compare with.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, callback=a_count, help="Of --random-baseline.")] = 0,
    prefix: ScoredPrefix = "",
    keep_scores: Annotated[bool, typer.Option("--keep-scores", help="Keep the added columns in the rows.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT and the other files.")] = False,
    json: Json = False,
) -> None:
    """Write the original rows with the smallest predicted loss, ascending; ties keep their input order.

    Give at least one of --top, --fraction, --tokens, --max-loss, --where, --quota and --distinct; a row is kept that is
    within all of them. --where and --quota say which rows are candidates, the others how many of these are kept. Rows
    without a value are left out. OUT.selection.json has the settings and the counts by reason; -o - writes rows alone.
    """
    from instructmining.errors import SelectionError
    from instructmining.scored.selection import select as select_rows
    from instructmining.scored.selection.near_duplicates import Distinct
    from instructmining.scored.selection.options import Extras, SelectionOptions
    from instructmining.writing.atomic import check_apart
    from instructmining_cli.reports.json_out import print_record

    check_json(json, out)
    if descending and max_loss is not None:
        raise typer.BadParameter("--max-loss keeps the smallest values and does not go with --descending")
    fields = field_options(format=format, mapping=map)
    check_apart([*_beside(out), explain, random_baseline], [bundle, *(quota or ())])
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
                else Distinct(distinct, encoder, fields=fields, encoder=encoder.said),
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
            overwrite=overwrite,
            extras=Extras(explain=explain, rule=rule, random_baseline=random_baseline, seed=seed),
        )
    _say_result(kept, choice, f"{prefix}{by} {'down' if descending else 'up'} to", out)
    if json:
        print_record(out, ".selection.json")


def _beside(out: str) -> list[str]:
    """OUT and what stands beside it."""
    return [] if out == "-" else [out, f"{out}.selection.json"]


def _quotas(given: list[str]) -> dict[str, int]:
    """GROUP=N, or JSON files of groups and numbers.

    Raises:
        typer.BadParameter: one is neither.
    """
    import orjson

    from instructmining.reading.small_files import read_small

    quotas: dict[str, int] = {}
    for text in given:
        group, equals, count = text.rpartition("=")
        if equals and count.strip().isdecimal():
            quotas[group] = int(count)
            continue
        wrong = f"--quota {text!r}: wanted GROUP=N or a JSON file of an object {{group: N}}"
        try:
            given_in_file = orjson.loads(read_small(text))
        except (OSError, orjson.JSONDecodeError) as error:
            raise typer.BadParameter(f"{wrong}: {error}") from error
        if not isinstance(given_in_file, dict) or not all(type(count) is int for count in given_in_file.values()):
            raise typer.BadParameter(wrong)
        quotas |= given_in_file
    return quotas


class Encoder:
    """Embeds rows for ``--distinct``; its bundle is opened with the first of them, after all else is known to be right.

    Attributes:
        said: of the bundle and its device, for the selection file, once it is open.
    """

    def __init__(self, bundle: str | None, device: str, stack: ExitStack) -> None:
        """Take note of what to open, for as long as the stack."""
        self.said: dict[str, object] = {}
        self._bundle, self._device, self._stack = bundle, device, stack

    def embeddings(self, examples: Iterable[Example]) -> Generator[NDArray[np.float32], None, None]:
        """Unit vectors of all examples in their order; see :meth:`instructmining.Scorer.embeddings`.

        Raises:
            InstructMiningError: the bundle cannot be opened or built, or an example cannot be embedded.
        """
        from instructmining.scorer.scorer import Scorer
        from instructmining_cli.run.demo_bundle import demo_bundle, naming_another

        folder = self._bundle or demo_bundle(say)
        with naming_another():
            scorer = self._stack.enter_context(Scorer.open(folder, indicators=["knn_6"], device=self._device))
        say(f"device: {', '.join(map(str, scorer.devices))}")
        self.said |= {"bundle": scorer.bundle.name, "digest": scorer.bundle.digest, "device": str(scorer.device)}
        yield from scorer.embeddings(examples)


def _say_result(kept: Selection, choice: SelectionOptions, bound: str, out: str) -> None:
    worst = f", {bound} {kept.worst:.4f}" if kept.worst is not None else ""
    tokens = f", {kept.tokens:,} of {choice.tokens:,} tokens" if kept.tokens is not None else ""
    say(f"kept {kept.kept:,} of {kept.rows:,} rows{worst}{tokens}: {out}")
    for reason, rows in kept.left_out.items():
        say(f"left out: {rows:,}, {reason}")
    for remark in kept.remarks:
        warn(f"caution: {remark}")
