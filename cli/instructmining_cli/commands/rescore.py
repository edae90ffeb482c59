"""``instructmining rescore``: applies another rule to scored rows."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from instructmining_cli.options.checks import named_rule, rows_out
from instructmining_cli.options.output import OUT_HELP, Json, check_json
from instructmining_cli.options.scoring import ScoredPrefix
from instructmining_cli.process.terminal import say, warn


def rescore(
    scored: Annotated[str, typer.Argument(metavar="SCORED", help="A file that score wrote.")],
    out: Annotated[str, typer.Option("-o", "--out", callback=rows_out, help=OUT_HELP)],
    rule: Annotated[str, typer.Option(callback=named_rule, help="paper-v1, paper-v3 or a JSON file.")],
    prefix: ScoredPrefix = "",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
    json: Json = False,
) -> None:
    """Predict by another rule, without running a model; only the prediction changes, all other bytes stay.

    OUT is what score would have written with that rule and the same indicators. OUT.run.json records the run; -o -
    writes only the rows.

    Examples:
        instructmining rescore scored.jsonl --rule my-rule.json -o rescored.jsonl
        instructmining rescore scored.jsonl --rule paper-v1 -o - | head
    """
    from instructmining.scored.rescore import rescore as rescore_rows
    from instructmining_cli.reports.json_out import print_record
    from instructmining_cli.run.demo_bundle import check_terms
    from instructmining_scale.wording import rows_of

    check_json(json, out)
    begin = time.perf_counter()
    check_terms(scored, rule, prefix=prefix)
    done = rescore_rows(scored, out, rule, prefix=prefix, overwrite=overwrite)
    if done.caution:
        warn(f"caution: {done.caution}")
    elapsed = time.perf_counter() - begin
    say(f"rescored {rows_of(done.rows)} in {elapsed:.1f} s ({done.rows / elapsed:,.0f} rows/s): {out}")
    if done.without_value:
        say(f"no prediction, because a term is missing: {done.without_value:,}")
    if json:
        print_record(out, ".run.json")
