"""``instructmining experiment design``: scores a pool and plans the runs."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from instructmining_cli.options.checks import a_count, a_distance, a_part, a_speed
from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.output import Json
from instructmining_cli.options.reading import expanded
from instructmining_cli.options.scoring import BundleFolder, IndicatorsAlone
from instructmining_cli.process.stopping import stopping
from instructmining_cli.process.terminal import echo, say, warn

_EVERY_S = 30.0  # between two lines of progress


def design(
    pool: Annotated[
        list[str],
        typer.Argument(metavar="POOL...", help="Files of rows, as score reads them; also folders and patterns."),
    ],
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="Folder of the experiment.")],
    bundle: BundleFolder = None,
    indicators: IndicatorsAlone = "all",
    runs: Annotated[
        int, typer.Option(min=2, callback=a_count, help="Subsets to fine-tune on, half random, half tilted.")
    ] = 40,
    replicates: Annotated[
        int,
        typer.Option(min=0, callback=a_count, help="Further runs on the rows of some, with other seeds: the noise."),
    ] = 8,
    subset_tokens: Annotated[
        int, typer.Option(min=1, callback=a_count, help="Tokens of each subset, prompts and responses, within 1 %.")
    ] = 12_000,
    evaluation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="Measure the loss on the rows of this file, which no run sees. Can be repeated: the first set is the "
            "one that a rule predicts.",
        ),
    ] = None,
    evaluation_rows: Annotated[
        int,
        typer.Option(
            min=1,
            callback=a_count,
            help="Without --evaluation, rows of each of two sets, drawn from the first file of the pool and from the "
            "last.",
        ),
    ] = 100,
    reserve: Annotated[
        float, typer.Option(callback=a_part, help="Share of the rows that no run sees, kept for a comparison.")
    ] = 0.2,
    near: Annotated[
        float,
        typer.Option(
            metavar="DISTANCE",
            callback=a_distance,
            help="Leave out rows whose embedding is closer than this to one of an evaluation row; Euclidean between "
            "unit vectors, 0..2.",
        ),
    ] = 0.2,
    max_row_tokens: Annotated[
        int,
        typer.Option(
            min=1,
            callback=a_count,
            help="Leave out longer rows, which training would truncate: runs would differ in tokens.",
        ),
    ] = 2000,
    seed: Annotated[int, typer.Option(min=0, callback=a_count, help="Seed of all draws.")] = 0,
    tokens_per_second: Annotated[
        float | None,
        typer.Option(metavar="N", callback=a_speed, help="Speed of fine-tuning, to say how long the runs will take."),
    ] = None,
    device: DeviceName = "auto",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another design, unless runs were trained by it.")
    ] = False,
    json: Json = False,
) -> None:
    """Plan an experiment: score a pool once, and draw the subsets to fine-tune on, matched in tokens.

    DIR gets the scored pool and plan.json, with every seed and digest. An interrupted call continues when it is
    repeated; a design that is there already is left as it is. Says what the runs cost and what they can detect.

    Examples:
        instructmining experiment design pool.jsonl -o experiment
        instructmining experiment design a.jsonl b.jsonl -o experiment --runs 60
    """
    from instructmining_cli.reports.design_report import as_text, figures_of
    from instructmining_cli.reports.json_out import print_document
    from instructmining_cli.run.demo_bundle import demo_bundle, naming_another
    from instructmining_experiments.designing.design import DesignOptions
    from instructmining_experiments.designing.design import design as design_experiment

    files = list(expanded(pool, say=warn).paths)
    options = DesignOptions(
        indicators=indicators,
        runs=runs,
        replicates=replicates,
        subset_tokens=subset_tokens,
        evaluation=tuple(evaluation or ()),
        evaluation_rows=evaluation_rows,
        reserve=reserve,
        max_row_tokens=max_row_tokens,
        near=near,
        seed=seed,
    )
    kept = f"what was scored is kept in {out}; the same command continues"
    begun = ScoringProgress()
    with stopping().noting(lambda: kept if begun.done else None, say=warn), naming_another():
        found = design_experiment(
            files,
            out,
            options,
            bundle=bundle or demo_bundle(say),
            device=device,
            overwrite=overwrite,
            progress=begun.report,
        )
    if json:
        print_document(figures_of(found, out, tokens_per_second))
    else:
        echo(as_text(found, tokens_per_second))
    say(f"{'planned' if found.new else 'already planned so'}: {out}")


class ScoringProgress:
    """Says how far the scoring is, now and then."""

    def __init__(self) -> None:
        self.done = False  # whether anything was scored
        self._said = time.monotonic()

    def report(self, what: str, share: float) -> None:
        """Write a line if the last was a while ago."""
        self.done = True
        if time.monotonic() - self._said >= _EVERY_S:
            self._said = time.monotonic()
            say(f"{what}: {share:.0%}")
