"""One scoring run, from files to files: what ``score`` does once its options are checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace

from instructmining.bundle import Bundle
from instructmining.inference.sessions import Acceleration
from instructmining.knn.options import KnnOptions
from instructmining.reading.digests import InputPart
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining.scorer.scorer import Scorer
from instructmining.types import SCORE_COLUMNS
from instructmining.writing.destinations import Destination
from instructmining.writing.journal import SPOOLED
from instructmining.writing.run_writer import RunWriter, added_names
from instructmining_scale.runs.calibrations import choose_budgets
from instructmining_scale.runs.host import Host, View
from instructmining_scale.runs.kept_columns import KeptColumns, neighbours_as_json
from instructmining_scale.runs.resuming import check_identity, check_inputs, identity_of, kept_budgets, restore
from instructmining_scale.runs.run_file import run_file
from instructmining_scale.runs.scoring_run import Run
from instructmining_scale.runs.sharding import Sharding, is_damaged

_QUIET = Host()


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """What to score, how, and where to write it."""

    inputs: Sequence[str]  # files
    out: str  # a file or "-"; with a shard a folder
    fields: FieldOptions
    reading: ReadOptions
    skipped: Sequence[str] = ()  # lines about entries of folders that are not read
    shard: tuple[int, int] | None = None  # its number, from 1, and how many there are
    part_suffix: str = ".jsonl"
    bundle: str | None = None
    rule: str | None = None
    indicators: str | None = None
    device: str = "auto"
    max_batch_tokens: int | None = None
    batches_at_once: int | None = None
    acceleration: Acceleration = field(default_factory=Acceleration)
    knn: KnnOptions = field(default_factory=KnnOptions)
    neighbours: Sequence[str] = ()  # files whose rows are the neighbours
    prefix: str = ""
    limit: int | None = None
    max_length: int | None = None
    recompute: bool = False
    strict: bool = False
    resume: bool = False
    overwrite: bool = False

    @property
    def asked(self) -> dict[str, object]:
        """The settings that the run file has beside those of :attr:`settings`."""
        memory = self.acceleration.memory_bytes
        return {
            "device": self.device,
            "batches_at_once": self.batches_at_once,
            "cuda_graphs": self.acceleration.cuda_graphs,
            "gpu_memory_gib": None if memory is None else memory / 2**30,
            "skipped_files": list(self.skipped),
            **({} if self.shard is None else {"shard": f"{self.shard[0]}/{self.shard[1]}"}),
        }

    @property
    def settings(self) -> dict[str, object]:
        """The settings that rows depend on, and the run file has."""
        return {
            "format": self.fields.format,
            "map": dict(self.fields.map),
            "ignore": sorted(self.fields.ignore),
            "strict_fields": self.fields.unread == "error",
            "recompute": self.recompute,
            "prefix": self.prefix,
            "limit": self.limit,
            "strict": self.strict,
            **asdict(self.reading),
            "max_length": self.max_length,
        }


class OpenScorers:
    """Scorers that stay open from one shard to the next."""

    def __init__(self) -> None:
        """Open nothing yet."""
        self._open: dict[tuple[object, ...], Scorer] = {}

    def get(self, key: tuple[object, ...], opened: Callable[[], Scorer]) -> Scorer:
        """Return the scorer that was opened with these settings, or open it."""
        if key not in self._open:
            self._open[key] = opened()
        return self._open[key]


def score_files(request: ScoreRequest, *, scorers: OpenScorers | None = None, host: Host = _QUIET) -> Run:
    """Score the rows of files, or one shard of them, and write them; a run that had finished does nothing.

    Args:
        request: what to score.
        scorers: where the scorer stays open; by default it is closed at the end.
        host: the program that starts the run.

    Raises:
        MissingRoleError: the bundle has no model for a column.
        InstructMiningError: a bundle, a rule, an input or OUT cannot be used, or another run writes there.
    """
    sharding = None
    if request.shard is not None:
        sharding = Sharding(request.out, request.shard, request.part_suffix, request.inputs, request.reading)
    sources = [InputPart.of(path) for path in request.inputs] if sharding is None else sharding.parts()
    neighbours = [InputPart.of(path) for path in request.neighbours]
    with ExitStack() as stack:
        place = Destination.of(request.out)
        request = replace(request, out=place.out)
        writer = _writer(request, place, stack) if sharding is None else None
        reader = read_examples(
            request.inputs,
            fields=request.fields,
            limit=request.limit,
            options=request.reading,
            columns=added_names(SCORE_COLUMNS, request.prefix),  # select takes all of them for added columns
            prefix=request.prefix,
        )
        if sharding is not None:
            sharding.restrict(reader)
        kept = KeptColumns(reader, request.inputs, request.knn, recompute=request.recompute, limit=request.limit)
        scorer, rule, indicators = _opened(request, kept, stack, scorers, host)
        if sharding is not None:  # only the columns tell what the shard's file is
            place = Destination.of(sharding.out(scorer))
            request = replace(request, out=place.out, resume=not request.overwrite)
            if request.resume and is_damaged(request.out):
                host.warn(f"caution: {request.out} is damaged; it is scored again")
                request = replace(request, resume=False, overwrite=True)
        writer = writer or _writer(request, place, stack, spools=sharding is not None and sharding.spools(scorer))
        finished = place.finished() if request.resume else None
        earlier = writer.identity if finished is None else finished["identity"]
        planned = sharding.identity if sharding is not None else None
        origin = kept_budgets(earlier or planned, scorer, given=request.max_batch_tokens) or choose_budgets(
            scorer,
            request.inputs,
            request.fields,
            given=request.max_batch_tokens,
            limit=request.limit,
            options=request.reading,
            say=host.say,
        )
        if request.knn != KnnOptions() and not scorer.searches_neighbours:
            host.warn("caution: the neighbour options have no effect: no knn column is computed")
        asked = {"rule": rule, "indicators": indicators, **request.asked, "budget_from": origin}
        settings = request.settings | {"kept": sorted(kept.names)}
        run = Run(
            scorer,
            request.inputs,
            request.out,
            asked | settings,
            place.here if place.is_stored else "",
            request.knn,
            reader=reader,
            options=request.reading,
            shard=request.shard,
            spools=writer.spools,
        )
        settings |= {"knn": neighbours_as_json(request.knn), "knn_against": [part.digest() for part in neighbours]}
        identity = identity_of(scorer, sources, settings, origin)
        if sharding is not None:
            identity = sharding.settled(scorer, identity)
        if earlier is not None:
            check_identity(earlier, identity, run.out)
        if writer.finished or finished is not None:
            host.say(f"{run.out}: the run is already finished")
            run.was_finished = True
            if place.waiting:
                _deliver(place, host)
                host.say(f"its files are in the store now: {run.out}")
        else:
            read = [*sources, *neighbours]
            _carry_out(run, reader, writer, place, identity, read, strict=request.strict, host=host)
    return run


def _opened(
    request: ScoreRequest, kept: KeptColumns, stack: ExitStack, scorers: OpenScorers | None, host: Host
) -> tuple[Scorer, str | None, str | None]:
    """Open the scorer; return it, the rule and the indicators that it was opened with."""
    bundle = Bundle.open(request.bundle or host.default_bundle()).limited(request.max_length)
    indicators, rule = kept.asked(request.indicators, request.rule, bundle.default_rule)

    def opened() -> Scorer:
        return Scorer.open(
            bundle,
            rule=rule,
            indicators=indicators,
            device=request.device,
            batches_at_once=request.batches_at_once,
            acceleration=request.acceleration,
            knn=request.knn,
            kept=kept.names,
        )

    key = (rule, indicators, kept.names)
    scorer = stack.enter_context(opened()) if scorers is None else scorers.get(key, opened)
    kept.say(scorer, say=host.say, warn=host.warn)
    return scorer, rule, indicators


def _writer(request: ScoreRequest, place: Destination, stack: ExitStack, *, spools: bool = False) -> RunWriter:
    reads = [*request.neighbours, request.bundle, request.rule]
    stack.enter_context(
        place.begun(overwrite=request.overwrite, resume=request.resume, reads=[*request.inputs, *reads])
    )
    return stack.enter_context(
        RunWriter(
            place.here,
            prefix=request.prefix,
            overwrite=request.overwrite,
            resume=request.resume,
            inputs=request.inputs,
            reads=reads,
            spools=spools,
        )
    )


def _carry_out(
    run: Run,
    reader: ExampleReader,
    writer: RunWriter,
    place: Destination,
    identity: Mapping[str, object],
    sources: Sequence[InputPart],
    *,
    strict: bool,
    host: Host,
) -> None:
    """Start or resume the run, and put its files in place.

    Raises:
        ResumeError: the interrupted run is another one.
        InputError: an input changed during the run.
        InstructMiningError: rows cannot be read, scored or written.
    """
    if writer.journal is not None:
        restore(writer.journal, run, reader)
    writer.begin(identity)
    view = host.view(run)
    how = "--resume continues the run" if run.shard is None else "start the shard again to continue it"
    kept = f"finished work is kept in {run.here or run.out}.partial; {how}"
    with host.noting(lambda: kept if writer.resumable else None):
        with view.showing():
            view.say_room()
            if writer.spools:
                _spool(run, view, reader, writer, strict=strict)
            else:
                _score(run, view, reader, writer, strict=strict)
        check_inputs(identity, sources)
        run.check_counts()
        spooled = {"spool": writer.journal.marks[SPOOLED]["spool"]} if writer.spools and writer.journal else {}
        writer.finish(
            run_file(run) | {"identity": identity} | spooled, with_digests=run.shard is not None or bool(run.here)
        )
        run.keep_speed()
    _deliver(place, host)
    view.say_result()
    if writer.spools:
        host.say("its rows wait for the neighbours among the rows of all shards; merge finishes them")


def _deliver(place: Destination, host: Host) -> None:
    """Bring the finished files to where they belong.

    Raises:
        OutputError: a store refuses them.
    """
    with host.noting(lambda: place.waiting, on_error=False):  # an error says it itself
        place.deliver()


def _score(run: Run, view: View, reader: ExampleReader, writer: RunWriter, *, strict: bool) -> None:
    """Score the remaining rows and write them, one window at a time."""
    scorer, statistics = run.scorer, run.statistics
    windows = scorer.score_windows(
        reader.windows(scorer.batching.window_rows),
        strict=strict,
        on_progress=view.progress,
        statistics=statistics,
        journal=writer.journal,
    )
    with closing(windows):
        for window in windows:
            with statistics.timed("write"):
                rows = list(scorer.rows(window))
                writer.write(rows, window.rejects)
            run.count(rows, window)
            if writer.journal is not None and writer.journal.due:
                with statistics.timed("commit"):
                    writer.commit(run.mark(window.end))


def _spool(run: Run, view: View, reader: ExampleReader, writer: RunWriter, *, strict: bool) -> None:
    """Score the remaining rows but for what depends on the rows of all shards."""
    scorer, statistics = run.scorer, run.statistics
    assert writer.journal is not None
    windows = scorer.spool_windows(
        reader.windows(scorer.batching.window_rows),
        writer.journal,
        strict=strict,
        on_progress=view.progress,
        statistics=statistics,
    )
    with closing(windows):
        for window in windows:
            run.count_spooled(window)
