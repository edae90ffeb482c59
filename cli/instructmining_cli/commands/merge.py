"""``instructmining merge``: joins the parts of a run in shards."""

from __future__ import annotations

from typing import Annotated

import typer

from instructmining_cli.options.checks import rows_out
from instructmining_cli.options.output import OUT_HELP, Json, Overwrite, check_json
from instructmining_cli.process.terminal import say


def merge(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder that score --shard wrote to.")],
    out: Annotated[str, typer.Option("-o", "--out", callback=rows_out, help=OUT_HELP)],
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
    from instructmining_cli.reports.wording import rows_of
    from instructmining_scale.merging import merge as merge_parts

    check_json(json, out)
    merged = merge_parts(folder, out, overwrite=overwrite)
    parts = "1 part" if merged.parts == 1 else f"{merged.parts:,} parts"
    say(f"merged {rows_of(merged.rows)} of {parts}: {out}")
    if merged.rejects:
        say(f"rejected {rows_of(merged.rejects)}: {out}.rejects.jsonl")
    if json:
        print_record(out, ".run.json")
    if merged.rejects:
        raise typer.Exit(3)
