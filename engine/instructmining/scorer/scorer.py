"""Composes the stages: tokenizing runs ahead in a thread, the device computes in another, rows are finished here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import NoneType, TracebackType
from typing import Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle, RoleName
from instructmining.bundle.demo import demo_folder
from instructmining.errors import DeviceError, InputError, InstructMiningError, RuleError
from instructmining.errors.arguments import check_call, check_type
from instructmining.indicators import CorpusIndicator
from instructmining.indicators.columns import predict, rows_of
from instructmining.indicators.plan import indicator_names, plan
from instructmining.inference.batching import Batching
from instructmining.inference.calibration import CANDIDATES, calibrated
from instructmining.inference.devices import Device, check_device, choose_devices_for, runtime_version
from instructmining.inference.executor import Executor
from instructmining.inference.sessions import Acceleration
from instructmining.knn.options import KnnOptions
from instructmining.knn.search import NeighbourSearch
from instructmining.reading.in_memory import Examples, windows_given
from instructmining.rules import Rule
from instructmining.scorer.corpus_pass import CorpusPass
from instructmining.scorer.row_pass import OnProgress, RowPass
from instructmining.tokenizing.windows import WindowBuilder
from instructmining.types import PREDICTION, Example, InputWindow, Reject, ScoredRow, ScoredWindow
from instructmining.writing.journal import Journal
from instructmining.writing.statistics import Statistics

OnReject: TypeAlias = Callable[[Reject], None]


class Scorer:
    """Scores examples with one bundle on one device; a context manager, safe to share between threads."""

    def __init__(
        self,
        bundle: Bundle,
        rule: Rule | None,
        row_pass: RowPass,
        corpus_pass: CorpusPass | None,
        batching: Batching,
    ) -> None:
        """Use :meth:`open`, which reads the parts and chooses the devices."""
        self.bundle = bundle
        self.rule = rule
        self.devices = row_pass.executor.devices
        self.batching = batching
        self.columns = (*(indicator.column for indicator in row_pass.plan.indicators), *([PREDICTION] if rule else []))
        self._closed = False
        self._row_pass = row_pass
        self._corpus_pass = corpus_pass

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
        knn: KnnOptions | None = None,
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
        check_type("knn", knn, (KnnOptions, NoneType), wanted="a KnnOptions or None", error=RuleError)
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
        around = knn or KnnOptions()
        work = plan(opened, chosen, indicator_names(indicators or (), opened), around.text, kept)
        roles = [stream.role for stream in work.streams]
        devices = choose_devices_for(roles, device, batches_at_once)
        if acceleration not in {None, Acceleration()} and devices[0].kind == "cpu":
            raise DeviceError("CUDA graphs or a limit of GPU memory were asked for, but the graphs run on a CPU")
        with ThreadPoolExecutor(1) as beside:  # tokenizers take half a second to load, graphs more
            loading = beside.submit(WindowBuilder, work, opened.roles[opened.length_tokenizer].tokenizer)
            executor = Executor({role.graph for role in roles}, devices, acceleration or Acceleration())
            windows = loading.result()
        usual = Batching.usual(devices[0].kind, [role.name for role in roles])
        corpus = [indicator for indicator in work.indicators if isinstance(indicator, CorpusIndicator)]
        corpus_pass = None
        if corpus:
            others = None
            if around.against is not None:
                of_others = plan(opened, None, [corpus[0].column], around.text)
                builder = WindowBuilder(of_others, opened.roles[opened.length_tokenizer].tokenizer)
                others = RowPass(of_others, builder, executor)
            corpus_pass = CorpusPass(NeighbourSearch(corpus, around, devices[0]), others)
        return cls(opened, chosen, RowPass(work, windows, executor), corpus_pass, batching or usual)

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
        self._row_pass.executor.close()

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
        return self._corpus_pass is not None

    @property
    def embedding_size(self) -> int | None:
        """Numbers of an embedding that waits on disk until all rows are read; None where no column needs that."""
        if not self.searches_neighbours:
            return None
        graph = next(stream.role.graph for stream in self._row_pass.plan.streams if "embedding" in stream.outputs)
        return self._row_pass.executor.output_size(graph, "embedding")

    @property
    def roles(self) -> frozenset[RoleName]:
        """The roles of the bundle that the columns rest on."""
        return frozenset(role for stream in self._row_pass.plan.streams for role in stream.roles)

    @property
    def precisions(self) -> frozenset[str]:
        """Of the graphs that run."""
        return frozenset(stream.role.precision for stream in self._row_pass.plan.streams)

    @property
    def memory_splits(self) -> int:
        """Batches that had to be split because a device's memory did not hold them; with some, runs may differ."""
        return self._row_pass.executor.splits

    @property
    def texts_retried(self) -> int:
        """Texts computed again, alone, because a model output was not a finite number."""
        return self._row_pass.executor.retried

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
        measured = self._row_pass.run(windows, self.batching, counts, report, strict=strict, journal=journal)
        with closing(measured):
            finished = (
                (window for window, _ in measured)
                if self._corpus_pass is None
                else self._corpus_pass.run(measured, self.batching, counts, report, journal)
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
        if "embedding" not in self._row_pass.plan.needs:
            raise RuleError("no column of this scorer needs embeddings; open it with indicators=['knn_6']")
        windows = map(_chosen, windows_given(examples, self.batching.window_rows))
        measured = self._row_pass.run(windows, self.batching, Statistics(), lambda _: None, strict=True, journal=None)
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
        window = self._row_pass.windows.build(taken)
        candidates = CANDIDATES[self.device.kind]
        self.batching = calibrated(window, self._row_pass.executor, self.batching, candidates=candidates)
        return self.batching


def _chosen(window: InputWindow) -> InputWindow:
    """Of preference pairs the chosen conversations alone."""
    return replace(
        window, items=[replace(item, rejected=None) if isinstance(item, Example) else item for item in window.items]
    )
