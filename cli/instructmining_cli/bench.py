"""``instructmining bench``: how fast a bundle scores one's own rows on a device, and how far that is from its limit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
from instructmining_cli.field_options import Format, Ignore, Map, field_options
from instructmining_cli.option_checks import known_indicators, known_rule
from instructmining_cli.reading_options import Delimiter, Encoding, expanded, reading_options
from instructmining_cli.text_out import text_width

_LIMIT = {"cpu": 100, "cuda": 20_000}  # rows, where none is given: about a minute with a small model


def bench(
    inputs: Annotated[list[str], typer.Argument(metavar="INPUT...", help="Files and folders as score takes them.")],
    bundle: Annotated[
        str | None,
        typer.Option(help="Bundle folder; by default the demo bundle, built when its parts are installed."),
    ] = None,
    device: DeviceName = "auto",
    budget_tokens: BudgetTokens = None,
    batches_at_once: BatchesAtOnce = None,
    cuda_graphs: CudaGraphs = False,
    tensorrt: TensorRT = None,
    gpu_memory: GpuMemory = None,
    rule: Annotated[
        str | None,
        typer.Option(callback=known_rule, help="paper-v1, paper-v3 or a JSON file; by default the bundle's own."),
    ] = None,
    indicators: Annotated[
        str | None,
        typer.Option(callback=known_indicators, help="Columns to compute, comma-separated, or 'all', as for score."),
    ] = None,
    format: Format = None,
    map: Map = None,
    ignore: Ignore = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help=f"Take the first N rows; by default {_LIMIT['cpu']:,} ({_LIMIT['cuda']:,} on CUDA)."),
    ] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, help="Score them N times; by default 3 times, or as often as 20 seconds allow.")
    ] = None,
    json: Annotated[
        str | None, typer.Option(help="Write all figures to this file; - writes them to standard output, no table.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the file of --json.")] = False,
) -> None:
    """Score rows, throw the results away, and print how fast it was: rows, tokens, stages, share of the device's peak.

    Reading, tokenizing and the models run as in score, with its batch sizes; nothing is written. Exit code 3: rows were
    rejected.
    """
    from instructmining.reading.compression import is_pipe
    from instructmining.reading.examples import ExampleReader, read_examples
    from instructmining.scorer import Scorer
    from instructmining.throughput import measure_throughput
    from instructmining_cli.bench_report import BenchReport
    from instructmining_cli.calibrations import choose_budgets
    from instructmining_cli.demo_bundle import demo_bundle, naming_another

    if any(is_pipe(path) for path in inputs):
        raise typer.BadParameter("bench reads its input several times, which a pipe does not allow; give files")
    fields = field_options(format=format, mapping=map, ignore=ignore)
    options = reading_options(delimiter=delimiter, encoding=encoding)
    inputs, _ = expanded(inputs, say=_say)
    _check(json, inputs, overwrite=overwrite)
    read_examples(inputs, fields=fields, options=options)  # which finds a file that is missing before models are loaded
    folder = bundle or demo_bundle(_say)
    accelerated = acceleration(cuda_graphs=cuda_graphs, tensorrt=tensorrt, gpu_memory=gpu_memory)
    with naming_another():
        opened = Scorer.open(
            folder,
            rule=rule,
            indicators=indicators,
            device=device,
            batches_at_once=batches_at_once,
            acceleration=accelerated,
        )
    with opened as scorer:
        _say(f"device: {', '.join(str(device) for device in scorer.devices)}")
        most = limit or _LIMIT[scorer.device.kind]
        choose_budgets(scorer, inputs, fields, given=budget_tokens, limit=most, options=options, say=_say)
        readers: list[ExampleReader] = []

        def read() -> ExampleReader:
            readers.append(read_examples(inputs, fields=fields, limit=most, options=options, on_reject=lambda _: None))
            return readers[-1]

        found = measure_throughput(scorer, read, rounds=rounds, say=_say)
        report = BenchReport(found, scorer, inputs, most, readers[-1].rows)
    if json != "-":
        for line in report.table(text_width(None)):
            typer.echo(line)
    if json is not None:
        _write(report.as_json(), json)
    if report.left_out:
        _say(f"left out: {report.left_out}")
    if found.typical.rejected:
        _say(f"rejected {found.typical.rejected:,} of {report.rows_read:,} rows; score names them and says why")
        raise typer.Exit(3)


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _check(json: str | None, inputs: list[str], *, overwrite: bool) -> None:
    """Refuse a place for the figures before minutes of work.

    Raises:
        BadParameter: it is an input.
        OutputError: it cannot be a file, or is one already.
    """
    from instructmining.errors import OutputError

    if json in {None, "-"}:
        return
    file = Path(str(json))
    if file.exists() and any(file.samefile(path) for path in inputs if Path(path).exists()):
        raise typer.BadParameter(f"--json {json} is an input; give another file")
    if file.is_dir():
        raise OutputError(f"{json}: is a folder; give --json a file")
    if file.exists() and not overwrite:
        raise OutputError(f"{json}: exists; give --overwrite to replace it")
    if not file.parent.is_dir():
        raise OutputError(f"{json}: its folder {file.parent} does not exist")


def _write(figures: dict[str, object], where: str) -> None:
    """Raises OutputError where the file cannot be written."""
    import orjson

    from instructmining.errors import OutputError

    content = orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if where == "-":
        typer.echo(content.decode(), nl=False)
        return
    file = Path(where)
    partial = file.with_name(f"{file.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    except OSError as error:
        raise OutputError(f"{where}: cannot be written: {error.strerror}") from error
