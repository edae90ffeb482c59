"""``instructmining score``: reads rows and writes them with scores."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

import typer

from instructmining_cli.commands.inspect import Wanted, look
from instructmining_cli.options.checks import a_count, folder_out, rows_out
from instructmining_cli.options.devices import (
    BatchesAtOnce,
    CudaGraphs,
    DeviceName,
    GpuMemory,
    MaxBatchTokens,
    acceleration,
)
from instructmining_cli.options.fields import Format, Ignore, Map, StrictFields, field_options
from instructmining_cli.options.output import OUT_HELP, Json, check_json
from instructmining_cli.options.reading import BlockBytes, Delimiter, Encoding, expanded, reading_options
from instructmining_cli.options.scoring import BundleFolder, Indicators, MaxLength, Prefix, RuleName
from instructmining_cli.options.sharding import PartFormat, RayAddress, Shard, Shards, Workers, shard_of
from instructmining_cli.process.terminal import say, warn

_Search: TypeAlias = Literal["exact", "approx"]
_Metric: TypeAlias = Literal["euclidean", "cosine"]
_Text: TypeAlias = Literal["document", "prompt", "response"]
_Neighbours: TypeAlias = tuple[_Search, _Metric, _Text, str | None, str | None]  # the last two: pool, other file

if TYPE_CHECKING:
    from instructmining.knn.options import KnnOptions
    from instructmining.reading.formats import FieldOptions
    from instructmining.reading.options import ReadOptions
    from instructmining_scale.runs.scoring import ScoreRequest
    from instructmining_scale.runs.scoring_run import Run


def score(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="JSON, JSON lines, CSV or TSV, also .gz or .zst; .parquet, .arrow, .feather; folders of them and "
            "'patterns/**/*.jsonl', here or at an address such as s3://BUCKET/KEY; - reads standard input.",
        ),
    ],
    out: Annotated[str | None, typer.Option("-o", "--out", help=f"{OUT_HELP} With --shard a folder.")] = None,
    bundle: BundleFolder = None,
    rule: RuleName = None,
    indicators: Indicators = None,
    device: DeviceName = "auto",
    max_batch_tokens: MaxBatchTokens = None,
    batches_at_once: BatchesAtOnce = None,
    cuda_graphs: CudaGraphs = False,
    gpu_memory: GpuMemory = None,
    knn: Annotated[
        _Search,
        typer.Option(help="How neighbours are searched; approx uses an index and writes its recall to the run file."),
    ] = "exact",
    knn_metric: Annotated[_Metric, typer.Option(help="Distance between unit vectors, for neighbours.")] = "euclidean",
    knn_text: Annotated[
        _Text, typer.Option(help="Text of each row that is embedded to find its neighbours.")
    ] = "document",
    pool: Annotated[
        str,
        typer.Option(
            metavar="all|FIELD", help="Find neighbours among all rows, or among rows with the same value of a field."
        ),
    ] = "all",
    knn_against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Find neighbours among the rows of this file or folder instead of the input's."
        ),
    ] = None,
    format: Format = None,
    map: Map = None,
    ignore: Ignore = None,
    strict_fields: StrictFields = False,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    prefix: Prefix = "",
    limit: Annotated[int | None, typer.Option(min=1, callback=a_count, help="Score only the first N rows.")] = None,
    shard: Shard = None,
    part_format: PartFormat = ".jsonl",
    ray: RayAddress = None,
    shards: Shards = None,
    workers: Workers = None,
    block_bytes: BlockBytes = None,
    max_row_bytes: Annotated[
        int, typer.Option(min=2, callback=a_count, help="Reject rows longer than this; in bytes, uncompressed.")
    ] = 64 << 20,
    max_length: MaxLength = None,
    recompute: Annotated[
        bool, typer.Option("--recompute", help="Compute all columns again for rows that were scored before.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first bad row.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what inspect shows, and write nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Resume an interrupted run from OUT.partial; if there is none, start one.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace OUT, and what an interrupted run left.")
    ] = False,
    json: Json = False,
) -> None:
    """Score instruction data: add indicators and the rule's predicted log loss (lower is better) to each row.

    Bad rows go to OUT.rejects.jsonl with the reason; OUT.run.json records the run. Exit code 3: rows were rejected.
    An interrupted run continues with --resume; its OUT is then byte for byte the same.

    Examples:
        instructmining score data.jsonl -o scored.jsonl --rule paper-v1
        instructmining score 'data/**/*.parquet' -o scored.parquet --device cuda
    """
    from instructmining_cli.run.demo_bundle import naming_another
    from instructmining_cli.run.space import check_open_files
    from instructmining_cli.run.terminal_host import TerminalHost
    from instructmining_scale.runs.scoring import ScoreRequest, score_files

    if resume and overwrite:
        raise typer.BadParameter(
            "--resume continues an interrupted run, --overwrite starts a new one; give one of them"
        )
    fields = field_options(format=format, mapping=map, ignore=ignore, strict_fields=strict_fields)
    options = reading_options(
        delimiter=delimiter, encoding=encoding, max_row_bytes=max_row_bytes, block_bytes=block_bytes
    )
    if dry_run:
        wanted = Wanted(bundle, rule, indicators, device, prefix, max_length, recompute, limit)
        look(inputs, fields, options, wanted, json=json)
        return
    out = _checked_out(out, inputs, resume=resume, json=json, shard=shard or ray, limit=limit)
    if shard is not None and ray is not None:
        raise typer.BadParameter("--ray scores all shards; leave --shard out")
    files = expanded(inputs, out=out, say=warn)
    inputs = list(files.paths)
    others = expanded([knn_against] if knn_against else [], out=out, say=warn)
    options = options.below([*files.partitioned, *others.partitioned])
    neighbours = (knn, knn_metric, knn_text, None if pool == "all" else pool, knn_against)
    knn_options = _knn_options(neighbours, inputs, options, fields)
    check_open_files()
    request = ScoreRequest(
        inputs,
        out,
        fields,
        options,
        skipped=[str(skipped) for skipped in files.skipped],
        shard=shard_of(shard) if shard is not None else None,
        part_suffix=part_format,
        bundle=bundle,
        rule=rule,
        indicators=indicators,
        device=device,
        max_batch_tokens=max_batch_tokens,
        batches_at_once=batches_at_once,
        acceleration=acceleration(cuda_graphs=cuda_graphs, gpu_memory=gpu_memory),
        knn=knn_options,
        neighbours=others.paths,
        prefix=prefix,
        limit=limit,
        max_length=max_length,
        recompute=recompute,
        strict=strict,
        resume=resume,
        overwrite=overwrite,
    )
    if ray is not None:
        _score_on_ray(request, ray, shards, workers)
        return
    with naming_another():
        run = score_files(request, host=TerminalHost())
    _end(run, json=json)


def _score_on_ray(request: ScoreRequest, address: str, shards: int | None, workers: int | None) -> None:
    """Score all shards on a cluster.

    Raises:
        Exit: rows were rejected; code 3.
    """
    from instructmining_cli.run.demo_bundle import demo_bundle, naming_another
    from instructmining_cli.run.terminal_host import quiet_host
    from instructmining_scale.ray_pool import Pool, PoolOptions, connected
    from instructmining_scale.runs.ray_scoring import score_shards
    from instructmining_scale.wording import rows_of

    device = request.device
    uses_gpus = None if device == "auto" else device.startswith("cuda")
    request = replace(request, bundle=request.bundle or str(demo_bundle(say)))
    with connected(address), naming_another():
        pool = Pool(PoolOptions(address, workers, uses_gpus))
        done = score_shards(request, pool, shards, say=say, host=quiet_host)
    say(f"scored {rows_of(done.rows)} in {done.scored:,} shards; join them: instructmining merge {request.out} -o FILE")
    if done.rejected:
        raise typer.Exit(3)


def _end(run: Run, *, json: bool) -> None:
    """Print the run file if asked to.

    Raises:
        Exit: rows were rejected; code 3.
    """
    from instructmining_cli.reports.json_out import print_record

    if json:
        print_record(run.out, ".run.json")
    if run.rejected:
        raise typer.Exit(3)


def _knn_options(given: _Neighbours, inputs: list[str], options: ReadOptions, fields: FieldOptions) -> KnnOptions:
    """Build the options of neighbours, and check in the first rows that what they name exists.

    Raises:
        BadParameter: the options contradict each other.
        InputError: an input cannot be read.
        RuleError: no row has the field of the pools.
    """
    from instructmining.errors import RuleError
    from instructmining.knn.options import KnnOptions
    from instructmining.reading.compression import is_pipe
    from instructmining.reading.examples import first_fields, read_examples

    against = given[-1]
    try:
        knn_options = KnnOptions(*given, *((options, fields) if against is not None else ()))
    except RuleError as error:
        raise typer.BadParameter(str(error)) from error
    if against is not None and not is_pipe(against):
        read_examples(against, options=options, fields=fields).look()
    if knn_options.pool is not None and not any(map(is_pipe, inputs)):  # of a pipe, the scorer checks the first window
        knn_options.check_pool(first_fields(inputs, options=options))
    return knn_options


def _checked_out(
    out: str | None, inputs: list[str], *, resume: bool, json: bool, shard: str | None, limit: int | None
) -> str:
    """Return OUT, checked together with the other options.

    Raises:
        BadParameter: it is missing, or contradicts another option.
    """
    from instructmining.reading.compression import is_pipe

    if out is None:
        raise typer.BadParameter(
            "give -o OUT, or - for standard output" if shard is None else "give -o OUT, a folder for the parts"
        )
    if shard is not None:
        if limit is not None:
            raise typer.BadParameter(
                "--limit counts the rows of the whole input, and a shard reads its own; leave it out"
            )
        if json:
            raise typer.BadParameter("--json: the shards of a run have no result of their own; leave it out")
        return folder_out(out)
    try:
        rows_out(out)
    except typer.BadParameter as error:
        raise typer.BadParameter(error.message, param_hint="'-o' / '--out'") from error
    check_json(json, out)
    if not resume:
        return out
    if out == "-":
        raise typer.BadParameter("--resume: standard output cannot be resumed; give -o a file")
    if any(map(is_pipe, inputs)):
        raise typer.BadParameter(
            "--resume: standard input and pipes cannot be read again, so the run cannot be resumed; give files"
        )
    return out
