"""What is counted of one scoring run."""

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
from instructmining_cli.run.speeds import keep_speed

_FEW_TOKENS = ("output_length", "perplexity", "ifd")  # what is looked at of a row
_PREDICTIONS = frozenset((PREDICTION, *PAIR_COLUMNS[PREDICTION]))
_SHOWS_S_LEFT = 0.01  # of what is to do must be done before the time left is said


@dataclass(frozen=True, slots=True)
class FromBefore:
    """What a run takes over from one that was cut."""

    rows: int = 0  # read, and not read again
    rejected: int = 0  # of them
    batches: int = 0  # computed, and not computed again
    texts: int = 0  # of them
    device_seconds: float = 0.0  # that devices were busy with them


@dataclass(slots=True)
class Run:
    """Collects what the run file and the closing words say."""

    scorer: Scorer
    inputs: Sequence[str]
    out: str
    settings: dict[str, object]
    around: KnnOptions = field(default_factory=KnnOptions)
    statistics: Statistics = field(default_factory=Statistics)
    reader: ExampleReader | None = None
    windows_written: int = 0
    rows_written: int = 0
    rejects_written: int = 0
    options: ReadOptions = field(default_factory=ReadOptions)
    from_before: FromBefore = field(default_factory=FromBefore)
    nulls: Counter[str] = field(default_factory=Counter)  # column → rows where it is undefined
    unpredicted: int = 0  # rows without a prediction, of a pair on one side
    few_tokens: Counter[str] = field(default_factory=Counter)  # column → rows whose value rests on very few
    null_reason: str = ""  # of the first row without a prediction
    reject_reason: str = ""  # of the first row that was rejected
    began: float = field(default_factory=time.perf_counter)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def elapsed_s(self) -> float:
        """Seconds since the run began, or was resumed."""
        return time.perf_counter() - self.began

    @property
    def rejects_place(self) -> str:
        """Where the rejects are."""
        return "standard error" if self.out == "-" else f"{self.out}.rejects.jsonl"

    @property
    def unread(self) -> dict[str, dict[str, int]]:
        """Of each file the fields that are not read, with the rows that have text in them."""
        unread = self.reader.unread if self.reader else {}
        return {path: dict(counts) for path, counts in list(unread.items()) if counts}

    @property
    def truncated(self) -> dict[str, int]:
        """Rows of which each role of the bundle saw less than the whole."""
        return {role: self.statistics.truncated[role] for role in self.scorer.bundle.roles}

    @property
    def speed(self) -> tuple[float, float]:
        """Rows/s and tokens/s of this run's own work, whatever it took over."""
        statistics, elapsed = self.statistics, self.elapsed_s
        rows = statistics.rows_computed - statistics.before.rows
        return rows / elapsed, (statistics.tokens.total() - statistics.before.tokens) / elapsed

    @property
    def role_speeds(self) -> dict[str, float]:
        """Tokens/s of each model pass while it runs, by its roles."""
        tokens = self.statistics.tokens
        return {roles: tokens[roles] / seconds for roles, seconds in self._model_seconds.items() if seconds}

    @property
    def busy_shares(self) -> dict[str, float]:
        """Share of this run's time in which each device computed, 0..1."""
        statistics, elapsed = self.statistics, self.elapsed_s
        return {
            device: (seconds - statistics.before.busy[device]) / elapsed for device, seconds in statistics.busy.items()
        }

    def share_done(self) -> tuple[float, float | None]:
        """Share of the rows that are done, and seconds left by the speed of this run's own work, None while unknown.

        How many rows there are is known once all are read, and guessed before.
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
        """Rows that went to the rejects, from reading and from scoring."""
        return (self.reader.rejected if self.reader else 0) + self.statistics.rows_rejected

    def count(self, rows: Sequence[ScoredRow], window: ScoredWindow) -> None:
        """Take note of a window that was written."""
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

    def mark(self, end: Position | None) -> dict[str, Any]:
        """What the journal keeps of the rows that were written, up to the end of the last window."""
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
        """Go on counting from what :meth:`mark` gave."""
        self.windows_written, self.rows_written = mark["windows"], mark["rows"]
        self.rejects_written, self.null_reason = mark["rejects_written"], mark["null_reason"]
        self.reject_reason = mark["reject_reason"]
        self.unpredicted = mark["unpredicted"]
        self.nulls.update(mark["nulls"])
        self.few_tokens.update(mark["few_tokens"])

    def take_over(self, batches: Work) -> None:
        """Note what is there of the run that was cut, after the counts and the reader were set to it.

        Args:
            batches: that were computed after its last commit.
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
        """Seconds of each model pass, by its roles."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for stage, spent in self.statistics.seconds.items():
            kind, _, rest = stage.partition(":")
            if kind == "model":
                seconds[rest.partition(":")[0]] += spent
        return seconds

    def check_counts(self) -> None:
        """Every row that was read is written or rejected.

        Raises:
            InstructMiningError: the counts do not add up, which is a defect of ours.
        """
        rows = self.reader.rows if self.reader else 0
        if rows != self.rows_written + self.rejects_written or self.rejects_written != self.rejected:
            raise InstructMiningError(
                f"counts do not add up: {rows} rows in, {self.rows_written} written, {self.rejects_written} "
                f"as rejects, {self.rejected} rejected; "
                "nothing was put in place; please report this"
            )

    def keep_speed(self) -> None:
        """Remember how fast the models were, for who asks how long a run will take."""
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
