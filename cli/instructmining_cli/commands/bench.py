"""``instructmining bench``: how fast a bundle scores your rows on a device, and how close that is to its limit."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Annotated

import typer

from instructmining_cli.options.checks import a_count
from instructmining_cli.options.devices import (
    BatchesAtOnce,
    CudaGraphs,
    DeviceName,
    GpuMemory,
    MaxBatchTokens,
    acceleration,
)
from instructmining_cli.options.fields import Format, Ignore, Map, field_options
from instructmining_cli.options.output import Json
from instructmining_cli.options.reading import Delimiter, Encoding, expanded, reading_options
from instructmining_cli.options.scoring import BundleFolder, Indicators, RuleName
from instructmining_cli.process.terminal import echo, say, warn
from instructmining_cli.reports.text_out import text_width

_LIMIT = {"cpu": 100, "cuda": 20_000}  # rows by default: about a minute with a small model


def bench(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files and folders as score takes them.")],
    bundle: BundleFolder = None,
    device: DeviceName = "auto",
    max_batch_tokens: MaxBatchTokens = None,
    batches_at_once: BatchesAtOnce = None,
    cuda_graphs: CudaGraphs = False,
    gpu_memory: GpuMemory = None,
    rule: RuleName = None,
    indicators: Indicators = None,
    format: Format = None,
    map: Map = None,
    ignore: Ignore = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    limit: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=a_count,
            help=f"Score the first N rows; by default {_LIMIT['cpu']:,} ({_LIMIT['cuda']:,} on CUDA).",
        ),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            min=1,
            callback=a_count,
            help="Score them N times; by default 3 times, or fewer if they take over 20 seconds.",
        ),
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", help="Write all figures to this file as JSON.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of -o.")] = False,
    json: Json = False,
) -> None:
    """Score rows, discard the results, and print the speed: rows, tokens, stages, share of the device's peak.

    Rows are read, tokenized and scored as in score, in batches of the same size; nothing is written. Exit code 3: rows
    were rejected.

    Examples:
        instructmining bench data.jsonl --rounds 3
        instructmining bench data.jsonl --indicators reward --device cuda
    """
    from instructmining.reading.compression import is_pipe
    from instructmining.reading.example_reader import ExampleReader
    from instructmining.reading.examples import read_examples
    from instructmining.scorer.scorer import Scorer
    from instructmining.writing.atomic import Placement
    from instructmining_cli.machine.throughput import measure_throughput
    from instructmining_cli.reports.bench_report import BenchReport
    from instructmining_cli.reports.json_out import as_document, print_document
    from instructmining_cli.run.demo_bundle import demo_bundle, naming_another
    from instructmining_scale.runs.calibrations import choose_budgets

    if any(is_pipe(path) for path in inputs):
        raise typer.BadParameter("bench reads its input several times and cannot read a pipe; give files")
    if out == "-":
        raise typer.BadParameter("-o -: name a file; --json prints the figures on standard output")
    fields = field_options(format=format, mapping=map, ignore=ignore)
    options = reading_options(delimiter=delimiter, encoding=encoding)
    expansion = expanded(inputs, say=warn)
    inputs, options = list(expansion.paths), options.below(expansion.partitioned)
    read_examples(inputs, fields=fields, options=options)  # fails on a missing file before models are loaded
    accelerated = acceleration(cuda_graphs=cuda_graphs, gpu_memory=gpu_memory)
    with ExitStack() as stack:
        files = stack.enter_context(Placement([out], overwrite=overwrite, reads=[*inputs, bundle, rule]))
        folder = bundle or demo_bundle(say)
        with naming_another():
            opened = Scorer.open(
                folder,
                rule=rule,
                indicators=indicators,
                device=device,
                batches_at_once=batches_at_once,
                acceleration=accelerated,
            )
        scorer = stack.enter_context(opened)
        say(f"device: {', '.join(str(device) for device in scorer.devices)}")
        rows_limit = limit or _LIMIT[scorer.device.kind]
        choose_budgets(scorer, inputs, fields, given=max_batch_tokens, limit=rows_limit, options=options, say=say)
        readers: list[ExampleReader] = []

        def read() -> ExampleReader:
            readers.append(
                read_examples(inputs, fields=fields, limit=rows_limit, options=options, on_reject=lambda _: None)
            )
            return readers[-1]

        found = measure_throughput(scorer, read, rounds=rounds, say=say)
        report = BenchReport(found, scorer, inputs, rows_limit, readers[-1].rows)
        if out is not None:
            files.write(out, as_document(report.as_json()))
            files.put()
        if json:
            print_document(report.as_json())
        else:
            for line in report.table(text_width(None)):
                echo(line)
    if report.left_out:
        say(f"left out: {report.left_out}")
    if found.typical.rejected:
        say(f"rejected {found.typical.rejected:,} of {report.rows_read:,} rows; score names them and says why")
        raise typer.Exit(3)
