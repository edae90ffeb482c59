"""The counts, times and settings of one scoring run."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np

from instructmining.errors import InstructMiningError
from instructmining.knn.options import KnnOptions
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.options import ReadOptions
from instructmining.scored.few_tokens import rows_on_few_tokens
from instructmining.scorer.scorer import Scorer
from instructmining.types import PAIR_COLUMNS, PREDICTION, Position, ScoredRow, ScoredWindow
from instructmining.writing.statistics import Statistics, Work
from instructmining_scale.runs.speeds import keep_speed

_FEW_TOKENS = ("output_length", "perplexity", "ifd")  # columns that tell whether a value rests on few tokens
_PREDICTIONS = frozenset((PREDICTION, *PAIR_COLUMNS[PREDICTION]))
_SHOWS_S_LEFT = 0.01  # share of the rows that must be done before the time left is shown


@dataclass(frozen=True, slots=True)
class FromBefore:
    """Work of an interrupted run that the resumed run does not repeat."""

    rows: int = 0  # read
    rejected: int = 0  # among these rows
    batches: int = 0  # computed
    texts: int = 0  # in these batches
    device_seconds: float = 0.0  # spent on these batches


@dataclass(slots=True)
class Run:
    """Collects what the run file and the summary report."""

    scorer: Scorer
    inputs: Sequence[str]
    out: str
    settings: dict[str, object]
    here: str = ""  # where OUT is written, if not there
    knn: KnnOptions = field(default_factory=KnnOptions)
    statistics: Statistics = field(default_factory=Statistics)
    reader: ExampleReader | None = None
    windows_written: int = 0
    rows_written: int = 0
    rejects_written: int = 0
    options: ReadOptions = field(default_factory=ReadOptions)
    shard: tuple[int, int] | None = None  # its number, from 1, and how many there are
    spools: bool = False  # its rows wait for the neighbours among the rows of all shards
    was_finished: bool = False  # by an earlier process; this one did nothing
    from_before: FromBefore = field(default_factory=FromBefore)
    nulls: Counter[str] = field(default_factory=Counter)  # column → rows in which it is null
    unpredicted: int = 0  # rows without a prediction, or pairs without one on either side
    few_tokens: Counter[str] = field(default_factory=Counter)  # column → rows whose value rests on few tokens
    null_reason: str = ""  # for the first row without a prediction
    reject_reason: str = ""  # for the first rejected row
    began: float = field(default_factory=time.perf_counter)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run was started or resumed."""
        return time.perf_counter() - self.began

    @property
    def rejects_place(self) -> str:
        """Where the rejects are written."""
        if self.spools:
            return "merge writes them"
        return "standard error" if self.out == "-" else f"{self.out}.rejects.jsonl"

    @property
    def unread(self) -> dict[str, dict[str, int]]:
        """File → field that is not read → rows with text in it."""
        unread = self.reader.unread if self.reader else {}
        return {path: dict(counts) for path, counts in list(unread.items()) if counts}

    @property
    def truncated(self) -> dict[str, int]:
        """Role → rows of which it saw a truncated text."""
        return {role: self.statistics.truncated[role] for role in self.scorer.bundle.roles}

    @property
    def speed(self) -> tuple[float, float]:
        """Rows/s and tokens/s, without work from before it was resumed."""
        statistics, elapsed = self.statistics, self.elapsed_s
        rows = statistics.rows_computed - statistics.before.rows
        return rows / elapsed, (statistics.tokens.total() - statistics.before.tokens) / elapsed

    @property
    def role_speeds(self) -> dict[str, float]:
        """Roles of a model pass → its tokens/s while it runs."""
        tokens = self.statistics.tokens
        return {roles: tokens[roles] / seconds for roles, seconds in self._model_seconds.items() if seconds}

    @property
    def busy_shares(self) -> dict[str, float]:
        """Device → share of the elapsed time in which it computed, 0..1."""
        statistics, elapsed = self.statistics, self.elapsed_s
        return {
            device: (seconds - statistics.before.busy[device]) / elapsed for device, seconds in statistics.busy.items()
        }

    def share_done(self) -> tuple[float, float | None]:
        """Return the share of rows that are done, and the seconds left (None while unknown).

        The number of rows is an estimate until all are read. The speed is that of work since the run was resumed.
        """
        statistics = self.statistics
        total = self.reader.rows_expected if self.reader else None
        if not total:
            return 0.0, None
        limit = self.settings.get("limit")
        total = min(total, limit) if isinstance(limit, int) else total
        done = min(total, statistics.rows_computed + self.rejected)
        before = min(done, statistics.before.rows + self.from_before.rejected)
        own = done - before
        known = own > _SHOWS_S_LEFT * (total - before)
        return done / total, self.elapsed_s * (total - done) / own if known else None

    @property
    def rejected(self) -> int:
        """Rows rejected by reading and by scoring."""
        return (self.reader.rejected if self.reader else 0) + self.statistics.rows_rejected

    def count(self, rows: Sequence[ScoredRow], window: ScoredWindow) -> None:
        """Count a window that was written."""
        self.windows_written += 1
        self.rows_written += len(rows)
        self.rejects_written += len(window.rejects)
        self.few_tokens.update(_rows_on_few_tokens(rows))
        if window.rejects and not self.reject_reason:
            self.reject_reason = window.rejects[0].reason
        for row in rows:
            if row.notes:
                self.nulls.update(row.notes.keys())
            if not _PREDICTIONS.isdisjoint(row.notes):
                self.unpredicted += 1
                reasons = "; ".join(f"{column}: {reason}" for column, reason in row.notes.items())
                self.null_reason = self.null_reason or reasons

    def count_spooled(self, window: ScoredWindow) -> None:
        """Count a window whose rows wait for the neighbours of all shards."""
        self.windows_written += 1
        self.rows_written += window.rows
        self.rejects_written += len(window.rejects)
        if window.rejects and not self.reject_reason:
            self.reject_reason = window.rejects[0].reason

    def mark(self, end: Position | None) -> dict[str, Any]:
        """Return the counts that the journal stores at a commit, up to the end of the last window."""
        return {
            "end": asdict(end) if end else None,
            "windows": self.windows_written,
            "rows": self.rows_written,
            "rejects_written": self.rejects_written,
            "nulls": dict(self.nulls),
            "unpredicted": self.unpredicted,
            "few_tokens": dict(self.few_tokens),
            "null_reason": self.null_reason,
            "reject_reason": self.reject_reason,
            "statistics": self.statistics.as_json(),
        }

    def restore(self, mark: Mapping[str, Any]) -> None:
        """Continue from the counts that :meth:`mark` returned."""
        self.windows_written, self.rows_written = mark["windows"], mark["rows"]
        self.rejects_written, self.null_reason = mark["rejects_written"], mark["null_reason"]
        self.reject_reason = mark["reject_reason"]
        self.unpredicted = mark["unpredicted"]
        self.nulls.update(mark["nulls"])
        self.few_tokens.update(mark["few_tokens"])

    def restore_spooled(self, mark: Mapping[str, Any]) -> None:
        """Continue from the counts of the windows that wait, after the statistics were restored."""
        end = mark["end"]
        self.windows_written = mark["spool"]["windows"]
        self.rows_written = self.statistics.rows_scored
        self.rejects_written = self.statistics.rows_rejected + (end["rejected"] if end is not None else 0)

    def take_over(self, batches: Work) -> None:
        """Record the work of the interrupted run, after its counts and reader position were restored.

        Args:
            batches: work computed after its last commit.
        """
        committed = self.statistics.before
        self.from_before = FromBefore(
            rows=self.reader.rows if self.reader else 0,
            rejected=self.rejected,
            batches=committed.batches + batches.batches,
            texts=committed.texts + batches.texts,
            device_seconds=round(committed.device_seconds + batches.device_seconds, 3),
        )

    @property
    def _model_seconds(self) -> dict[str, float]:
        """Roles of a model pass → its seconds."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for stage, spent in self.statistics.seconds.items():
            kind, _, rest = stage.partition(":")
            if kind == "model":
                seconds[rest.partition(":")[0]] += spent
        return seconds

    def check_counts(self) -> None:
        """Check that every row that was read is written or rejected.

        Raises:
            InstructMiningError: the counts do not add up, which is a bug.
        """
        rows = self.reader.rows if self.reader else 0
        if rows != self.rows_written + self.rejects_written or self.rejects_written != self.rejected:
            raise InstructMiningError(
                f"counts do not add up: {rows} rows in, {self.rows_written} written, {self.rejects_written} "
                f"as rejects, {self.rejected} rejected; "
                "OUT was not created; please report this"
            )

    def keep_speed(self) -> None:
        """Cache the speed, from which ``inspect`` estimates the time of a run; not of a resumed run."""
        if self.from_before != FromBefore():
            return
        keep_speed(
            self.scorer.bundle,
            str(self.settings["device"]),
            ", ".join(map(str, self.scorer.devices)),
            tokens=self.statistics.tokens,
            busy_s=self._model_seconds,
            elapsed_s=self.elapsed_s - self.statistics.seconds["neighbours"],
        )


def _rows_on_few_tokens(rows: Sequence[ScoredRow]) -> dict[str, int]:
    names = dict.fromkeys(name for row in rows for name in row.columns if name.endswith(_FEW_TOKENS))
    values = {
        name: np.array([math.nan if (value := row.columns.get(name)) is None else value for row in rows], dtype=float)
        for name in names
    }
    return rows_on_few_tokens(values)
