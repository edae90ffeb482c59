"""Scores a Ray Dataset: its rows become files, workers score these in shards, and the parts are a dataset again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING

from instructmining.bundle import Bundle
from instructmining.errors import InputError, OutputError
from instructmining.errors.arguments import check_type
from instructmining.indicators.plan import indicator_names
from instructmining.indicators.plan import plan as plan_columns
from instructmining.knn.options import KnnOptions
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining.reading.sources import expand
from instructmining.rules import Rule
from instructmining_scale.dataset_rows import DatasetError, write_rows
from instructmining_scale.merging import merge
from instructmining_scale.parts import finished_parts, plan_of
from instructmining_scale.plan import MERGED
from instructmining_scale.ray_pool import Pool, PoolOptions, RayError
from instructmining_scale.runs.ray_scoring import score_shards
from instructmining_scale.runs.scoring import ScoreRequest

if TYPE_CHECKING:
    from ray.data import Dataset


@dataclass(frozen=True, slots=True)
class DatasetOptions:
    """How a dataset is scored, beside its columns: the further options of ``score``."""

    fields: FieldOptions = field(default_factory=FieldOptions)  # which columns are the prompt and the response
    reading: ReadOptions = field(default_factory=ReadOptions)
    prefix: str = ""  # of the columns that are added
    max_batch_tokens: int | None = None
    max_length: int | None = None  # tokens of a text
    knn: KnnOptions = field(default_factory=KnnOptions)
    recompute: bool = False  # columns that the dataset has already
    strict: bool = False  # a bad row ends the run


@dataclass(frozen=True, slots=True)
class ScoredDataset:
    """A dataset that was scored, in files."""

    dataset: Dataset  # the scored rows, in the order of the input; reads the files when it is used
    folder: Path  # with the parts, their rejects and run files, and the plan
    files: Sequence[Path]  # of the scored rows, in order
    rows: int
    rejected: int  # rows that could not be scored; FILE.rejects.jsonl has each with its reason


def score_dataset(  # noqa: PLR0913 - each is an option that users know by its name
    dataset: Dataset,
    out: str | Path,
    *,
    bundle: str | Path,
    rule: str | Path | None = None,
    indicators: Sequence[str] | str | None = None,
    device: str = "auto",
    shards: int | None = None,
    workers: int | None = None,
    options: DatasetOptions | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> ScoredDataset:
    """Score the rows of a Ray Dataset on the cluster that this process is connected to.

    First the rows are written to OUT/rows as Parquet files, in order, streamed: the dataset's tasks have ended before
    the first worker starts. Then these files are scored in shards as ``score OUT/rows --ray`` does, with the same
    bytes. A lost worker, node or driver costs what it was at: call this again to go on. Whether something is done is
    read from the files: a second call with the same OUT does not read the dataset again, and scores what is missing.

    Args:
        dataset: its columns stay in the scored rows; rows that cannot be scored are rejects.
        out: a folder that all nodes see under this path; for another dataset another one.
        bundle: a folder that all nodes see.
        rule: "paper-v1", "paper-v3" or a JSON file. Without rule and indicators: the bundle's default rule.
        indicators: columns to compute in addition to the rule's terms: a list, or text as "perplexity,mtld" or "all".
        device: of each worker, "auto", "cpu" or "cuda".
        shards: into how many the rows are cut; by default four for each worker. A lost worker costs its shard.
        workers: how many; by default one for each GPU, or for each node where there is none.
        options: further options of scoring.
        say: called with lines of progress.

    Returns:
        The scored rows as a dataset, and their files. Columns that need the neighbours among all rows are finished in
        this process, in OUT/scored.jsonl.

    Raises:
        RayError: no cluster is connected, it has no room for the workers, or loses them again and again.
        DatasetError: the dataset cannot be read, has no rows, or columns that rows of JSON cannot hold.
        PlanError: the folder has the parts of a run with other rows or settings.
        InstructMiningError: the bundle, the rule or the folder cannot be used.

    Example:
        >>> import ray
        >>> from instructmining_scale import score_dataset
        >>> rows = ray.data.read_parquet("rows/")  # doctest: +SKIP
        >>> scored = score_dataset(rows, "/shared/scored", bundle="/shared/bundle")  # doctest: +SKIP
        >>> scored.dataset.filter(expr="predicted_log_loss < 1.5").count()  # doctest: +SKIP
    """
    options = options or DatasetOptions()
    check_type("options", options, DatasetOptions, wanted="a DatasetOptions", error=InputError)
    check_type("rule", rule, (str, Path, NoneType), wanted="a rule's name or the path of its file", error=InputError)
    folder = _folder(out)
    _check_ray(dataset)
    pool = Pool(PoolOptions("connected", workers, None if device == "auto" else device.startswith("cuda")))
    columns = _check_columns(bundle, rule, indicators, options)
    written = write_rows(dataset, folder)
    say(f"{written.rows:,} rows in {len(written.files):,} files")
    request = _request(folder, written.paths, options, bundle=bundle, rule=rule, indicators=columns, device=device)
    score_shards(request, pool, shards, say=say)
    return scored_dataset(folder, device=device)


def scored_dataset(folder: str | Path, *, device: str = "auto") -> ScoredDataset:
    """Return the rows that were scored into a folder, by :func:`score_dataset` or by shards of ``score``.

    Args:
        folder: that holds the parts.
        device: of the search for neighbours, where rows wait for it.

    Raises:
        PlanError: parts are missing or damaged.
        RayError: no cluster is connected.
    """
    import ray  # noqa: PLC0415 - an extra

    folder = Path(folder)
    plan = plan_of(str(folder))
    parts = finished_parts(str(folder), plan)
    for part in parts:
        part.check(sizes_only=True)
    rows, rejected = (sum(part.count(name) for part in parts) for name in ("rows_out", "rows_rejected"))
    if plan.waits:
        files = [folder / MERGED]
        if not files[0].exists():
            merge(str(folder), str(files[0]), device=device)
    else:
        files = [Path(part.rows) for part in parts if part.count("rows_out")]
    read = ray.data.read_parquet if plan.suffix == ".parquet" and not plan.waits else _read_lines
    dataset = read([str(path) for path in files]) if rows else ray.data.from_items([])
    dataset.context.execution_options.preserve_order = True
    return ScoredDataset(dataset, folder, files, rows, rejected)


def _read_lines(paths: Sequence[str]) -> Dataset:
    import ray  # noqa: PLC0415 - an extra

    return ray.data.read_json(paths, file_extensions=None)


def _folder(out: str | Path) -> Path:
    check_type("out", out, (str, Path), wanted="the path of a folder", error=OutputError)
    if "://" in str(out):
        raise OutputError(f"{out}: wanted a folder that all nodes see, not an address")
    return Path(out).absolute()


def _check_ray(dataset: Dataset) -> None:
    """Check that there is a cluster and a dataset on it.

    Raises:
        RayError: Ray is not installed or not connected.
        DatasetError: it is no dataset.
    """
    try:
        import ray  # noqa: PLC0415 - an extra
        import ray.data  # noqa: PLC0415
    except ImportError as error:
        raise RayError(f"a Ray Dataset needs Ray ({error}): pip install 'instructmining[ray]'") from error
    if not isinstance(dataset, ray.data.Dataset):
        raise DatasetError(f"the dataset is a {type(dataset).__name__}; wanted a ray.data.Dataset")
    if not ray.is_initialized():
        raise RayError("this process is not connected to a Ray cluster; call ray.init() first")


def _check_columns(
    bundle: str | Path, rule: str | Path | None, indicators: Sequence[str] | str | None, options: DatasetOptions
) -> str | None:
    """Check that the bundle can compute the columns; returns the indicators as text."""
    opened = Bundle.open(bundle)
    names = indicator_names(indicators or (), opened)
    wanted = rule if rule is not None or names else opened.default_rule
    plan_columns(opened, None if wanted is None else Rule.load(wanted), names, options.knn.text)
    return ",".join(names) or None


def _request(
    folder: Path,
    paths: Sequence[str],
    options: DatasetOptions,
    *,
    bundle: str | Path,
    rule: str | Path | None,
    indicators: str | None,
    device: str,
) -> ScoreRequest:
    against = options.knn.against
    return ScoreRequest(
        paths,
        str(folder),
        options.fields,
        options.reading,
        bundle=str(bundle),
        rule=None if rule is None else str(rule),
        indicators=indicators,
        device=device,
        max_batch_tokens=options.max_batch_tokens,
        knn=options.knn,
        neighbours=[] if against is None else expand([against]).paths,
        prefix=options.prefix,
        max_length=options.max_length,
        recompute=options.recompute,
        strict=options.strict,
    )
