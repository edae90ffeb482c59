"""``instructmining inspect``: what an input holds and what the models will see of it, without running a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from instructmining_cli.options.checks import a_count
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.fields import Format, Ignore, Map, field_options
from instructmining_cli.options.output import Json
from instructmining_cli.options.reading import Delimiter, Encoding, expanded, reading_options
from instructmining_cli.options.scoring import Indicators, MaxLength, Prefix, RuleName
from instructmining_cli.process.terminal import echo, say, warn
from instructmining_cli.reports.text_out import text_width

if TYPE_CHECKING:
    from instructmining.bundle import Bundle
    from instructmining.reading.formats import FieldOptions
    from instructmining.reading.options import ReadOptions
    from instructmining_cli.reports.inspecting import Inspection

SAMPLE, SHOWN = 1000, 2  # rows read, and rows whose texts are shown

_NO_BUNDLE = (
    "the demo bundle is not in the cache yet; score writes it, or 'export --preset demo -o DIR'; or give --bundle"
)


def inspect(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files as score takes them.")],
    bundle: Annotated[
        str | None,
        typer.Option(
            help="Bundle with the tokenizers and templates to use; by default the demo bundle, if it is in the cache."
        ),
    ] = None,
    rule: RuleName = None,
    indicators: Indicators = None,
    device: DeviceName = "auto",
    format: Format = None,
    map: Map = None,
    ignore: Ignore = None,
    prefix: Prefix = "",
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    max_length: MaxLength = None,
    sample: Annotated[
        int,
        typer.Option(min=1, callback=a_count, help="Rows to read from all inputs together, at least 20 of each."),
    ] = SAMPLE,
    rows: Annotated[
        int, typer.Option("--rows", min=0, callback=a_count, help="Show the texts of the first N rows.")
    ] = SHOWN,
    json: Json = False,
) -> None:
    """Show what an input holds: its format and why, fields that are read and not read, bad rows, lengths.

    Also shows the first rows as each model would get them, with the scored and the truncated tokens, and how long
    scoring should take here, judging by the last runs. No model is loaded.

    Examples:
        instructmining inspect data.jsonl
        instructmining inspect data.csv --map prompt=query,response=reply
    """
    look(
        inputs,
        field_options(format=format, mapping=map, ignore=ignore),
        reading_options(delimiter=delimiter, encoding=encoding),
        Wanted(bundle, rule, indicators, device, prefix, max_length),
        sample=sample,
        shown=rows,
        json=json,
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Options of ``score`` for the run that is inspected."""

    bundle: str | None
    rule: str | None
    indicators: str | None
    device: str
    prefix: str
    max_length: int | None
    recompute: bool = False
    limit: int | None = None


def look(
    inputs: list[str],
    fields: FieldOptions,
    options: ReadOptions,
    wanted: Wanted,
    *,
    sample: int = SAMPLE,
    shown: int = SHOWN,
    json: bool = False,
) -> None:
    """Read the first rows of inputs and print what they hold.

    Args:
        inputs: files, folders, patterns.
        fields: how the fields of rows are read.
        options: how rows are read.
        wanted: options of the run.
        sample: rows to read.
        shown: rows whose texts are printed.
        json: print a JSON document.
    """
    from instructmining_cli.reports.inspect_report import as_json, report
    from instructmining_cli.reports.inspecting import Asked, inspect_inputs
    from instructmining_cli.reports.json_out import print_document

    files = expanded(inputs, say=warn)
    bundle = _opened(wanted.bundle, wanted.max_length)
    asked = Asked(bundle, wanted.rule, wanted.indicators, wanted.prefix, recompute=wanted.recompute, limit=wanted.limit)
    found = inspect_inputs(files.paths, fields, options.below(files.partitioned), asked, sample=sample, shown=shown)
    expected_s, basis = _expected(found, bundle, wanted.device)
    if json:
        print_document(as_json(found, expected_s=expected_s))
        return
    for line in report(found, expected_s=expected_s, basis=basis, width=text_width(None)):
        echo(line)


def _opened(bundle: str | None, max_length: int | None) -> Bundle | None:
    """Open the named bundle, or the demo bundle if it is built, without loading graphs."""
    from instructmining.bundle import Bundle
    from instructmining.bundle.demo import cached_demo_bundle

    folder = bundle if bundle is not None else cached_demo_bundle()
    if folder is None:
        say(f"tokens are not counted: {_NO_BUNDLE}")
        return None
    return Bundle.open(folder).limited(max_length)


def _expected(found: Inspection, bundle: Bundle | None, device: str) -> tuple[float | None, str]:
    """Return the seconds that scoring all rows should take, and what they are based on or why they are not known."""
    from instructmining_scale.runs.speeds import LEAST_S, last_speed

    if bundle is None:
        return None, _NO_BUNDLE
    if not found.lengths:
        return None, "no row could be read"
    looked_at = sum(file.looked_at for file in found.files)
    tokens: dict[str, float] = {}
    for name, lengths in found.lengths.items():
        if lengths.limit is not None and looked_at:
            label = name.partition(":")[0]
            tokens[label] = tokens.get(label, 0.0) + float(lengths.tokens.sum()) / looked_at * found.rows
    if not tokens:
        return 0.0, "no model is needed"
    speed = last_speed(bundle, device)
    expected_s = None if speed is None else speed.expected_s(tokens)
    if speed is None or expected_s is None:
        known = f"no run of {LEAST_S:.0f} s or more with this bundle on the device {device!r} computed these columns"
        return None, known
    basis = f"{sum(tokens.values()):,.0f} tokens at the last speeds measured, by the run of {speed.at[:10]} or before"
    bound = "; at most this, as a model was timed only together with another" if speed.at_most(tokens) else ""
    return expected_s, f"{basis}, on {speed.device}{bound}"
