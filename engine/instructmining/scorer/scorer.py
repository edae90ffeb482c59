"""Composes the stages: tokenizing runs ahead in a thread, the device computes in another, rows are finished here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import NoneType, TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle, RoleName
from instructmining.bundle.demo import demo_folder
from instructmining.errors import DeviceError, InputError, InstructMiningError, RuleError
from instructmining.errors.arguments import check_call, check_type
from instructmining.indicators import CorpusIndicator
from instructmining.indicators.columns import part, predict, row_columns, rows_of
from instructmining.indicators.plan import Plan, indicator_names, plan
from instructmining.inference.batching import Batching
from instructmining.inference.calibration import CANDIDATES, calibrated
from instructmining.inference.devices import Device, check_device, choose_devices_for, runtime_version
from instructmining.inference.executor import Executor
from instructmining.inference.sessions import Acceleration
from instructmining.inference.streams import count, measure
from instructmining.inference.threads import ahead
from instructmining.knn.search import Neighbourhood, NeighbourSearch, pools_of, siblings_of
from instructmining.reading.examples import read_examples
from instructmining.reading.given import Examples, windows_given
from instructmining.reading.options import ReadOptions
from instructmining.rules import Rule
from instructmining.tokenizing.windows import Window, WindowBuilder, refusal
from instructmining.types import PREDICTION, Example, InputWindow, Position, Reject, ScoredRow, ScoredWindow
from instructmining.writing.journal import OTHERS, SPOOLED, WRITTEN, Journal
from instructmining.writing.spool import Spool, Vectors
from instructmining.writing.statistics import Statistics

_NEIGHBOURS = "neighbours"

OnReject: TypeAlias = Callable[[Reject], None]
OnProgress: TypeAlias = Callable[[Statistics], None]


@dataclass(frozen=True, slots=True)
class _Work:
    """What is computed of each row, and the tokenizers for it."""

    plan: Plan
    windows: WindowBuilder


class Scorer:
    """Scores examples with one bundle on one device; a context manager, safe to share between threads."""

    def __init__(
        self,
        bundle: Bundle,
        rule: Rule | None,
        work: _Work,
        *,
        executor: Executor,
        batching: Batching,
        neighbours: NeighbourSearch | None,
        others: _Work | None,
    ) -> None:
        """Use :meth:`open`, which reads the parts and chooses the devices."""
        self.bundle = bundle
        self.rule = rule
        self.devices = executor.devices
        self.batching = batching
        self.columns = (*(indicator.column for indicator in work.plan.indicators), *([PREDICTION] if rule else []))
        self._work = work
        self._closed = False
        self._executor = executor
        self._neighbours = neighbours
        self._others = others  # of the rows of another file that are the neighbours

    @classmethod
    def open(  # noqa: PLR0913 - each is an option that users know by its name
        cls,
        bundle: str | Path | Bundle | None = None,
        *,
        rule: str | Path | Rule | None = None,
        indicators: Sequence[str] | str | None = None,
        device: str = "auto",
        batches_at_once: int | None = None,
        batching: Batching | None = None,
        acceleration: Acceleration | None = None,
        knn: Neighbourhood | None = None,
        kept: Collection[str] = (),
    ) -> Self:
        """Open a bundle for scoring.

        Args:
            bundle: a folder, or one opened before; by default the demo bundle, if it is in the cache.
            rule: "paper-v1", "paper-v3", a JSON file or a rule. With neither rule nor indicators: the bundle's own.
            indicators: columns to compute, beside the rule's terms if there is a rule; a list, comma-separated text, or
                "all": every column that the bundle's roles give.
            device: "auto", "cpu", "cuda", "cuda:N" or "cuda:0,1"; auto takes CUDA only where a session runs there.
            batches_at_once: computed beside each other on a CPU; by default one a thread up to eight, the fastest for
                many rows. For a service that scores a few rows a call take 1: all threads work on one batch.
            batching: window and batch sizes; by default what is usual on the device, or see :meth:`calibrate`.
            acceleration: what is off by default on CUDA; an error on a CPU.
            knn: which neighbours a row has, how far they are and how they are searched; by default all rows of the run,
                exactly.
            kept: columns that the examples bring along from an earlier run, in :attr:`Example.scores`; they are not
                computed again, and the rule reads them there.

        Raises:
            BundleError: the bundle is damaged or lacks a role that is needed, or none is given and none is cached.
            RuleError: the rule cannot be read, an indicator is not known, or knn is of a wrong type.
            DeviceError: the device does not work here, or batching or acceleration is of a wrong type.
        """
        check_device(device, batches_at_once)
        check_type("batching", batching, (Batching, NoneType), wanted="a Batching or None", error=DeviceError)
        check_type("acceleration", acceleration, (Acceleration, NoneType), wanted="an Acceleration", error=DeviceError)
        check_type("knn", knn, (Neighbourhood, NoneType), wanted="a Neighbourhood or None", error=RuleError)
        check_type("kept", kept, (set, frozenset, list, tuple), wanted="names of columns", error=RuleError)
        chosen = rule if isinstance(rule, Rule) or rule is None else Rule.load(rule)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(demo_folder() if bundle is None else bundle)
        if chosen is None and indicators is None:
            if opened.default_rule is None:
                raise RuleError(
                    f"{opened.path}: has no default rule; give a rule or indicators (--rule paper-v1, --indicators all)"
                )
            chosen = Rule.load(opened.default_rule)
        if chosen is None and not indicators:
            raise RuleError("no indicator was named; give at least one, or a rule")
        around = knn or Neighbourhood()
        work = plan(opened, chosen, indicator_names(indicators or (), opened), around.text, kept)
        roles = [stream.role for stream in work.streams]
        devices = choose_devices_for(roles, device, batches_at_once)
        if acceleration not in {None, Acceleration()} and devices[0].kind == "cpu":
            raise DeviceError(
                "CUDA graphs, TensorRT or a limit of GPU memory were asked for, but the graphs run on a CPU"
            )
        half = bool(roles) and all(role.precision == "fp16" for role in roles)
        accelerated = replace(acceleration or Acceleration(), tensorrt_fp16=half)
        with ThreadPoolExecutor(1) as beside:  # tokenizers take half a second to load, graphs more
            loading = beside.submit(WindowBuilder, work, opened.roles[opened.length_tokenizer].tokenizer)
            executor = Executor({role.graph for role in roles}, devices, accelerated)
            windows = loading.result()
        usual = Batching.usual(devices[0].kind, [role.name for role in roles])
        corpus = [indicator for indicator in work.indicators if isinstance(indicator, CorpusIndicator)]
        neighbours = NeighbourSearch(corpus, around, devices[0]) if corpus else None
        others = None
        if corpus and around.against is not None:
            of_others = plan(opened, None, [corpus[0].column], around.text)
            others = _Work(of_others, WindowBuilder(of_others, opened.roles[opened.length_tokenizer].tokenizer))
        return cls(
            opened,
            chosen,
            _Work(work, windows),
            executor=executor,
            batching=batching or usual,
            neighbours=neighbours,
            others=others,
        )

    def __enter__(self) -> Self:
        """The scorer itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let the sessions and their memory go."""
        self.close()

    def close(self) -> None:
        """Let the sessions and their memory go; nothing is scored after it."""
        self._closed = True
        self._executor.close()

    def _check_open(self) -> None:
        if self._closed:
            raise InstructMiningError("the scorer is closed: score inside its with block")

    @property
    def device(self) -> Device:
        """The first device, which also searches the neighbours."""
        return self.devices[0]

    @property
    def runtime_version(self) -> str:
        """Version of onnxruntime."""
        return runtime_version()

    @property
    def searches_neighbours(self) -> bool:
        """Whether a column needs the neighbours of each row among all rows."""
        return self._neighbours is not None

    @property
    def embedding_size(self) -> int | None:
        """Numbers of an embedding that waits on disk until all rows are read; None where no column needs that."""
        if not self.searches_neighbours:
            return None
        graph = next(stream.role.graph for stream in self._work.plan.streams if "embedding" in stream.outputs)
        return self._executor.output_size(graph, "embedding")

    @property
    def roles(self) -> frozenset[RoleName]:
        """The roles of the bundle that the columns rest on."""
        return frozenset(role for stream in self._work.plan.streams for role in stream.roles)

    @property
    def precisions(self) -> frozenset[str]:
        """Of the graphs that run."""
        return frozenset(stream.role.precision for stream in self._work.plan.streams)

    @property
    def memory_splits(self) -> int:
        """Batches that had to be split because a device's memory did not hold them; with some, runs may differ."""
        return self._executor.splits

    @property
    def texts_retried(self) -> int:
        """Texts computed again, alone, because a model output was not a finite number."""
        return self._executor.retried

    @property
    def caution(self) -> str | None:
        """What must be said beside the predictions when the bundle's reward model is not the rule's; else None."""
        if self.rule is None or "reward" not in self.rule.terms or self.rule.reward_model is None:
            return None
        source = self.bundle.roles["reward"].source
        found = source.get("id")
        if found == self.rule.reward_model:
            return None
        if source.get("revision") == "local":
            return (
                f"rule {self.rule.id!r} was fitted with the reward model {self.rule.reward_model}, this bundle's comes "
                f"from a folder {found!r}: if it is not that model, the predicted losses are not the paper's, in scale "
                "or in order"
            )
        return (
            f"rule {self.rule.id!r} was fitted with the reward model {self.rule.reward_model}, this bundle has "
            f"{found}: the predicted losses are not the paper's, in scale or in order"
        )

    def score(
        self,
        examples: Examples,
        *,
        on_reject: OnReject | None = None,
        on_progress: OnProgress | None = None,
        statistics: Statistics | None = None,
    ) -> Generator[ScoredRow, None, None]:
        """Score examples, in input order.

        Reading and tokenizing, the models, and whoever takes the rows run beside each other. Without a corpus
        indicator rows come as their window is done. With one (``knn_6``) all examples are taken first, waiting on
        disk, and rows come after the corpus pass.

        Args:
            examples: examples, :func:`~instructmining.read_examples`, dicts that are rows as in a JSON file, or a table
                in memory; taken lazily, in another thread. The format of dicts and tables is detected as that of files.
            on_reject: called with each row that holds no example or cannot be scored, in the order of the input, when
                the rows of its window come; without it the first one raises.
            on_progress: called after each batch, in the thread that takes the rows.
            statistics: counts of the run, kept up to date.

        Raises:
            InputError: at once, where nothing can be scored by the type of what is given; while rows are taken, where
                an item is of a wrong type, or the rows are in no known format.
            RowError: while rows are taken, one cannot be scored and nobody takes rejects.
            InstructMiningError: the scorer was closed.
        """
        self._check_open()
        check_call("on_reject", on_reject, error=InputError)
        check_call("on_progress", on_progress, error=InputError)
        check_type("statistics", statistics, (Statistics, NoneType), wanted="a Statistics or None", error=InputError)
        windows = self.score_windows(
            windows_given(examples, self.batching.window_rows),
            strict=on_reject is None,
            on_progress=on_progress,
            statistics=statistics,
        )
        return self._rows_of(windows, on_reject, statistics)

    def _rows_of(
        self,
        windows: Generator[ScoredWindow, None, None],
        on_reject: OnReject | None,
        statistics: Statistics | None,
    ) -> Generator[ScoredRow, None, None]:
        with closing(windows):
            for window in windows:
                for reject in window.rejects:
                    assert on_reject is not None
                    if statistics is not None and reject.example is None:  # those with one are counted already
                        statistics.rows_rejected += 1
                    on_reject(reject)
                yield from self.rows(window)

    def score_windows(
        self,
        windows: Iterable[InputWindow],
        *,
        strict: bool = False,
        on_progress: OnProgress | None = None,
        statistics: Statistics | None = None,
        journal: Journal | None = None,
    ) -> Generator[ScoredWindow, None, None]:
        """Score windows of rows, good and bad ones, in input order; see :meth:`score`, which is made of it.

        Args:
            windows: taken lazily, in another thread; of :attr:`batching`'s size. With a journal, those behind the last
                position that it has.
            strict: whether the first row that cannot be scored raises.
            on_progress: called after each batch, in the thread that takes the windows.
            statistics: counts of the run, kept up to date.
            journal: of a run that can be resumed. The one who takes the windows commits what he did with them.

        Yields:
            Windows with all columns and with their rejects; :meth:`rows` makes rows of them.

        Raises:
            RowError: a row cannot be scored, and strict is asked for.
            ResumeError: the rows are not those that the journal speaks of.
            InstructMiningError: the scorer was closed.
        """
        self._check_open()
        counts = statistics if statistics is not None else Statistics()
        report = on_progress or (lambda _: None)
        measured = self._measured(windows, self._work, report, counts, strict=strict, journal=journal)
        with closing(measured):
            finished = (
                (window for window, _ in measured)
                if self._neighbours is None
                else self._with_corpus(measured, self._neighbours, report, counts, journal)
            )
            for window in finished:
                if self.rule is not None:
                    predict(window, self.rule)
                yield window

    def rows(self, window: ScoredWindow) -> Iterator[ScoredRow]:
        """The rows of a finished window, the prediction last, columns in the order of the indicators."""
        return rows_of(window, self.columns)

    def embeddings(self, examples: Examples) -> Generator[NDArray[np.float32], None, None]:
        """The embeddings of examples in their order, as ``knn_6`` has them; open with ``indicators=["knn_6"]``.

        Of a preference pair it is the chosen conversation's.

        Args:
            examples: taken lazily, in another thread.

        Yields:
            Unit vectors, float32 (rows, size), of a window of examples at a time.

        Raises:
            RuleError: no column of the scorer needs embeddings.
            RowError: an example cannot be embedded.
            InstructMiningError: the scorer was closed.
        """
        if self._closed:
            raise InstructMiningError("the scorer is closed: ask for embeddings inside its with block")
        if "embedding" not in self._work.plan.needs:
            raise RuleError("no column of this scorer needs embeddings; open it with indicators=['knn_6']")
        windows = map(_chosen, windows_given(examples, self.batching.window_rows))
        measured = self._measured(windows, self._work, lambda _: None, Statistics(), strict=True, journal=None)
        with closing(measured):
            for _, embedding in measured:
                if embedding is not None:
                    yield embedding

    def calibrate(self, examples: Examples) -> Batching:
        """Find the fastest budget of each role on these examples and use it from now on.

        Takes ten to twenty seconds a role on a CPU with a small model. Numbers do not depend on the budget beyond
        float rounding; which budget is found may differ from time to time, so keep the result and give it to
        :meth:`open` where runs must be alike.

        Args:
            examples: rows like those to come; the first window of them is used.
        """
        taken = next(windows_given(examples, self.batching.window_rows), InputWindow([]))
        window = self._work.windows.build(taken)
        candidates = CANDIDATES[self.device.kind]
        self.batching = calibrated(window, self._executor, self.batching, candidates=candidates)
        return self.batching

    def _measured(
        self,
        source: Iterable[InputWindow],
        work: _Work,
        report: OnProgress,
        counts: Statistics,
        *,
        strict: bool,
        journal: Journal | None,
    ) -> Generator[tuple[ScoredWindow, NDArray[np.float32] | None], None, None]:
        """Windows with the columns of the row indicators, and their embeddings."""
        with ExitStack() as stack:
            windows = stack.enter_context(ahead(_tokenized(source, work, counts, strict=strict), name="tokens"))
            if work.plan.streams:
                every = measure(
                    windows,
                    self._executor,
                    self.batching,
                    statistics=counts,
                    report=lambda: report(counts),
                    journal=journal,
                )
                stack.enter_context(closing(every))
            else:
                every = (count(window, counts) for window in windows)
            for measured in every:
                with counts.timed("indicators"):
                    window, embedding = row_columns(measured, work.plan.indicators)
                if strict and window.rejects:
                    raise refusal(window.rejects[0])
                counts.rows_scored += window.rows
                counts.rows_rejected += sum(reject.example is not None for reject in window.rejects)
                report(counts)
                yield window, embedding

    def _with_corpus(
        self,
        windows: Iterator[tuple[ScoredWindow, NDArray[np.float32] | None]],
        neighbours: NeighbourSearch,
        report: OnProgress,
        counts: Statistics,
        journal: Journal | None,
    ) -> Iterator[ScoredWindow]:
        """All windows wait on disk until the corpus columns are known."""
        marks = journal.marks if journal is not None else {}
        with ExitStack() as stack:
            others = self._embedded_others(stack, report, counts, journal)
            folder = journal.folder if journal is not None else None
            spool = stack.enter_context(Spool(folder, marks.get(SPOOLED, {}).get("spool")))

            def commit(end: Position | None) -> None:
                if journal is not None:
                    mark = {"spool": spool.mark(), "end": asdict(end) if end else None, "statistics": counts.as_json()}
                    journal.commit(SPOOLED, mark, spool.files)

            end: Position | None = None
            for window, embedding in windows:
                if not spool.count:
                    neighbours.settings.check_pool([of.row.fields if of.row else {} for of in window.examples])
                with counts.timed("spool"):
                    spool.append(window, embedding)
                    end = window.end
                    if journal is not None and journal.due:
                        commit(end)
            if end is not None:
                commit(end)
            kept = journal.folder / _NEIGHBOURS if journal is not None else None
            embeddings = spool.embeddings()
            examples = (example for _, window in spool.windows() for example in window.examples)
            pools = pools_of(examples, neighbours.settings)
            siblings = None
            if spool.pairs:
                siblings = siblings_of(example for _, window in spool.windows() for example in window.examples)
            columns = neighbours.columns(
                embeddings,
                counts,
                lambda: report(counts),
                pools=pools,
                siblings=siblings,
                against=others,
                kept=kept,
            )
            for begin, window in spool.windows(marks.get(WRITTEN, {}).get("windows", 0)):
                of_window = {name: part(column, begin, begin + len(window)) for name, column in columns.items()}
                window.columns.update(of_window)
                yield window

    def _embedded_others(
        self, stack: ExitStack, report: OnProgress, counts: Statistics, journal: Journal | None
    ) -> NDArray[np.float32] | None:
        """The embeddings of the rows of another file that are the neighbours, on disk; None where there is none."""
        settings = self._neighbours.settings if self._neighbours is not None else None
        if self._others is None or settings is None or settings.against is None:
            return None
        mark = journal.marks.get(OTHERS) if journal is not None else None
        folder = journal.folder if journal is not None else Path(stack.enter_context(TemporaryDirectory()))
        rows, size = (mark["rows"], mark["size"]) if mark else (0, 0)
        vectors = stack.enter_context(Vectors(folder / "others.f32", rows, size))
        reader = read_examples(
            settings.against,
            options=settings.against_options or ReadOptions(),
            fields=settings.against_fields,
            on_reject=lambda _: None,
        )
        if mark is not None and mark["end"] is not None:
            reader.begin_after(Position(**mark["end"]))

        def commit(end: Position | None, *, done: bool) -> None:
            said = {**vectors.mark(), "end": asdict(end) if end else None, "done": done, "rejected": reader.rejected}
            if journal is not None:
                journal.commit(OTHERS, said, [vectors.file])

        if mark is None or not mark["done"]:
            windows, ignored = reader.windows(self.batching.window_rows), Statistics()
            measured = self._measured(
                windows, self._others, lambda _: report(counts), ignored, strict=False, journal=journal
            )
            end: Position | None = None
            for window, embedding in stack.enter_context(closing(measured)):
                if embedding is not None:
                    vectors.append(embedding)
                end = window.end
                if journal is not None and journal.due:
                    commit(end, done=False)
            commit(end, done=True)
        counts.others = vectors.rows
        return vectors.mapped()


def _chosen(window: InputWindow) -> InputWindow:
    """Of preference pairs the chosen conversations alone."""
    return replace(
        window, items=[replace(item, rejected=None) if isinstance(item, Example) else item for item in window.items]
    )


def _tokenized(source: Iterable[InputWindow], work: _Work, counts: Statistics, *, strict: bool) -> Iterator[Window]:
    windows = iter(source)
    while True:
        with counts.timed("read"):
            taken = next(windows, None)
        if taken is None:
            return
        counts.rows_taken += len(taken.items)
        with counts.timed("tokenize"):
            window = work.windows.build(taken, strict=strict)
        yield window
