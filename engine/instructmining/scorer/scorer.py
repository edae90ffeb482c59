"""Composes the stages: a thread tokenizes ahead, another runs the models, and rows are finished in the caller's."""

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
from instructmining.indicators.plan import BY_ROLE, indicator_names, plan, role_names
from instructmining.inference.batching import Batching
from instructmining.inference.calibration import CANDIDATES, calibrated
from instructmining.inference.devices import Device, check_device, choose_devices_for, runtime_version
from instructmining.inference.executor import Executor
from instructmining.inference.placement import Placement
from instructmining.inference.sessions import Acceleration
from instructmining.knn.options import KnnOptions
from instructmining.knn.search import NeighbourSearch
from instructmining.reading.in_memory import Examples, windows_given
from instructmining.rules import Rule
from instructmining.scorer.corpus_pass import CorpusPass
from instructmining.scorer.requests import RowRequests
from instructmining.scorer.row_pass import OnProgress, RowPass
from instructmining.tokenizing.windows import WindowBuilder
from instructmining.types import PREDICTION, Example, InputWindow, Reject, ScoredRow, ScoredWindow
from instructmining.writing.journal import SPOOLED, Journal
from instructmining.writing.spool import Spool
from instructmining.writing.statistics import Statistics

OnReject: TypeAlias = Callable[[Reject], None]


class Scorer:
    """Scores examples with one bundle on one device; a context manager, safe to share between threads."""

    def __init__(
        self,
        bundle: Bundle,
        rule: Rule | None,
        opened: RowPass,
        corpus_pass: CorpusPass | None,
        batching: Batching,
    ) -> None:
        """Use :meth:`open`, which reads the parts and chooses the devices."""
        self.bundle = bundle
        self.rule = rule
        self.devices = opened.executor.devices
        self.batching = batching
        computed = [indicator.column for indicator in opened.plan.indicators]
        self.columns = (*computed, *([PREDICTION] if rule else []))
        self._closed = False
        self._opened = opened  # with roles that no column needs
        self._row_pass = opened.only(computed)
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
        roles: Sequence[RoleName] | str = (),
    ) -> Self:
        """Open a bundle for scoring.

        Args:
            bundle: a folder, or an open bundle; by default the demo bundle, if it is in the cache.
            rule: "paper-v1", "paper-v3", a JSON file or a rule. Without rule and indicators: the bundle's default rule.
            indicators: columns to compute in addition to the rule's terms; a list, comma-separated text, or "all" for
                every column that the bundle's roles allow.
            device: "auto", "cpu", "cuda", "cuda:N" or "cuda:0,1"; "auto" uses CUDA only where a session runs there.
            batches_at_once: batches computed in parallel on a CPU; by default one per thread up to eight, the fastest
                for many rows. Use 1 for a service that scores a few rows per call: all threads then work on one batch.
            batching: window and batch sizes; by default the device's usual ones, or see :meth:`calibrate`.
            acceleration: CUDA options that are off by default; an error on a CPU.
            knn: which neighbours a row has, the metric, and how they are searched; by default all rows of the run,
                exactly.
            kept: columns that the examples have from an earlier run, in :attr:`Example.scores`; they are not computed
                again, and the rule reads them there.
            roles: further models to open, beside those that the columns need, such as "embedding" for
                :meth:`embeddings`. Without rule and indicators no column is computed then.

        Raises:
            BundleError: the bundle is damaged or lacks a role, or none is given and none is cached.
            RuleError: the rule cannot be read, an indicator or a role is not known, or ``knn`` has the wrong type.
            DeviceError: the device does not work here, or ``batching`` or ``acceleration`` has the wrong type.
        """
        check_device(device, batches_at_once)
        check_type("batching", batching, (Batching, NoneType), wanted="a Batching or None", error=DeviceError)
        check_type("acceleration", acceleration, (Acceleration, NoneType), wanted="an Acceleration", error=DeviceError)
        check_type("knn", knn, (KnnOptions, NoneType), wanted="a KnnOptions or None", error=RuleError)
        check_type("kept", kept, (set, frozenset, list, tuple), wanted="names of columns", error=RuleError)
        chosen = rule if isinstance(rule, Rule) or rule is None else Rule.load(rule)
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(demo_folder() if bundle is None else bundle)
        further = role_names(roles)
        if chosen is None and indicators is None and not further:
            if opened.default_rule is None:
                raise RuleError(
                    f"{opened.path}: has no default rule; give a rule or indicators (--rule paper-v1, --indicators all)"
                )
            chosen = Rule.load(opened.default_rule)
        if chosen is None and not indicators and not further:
            raise RuleError("no indicator was named; give at least one, or a rule")
        around = knn or KnnOptions()
        work = plan(opened, chosen, indicator_names(indicators or (), opened), around.text, kept, further)
        models = [stream.role for stream in work.streams]
        devices = choose_devices_for(models, device, batches_at_once)
        if acceleration not in {None, Acceleration()} and devices[0].kind == "cpu":
            raise DeviceError(
                "CUDA graphs or a limit of GPU memory were asked for, but the graphs run on a CPU; leave them out, or "
                "give --device cuda"
            )
        with ThreadPoolExecutor(1) as pool:  # tokenizers take half a second to load, graphs more
            loading = pool.submit(WindowBuilder, work, opened.roles[opened.length_tokenizer].tokenizer)
            executor = Executor(
                {role.graph for role in models},
                devices,
                acceleration or Acceleration(),
                cuda_graphs={role.graph: role.graph_on("cuda") for role in models},
            )
            windows = loading.result()
        usual = Batching.usual(devices[0].kind, [role.name for role in models])
        row_pass = RowPass(work, windows, executor)
        corpus = [indicator for indicator in work.indicators if isinstance(indicator, CorpusIndicator)]
        corpus_pass = None
        if corpus:
            others = None
            if around.against is not None:
                others = row_pass.only([corpus[0].column])
            corpus_pass = CorpusPass(NeighbourSearch(corpus, around, devices[0]), others)
        return cls(opened, chosen, row_pass, corpus_pass, batching or usual)

    def __enter__(self) -> Self:
        """Return the scorer."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the scorer."""
        self.close()

    def close(self) -> None:
        """Free the sessions and their memory; nothing can be scored after this."""
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
    def knn(self) -> KnnOptions | None:
        """How neighbours are searched; None where no column needs them."""
        return None if self._corpus_pass is None else self._corpus_pass.neighbours.settings

    @property
    def embedding_size(self) -> int | None:
        """Size of the embeddings; None where the embedding model is not open."""
        graphs = (stream.role.graph for stream in self._opened.plan.streams if "embedding" in stream.outputs)
        graph = next(graphs, None)
        return None if graph is None else self._opened.executor.output_size(graph, "embedding")

    @property
    def roles(self) -> frozenset[RoleName]:
        """The roles of the bundle that are open."""
        return frozenset(role for stream in self._opened.plan.streams for role in stream.roles)

    @property
    def precisions(self) -> frozenset[str]:
        """Precisions of the graphs that run."""
        return frozenset(stream.role.precision for stream in self._opened.plan.streams)

    @property
    def placements(self) -> dict[str, Placement]:
        """Where the nodes of each graph run on a GPU, by its roles joined with "+"; empty on a CPU."""
        placed = self._row_pass.executor.placements()
        streams = self._opened.plan.streams
        return {"+".join(each.roles): placed[each.role.graph] for each in streams if each.role.graph in placed}

    @property
    def memory_splits(self) -> int:
        """Batches that were split because a device ran out of memory; if any, runs may differ."""
        return self._row_pass.executor.splits

    @property
    def texts_retried(self) -> int:
        """Texts computed again, alone, because a model output was not finite."""
        return self._row_pass.executor.retried

    @property
    def caution(self) -> str | None:
        """A warning about the predictions where the bundle's reward model is not the rule's; else None."""
        if self.rule is None or "reward" not in self.rule.terms or self.rule.reward_model is None:
            return None
        source = self.bundle.roles["reward"].source
        found = source.get("id")
        if found == self.rule.reward_model:
            return None
        if source.get("revision") == "local":
            return (
                f"rule {self.rule.id!r} was fitted with the reward model {self.rule.reward_model}, this bundle's comes "
                f"from a folder {found!r}: if it is not that model, the predicted losses are not the rule's, in scale "
                "or in order"
            )
        return (
            f"rule {self.rule.id!r} was fitted with the reward model {self.rule.reward_model}, this bundle has "
            f"{found}: the predicted losses are not the rule's, in scale or in order"
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

        Reading and tokenizing, the models, and the caller run in parallel. Without a corpus indicator, rows are yielded
        once their window is done. With one (``knn_6``), all examples are read first and wait on disk; rows follow
        after the corpus pass.

        Args:
            examples: examples, :func:`~instructmining.read_examples`, dicts as in a JSON file, or a table in memory;
                read lazily, in another thread. The format of dicts and tables is detected as for files.
            on_reject: called with each row that holds no example or cannot be scored, in input order, when the rows of
                its window are yielded; without it the first one raises.
            on_progress: called after each batch, in the calling thread.
            statistics: counters of the run, kept up to date.

        Raises:
            InputError: at once, where the type is not supported; while iterating, where an item has the wrong type or
                the rows are in no known format.
            RowError: while iterating, where a row cannot be scored and ``on_reject`` is None.
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
        """Score windows of good and bad rows, in input order; the base of :meth:`score`.

        Args:
            windows: read lazily, in another thread; of :attr:`batching`'s size. With a journal, those after its last
                position.
            strict: whether the first row that cannot be scored raises.
            on_progress: called after each batch, in the calling thread.
            statistics: counters of the run, kept up to date.
            journal: journal of a run that can be resumed. The caller commits what it did with the windows.

        Yields:
            Windows with all columns and their rejects; :meth:`rows` makes rows of them.

        Raises:
            RowError: a row cannot be scored, and ``strict`` is set.
            ResumeError: the rows are not those in the journal.
            RuleError: the scorer was opened for its roles alone.
            InstructMiningError: the scorer was closed.
        """
        self._check_open()
        if self._opened.plan.streams and not self.columns:
            raise RuleError("this scorer computes no column; open it with indicators or a rule")
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

    def spool_windows(
        self,
        windows: Iterable[InputWindow],
        journal: Journal,
        *,
        strict: bool = False,
        on_progress: OnProgress | None = None,
        statistics: Statistics | None = None,
    ) -> Generator[ScoredWindow, None, None]:
        """Score windows without what depends on all rows of the run, and keep them with their embeddings.

        They are in the journal's folder, as :class:`~instructmining.writing.spool.Spool` keeps them, until the
        neighbours among the rows of all runs of this kind are searched. Arguments and errors are those of
        :meth:`score_windows`.

        Yields:
            Windows that are kept; they lack the columns of neighbours and the prediction.
        """
        self._check_open()
        assert self._corpus_pass is not None, "no column needs neighbours"
        counts = statistics if statistics is not None else Statistics()
        report = on_progress or (lambda _: None)
        measured = self._row_pass.run(windows, self.batching, counts, report, strict=strict, journal=journal)
        mark = journal.marks.get(SPOOLED, {}).get("spool")
        with closing(measured), Spool(journal.folder, mark) as spool:
            yield from self._corpus_pass.spooled(spool, measured, counts, journal)

    def rows(self, window: ScoredWindow) -> Iterator[ScoredRow]:
        """Yield the rows of a finished window, with the prediction last and columns in indicator order."""
        return rows_of(window, self.columns)

    def requests(self) -> RowRequests:
        """Return what scores a few rows whose texts somebody else batches, as a service does; valid until closed.

        Raises:
            InstructMiningError: the scorer was closed.
        """
        self._check_open()
        return RowRequests(self._row_pass, self._opened, self._corpus_pass, self.rule, self.batching)

    def embeddings(self, examples: Examples) -> Generator[NDArray[np.float32], None, None]:
        """Yield the embeddings of examples in order, as for ``knn_6``; open the scorer with ``roles=["embedding"]``.

        A preference pair has the embedding of its chosen conversation.

        Args:
            examples: read lazily, in another thread.

        Yields:
            Unit vectors, float32 (rows, size), one window of examples at a time.

        Raises:
            RuleError: the embedding model is not open.
            RowError: an example cannot be embedded.
            InstructMiningError: the scorer was closed.
        """
        if self._closed:
            raise InstructMiningError("the scorer is closed: ask for embeddings inside its with block")
        if "embedding" not in self.roles:
            raise RuleError("the embedding model is not open; open the scorer with roles=['embedding']")
        windows = map(_chosen, windows_given(examples, self.batching.window_rows))
        embedding_pass = self._opened.only([BY_ROLE["embedding"]])
        measured = embedding_pass.run(windows, self.batching, Statistics(), lambda _: None, strict=True, journal=None)
        with closing(measured):
            for _, embedding in measured:
                if embedding is not None:
                    yield embedding

    def calibrate(self, examples: Examples) -> Batching:
        """Find the fastest budget of each role on these examples, and use it from now on.

        Takes ten to twenty seconds per role on a CPU with a small model. Results depend on the budget only by float
        rounding. The budget found may differ between calls, so store it and pass it to :meth:`open` where runs must be
        identical.

        Args:
            examples: rows like those to come; the first window of them is used.
        """
        taken = next(windows_given(examples, self.batching.window_rows), InputWindow([]))
        window = self._row_pass.windows.build(taken)
        candidates = CANDIDATES[self.device.kind]
        self.batching = calibrated(window, self._row_pass.executor, self.batching, candidates=candidates)
        return self.batching


def _chosen(window: InputWindow) -> InputWindow:
    """Return only the chosen conversations of preference pairs."""
    return replace(
        window, items=[replace(item, rejected=None) if isinstance(item, Example) else item for item in window.items]
    )
