"""``instructmining score``: rows in, scored rows out."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated, Literal

import typer

from instructmining_cli.device_options import (
    BatchesAtOnce,
    BudgetTokens,
    CudaGraphs,
    DeviceName,
    GpuMemory,
    TensorRT,
    acceleration,
)


def score(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUT...", help="JSON or JSON lines, also .gz or .zst; - reads standard input."),
    ],
    out: Annotated[
        str, typer.Option("-o", "--out", help="OUT.jsonl, .jsonl.gz or .jsonl.zst; - writes rows to standard output.")
    ],
    bundle: Annotated[
        str | None,
        typer.Option(help="Bundle folder; by default the demo bundle, built when its parts are installed."),
    ] = None,
    rule: Annotated[
        str | None, typer.Option(help="paper-v1, paper-v3 or a JSON file; by default the bundle's own.")
    ] = None,
    indicators: Annotated[
        str | None,
        typer.Option(
            help="Columns to compute, comma-separated, or 'all' that the bundle's roles give. Alone: no prediction; "
            "with --rule: beside its terms."
        ),
    ] = None,
    device: DeviceName = "auto",
    budget_tokens: BudgetTokens = None,
    batches_at_once: BatchesAtOnce = None,
    cuda_graphs: CudaGraphs = False,
    tensorrt: TensorRT = None,
    gpu_memory: GpuMemory = None,
    knn: Annotated[
        Literal["exact", "approx"],
        typer.Option(help="How neighbours are searched; approx is by an index, its recall written into the run file."),
    ] = "exact",
    format: Annotated[
        str | None,
        typer.Option(help="alpaca, sharegpt, messages or prompt_response; by default detected in each file."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Put before the name of each added column.")] = "",
    limit: Annotated[int | None, typer.Option(min=1, help="Take the first N rows only.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace OUT.")] = False,
) -> None:
    """Score instruction data: indicators and the rule's predicted log loss (lower is better), a row out for each in.

    Bad rows go to OUT.rejects.jsonl with the reason; OUT.run.json says what was run. Exit code 3: rows were rejected.
    """
    from instructmining.formats import format_name
    from instructmining.inputs import read_examples
    from instructmining.records import COLUMNS
    from instructmining.scorer import Scorer
    from instructmining.writers import RunWriter, added_names
    from instructmining_cli.calibrations import choose_budgets
    from instructmining_cli.demo_bundle import demo_bundle
    from instructmining_cli.runs import Run

    name = format_name(format)
    folder = bundle or demo_bundle(_say)
    with RunWriter(out, prefix=prefix, overwrite=overwrite, inputs=inputs) as writer, ExitStack() as stack:
        reader = read_examples(
            inputs,
            format=name,
            limit=limit,
            columns=added_names(COLUMNS, prefix),  # select takes them all for ours
            on_reject=None if strict else writer.reject,
        )
        scorer = stack.enter_context(
            Scorer.open(
                folder,
                rule=rule,
                indicators=indicators,
                device=device,
                batches_at_once=batches_at_once,
                acceleration=acceleration(cuda_graphs=cuda_graphs, tensorrt=tensorrt, gpu_memory=gpu_memory),
                knn=knn,
            )
        )
        origin = choose_budgets(scorer, inputs, name, given=budget_tokens, limit=limit, say=_say)
        if knn == "approx" and not scorer.searches_neighbours:
            _say("--knn has no effect: knn_6 is not among the columns")
        asked: dict[str, object] = {
            "rule": rule,
            "indicators": indicators,
            "device": device,
            "batches_at_once": batches_at_once,
            "cuda_graphs": cuda_graphs,
        }
        asked |= {"tensorrt": str(tensorrt) if tensorrt else None, "gpu_memory_gib": gpu_memory}
        asked |= {"format": format, "prefix": prefix, "limit": limit, "strict": strict, "budget_from": origin}
        run = Run(scorer, inputs, out, asked, knn, reader=reader)
        with run.display():
            rows = scorer.score(
                reader,
                on_reject=None if strict else writer.reject_example,
                on_progress=run.progress,
                statistics=run.statistics,
            )
            for row in rows:
                with run.statistics.timed("write"):
                    writer.write(row)
                run.count(row)
        run.check_counts()
        writer.finish(run.as_json())
        run.say_result()
    if run.rejected:
        raise typer.Exit(3)


def _say(text: str) -> None:
    typer.echo(text, err=True)
