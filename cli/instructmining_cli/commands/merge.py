"""``instructmining merge``: joins the parts of a run in shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from instructmining_cli.options.checks import rows_out
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.output import OUT_HELP, Json, Overwrite, check_json
from instructmining_cli.process.terminal import say

if TYPE_CHECKING:
    from instructmining.writing.statistics import Statistics

_SAID_FROM_S = 5.0  # expected time of a search


def merge(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder that score --shard wrote to.")],
    out: Annotated[str, typer.Option("-o", "--out", callback=rows_out, help=OUT_HELP)],
    device: DeviceName = "cpu",
    overwrite: Overwrite = False,
    json: Json = False,
) -> None:
    """Join the parts of score --shard into the file that one run would have written.

    Checks first that all parts are there and of one run; then that each has the rows that its run file counts. OUT and
    OUT.rejects.jsonl are those of one run, byte for byte. Exit code 3: there are rejects.

    Examples:
        instructmining merge parts -o scored.jsonl
        instructmining merge parts -o scored.parquet --overwrite
    """
    from instructmining_cli.reports.json_out import print_record
    from instructmining_scale.merging import merge as merge_parts
    from instructmining_scale.wording import duration, rows_of

    check_json(json, out)
    said = False

    def report(statistics: Statistics) -> None:
        nonlocal said
        expected = statistics.neighbours_expected_s
        if expected is not None and expected >= _SAID_FROM_S and not said:
            said = True
            say(f"searching the neighbours of {rows_of(statistics.neighbours_wanted)}: about {duration(expected)}")

    merged = merge_parts(folder, out, overwrite=overwrite, device=device, report=report)
    parts = "1 part" if merged.parts == 1 else f"{merged.parts:,} parts"
    say(f"merged {rows_of(merged.rows)} of {parts}: {out}")
    if merged.rejects:
        say(f"rejected {rows_of(merged.rejects)}: {out}.rejects.jsonl")
    if json:
        print_record(out, ".run.json")
    if merged.rejects:
        raise typer.Exit(3)
