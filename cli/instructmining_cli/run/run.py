"""One scoring run as the user sees it: the progress line, the run file, the closing words."""

from __future__ import annotations

import math
import platform
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from instructmining import __version__
from instructmining.errors import InstructMiningError
from instructmining.errors.names import few, short
from instructmining.knn.options import KnnOptions
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.options import ReadOptions
from instructmining.reading.values import all_utf8
from instructmining.scored.few_tokens import rows_on_few_tokens, said_of_few_tokens
from instructmining.scorer.scorer import Scorer
from instructmining.types import PAIR_COLUMNS, PREDICTION, Position, ScoredRow, ScoredWindow
from instructmining.writing.statistics import Statistics, Work
from instructmining_cli.process.terminal import visible
from instructmining_cli.reports.wording import duration, rows_of, size_of
from instructmining_cli.run.space import room_left, room_needed
from instructmining_cli.run.speeds import keep_speed

_TEXTS = {
    "document": "turns joined by newlines",
    "prompt": "turns that are not the assistant's, joined by newlines",
    "response": "the assistant's turns, joined by newlines",
}
_FEW_TOKENS = ("output_length", "perplexity", "ifd")  # what is looked at of a row
_PREDICTIONS = frozenset((PREDICTION, *PAIR_COLUMNS[PREDICTION]))
_WORTH_A_WORD_S = 5.0
_WORTH_A_WORD_BYTES = 2**30
_UNREAD_AFTER_S = 10.0  # what is not read is said at the end, in a longer run as soon as this
_WORTH_A_WORD_SHARE = 0.1  # of the room that is free
_PLAIN_EVERY_S = 30.0  # where standard error is no terminal, a line this often
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
    """Collects what the run file says and draws the progress on standard error."""

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
    _console: Console = field(default_factory=lambda: Console(stderr=True, highlight=False, soft_wrap=True))
    _begin: float = field(default_factory=time.perf_counter)
    _begun_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    _bar: Progress | None = None
    _task: TaskID | None = None
    _said_neighbours: bool = False
    _said_at: float = field(default_factory=time.perf_counter)
    _said_unread: set[tuple[str, str]] = field(default_factory=set)  # file and field

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

    def say(self, text: str) -> None:
        """One line on standard error."""
        self._console.print(visible(text), markup=False)

    def say_room(self) -> None:
        """What the run will need on the disk, where that is much or more than there is."""
        if self.out == "-":
            return
        needed = room_needed(self.inputs, self.out, embedding_size=self.scorer.embedding_size, options=self.options)
        if needed is None:
            return
        left = room_left(self.out)
        if needed > left:
            self.say(
                f"caution: the run will need about {size_of(needed)} beside {self.out}; {size_of(left)} are free; "
                "where the disk is full it stops, and --resume goes on"
            )
        elif needed >= max(_WORTH_A_WORD_BYTES, _WORTH_A_WORD_SHARE * left):
            self.say(f"the run will need about {size_of(needed)} beside {self.out}; {size_of(left)} are free")

    @contextmanager
    def display(self) -> Iterator[None]:
        """Draw a bar while the run goes, where standard error is a terminal; plain lines elsewhere."""
        if self.scorer.bundle.note and self.scorer.roles:
            self.say(f"bundle {self.scorer.bundle.name!r}: {self.scorer.bundle.note}")
        if self.scorer.caution:
            self.say(f"caution: {self.scorer.caution}")
        self.say(f"device: {', '.join(map(str, self.scorer.devices))}")
        if self.from_before != FromBefore():
            before = self.from_before
            self.say(
                f"taken over from the run that was cut: {rows_of(before.rows)}, {before.batches:,} batches of "
                f"{before.texts:,} texts, {before.device_seconds:,.1f} s of the device"
            )
        if not self._console.is_terminal:
            yield
            return
        columns = (TextColumn("{task.description}"), BarColumn(bar_width=16), TextColumn("{task.fields[speed]}"))
        with Progress(*columns, console=self._console, transient=True) as bar:
            self._bar = bar
            self._task = bar.add_task("scoring", total=1.0, speed="")
            yield
            self._bar = None

    def progress(self, statistics: Statistics) -> None:
        """Redraw; called by the scorer after each batch and each block of neighbours."""
        if (statistics.neighbours_expected_s or 0) >= _WORTH_A_WORD_S and not self._said_neighbours:
            self._said_neighbours = True
            expected = duration(statistics.neighbours_expected_s or 0)
            self.say(f"searching the neighbours of {rows_of(statistics.rows_scored)}: about {expected}")
        now = time.perf_counter()
        if now - self._begin >= _UNREAD_AFTER_S and not self._said_unread:
            self.say_unread("so far")
        if self._bar is None and now - self._said_at < _PLAIN_EVERY_S:
            return
        self._said_at = now
        share, left_s = self._share_done(statistics, now - self._begin)
        left = "?" if left_s is None else duration(left_s)
        speed = f"{statistics.rows_computed:,.0f} rows, {self._speed(now)}, {left} left"
        stage = "scoring"
        if statistics.neighbours_done:
            stage, share = "neighbours", statistics.neighbours_done / statistics.neighbours_wanted
            speed = f"{statistics.neighbours_done:,} of {statistics.neighbours_wanted:,} rows"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=share, description=stage, speed=speed)
        else:
            self.say(f"{stage}: {share:.0%}  {speed}")

    def say_unread(self, until: str = "") -> None:
        """Name each field that holds text and takes no role, once for each file."""
        for path, counts in self._unread().items():
            new = {name: rows for name, rows in counts.items() if (path, name) not in self._said_unread}
            if new:
                listed = few([f"{short(name) or '(no name)'}, {rows_of(rows)}" for name, rows in new.items()])
                self.say(f"{path}: not read: {listed}{f' {until}' if until else ''}")
                self._said_unread |= {(path, name) for name in new}

    def _unread(self) -> dict[str, dict[str, int]]:
        """Of each file the fields that are not read, with the rows that have text in them."""
        unread = self.reader.unread if self.reader else {}
        return {path: dict(counts) for path, counts in list(unread.items()) if counts}

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

    def as_json(self) -> dict[str, object]:
        """The run file."""
        bundle, rule, statistics = self.scorer.bundle, self.scorer.rule, self.statistics
        elapsed = time.perf_counter() - self._begin
        packages = ("numpy", "orjson", "tokenizers")
        run = {
            "started_at": self._begun_at.isoformat(timespec="seconds"),
            "versions": {
                "instructmining": __version__,
                "python": platform.python_version(),
                "onnxruntime": self.scorer.runtime_version,
                **{package: version(package) for package in packages},
            },
            "device": ", ".join(map(str, self.scorer.devices)),
            "bundle": {
                "path": str(bundle.path),
                "name": bundle.name,
                "digest": bundle.digest,
                "note": bundle.note,
                "roles": {
                    name: {"precision": role.precision, "max_length": role.max_length, **role.source}
                    for name, role in bundle.roles.items()
                },
            },
            "rule": {"id": rule.id, "digest": rule.digest, "reward_model": rule.reward_model} if rule else None,
            "caution": self.scorer.caution,
            "settings": {
                "inputs": list(self.inputs),
                "formats": dict(self.reader.formats) if self.reader else {},
                "columns": list(self.scorer.columns),
                **asdict(self.scorer.batching),
                "knn": self._knn_as_json(),
                **self.settings,
            },
            "counts": {
                "rows_in": self.reader.rows if self.reader else 0,
                "rows_out": self.rows_written,
                "rows_rejected": self.rejected,
                "rows_from_before": self.from_before.rows,
                "blank_lines": self.reader.blank if self.reader else 0,
                "null": dict(self.nulls),
                "truncated": {name: statistics.truncated[name] for name in bundle.roles},
                "not_read": {path: dict(counts) for path, counts in self._unread().items()},
            },
            "from_before": asdict(self.from_before),
            "tokens": dict(statistics.tokens),
            "padding_share": round(statistics.padding_share, 4),
            "batches": statistics.batches,
            "batches_split_for_memory": self.scorer.memory_splits,
            "texts_retried": self.scorer.texts_retried,
            "device_busy_share": {
                name: round((seconds - statistics.before.busy[name]) / elapsed, 4)
                for name, seconds in statistics.busy.items()
            },
            "seconds": {
                "total": round(elapsed, 3),
                **{stage: round(seconds, 3) for stage, seconds in statistics.seconds.items()},
            },
        }
        said: dict[str, object] = all_utf8(run)
        return said

    def _knn_as_json(self) -> dict[str, object] | None:
        if not self.scorer.searches_neighbours:
            return None
        approximation = self.statistics.approximation
        pool = "all rows of the run" if self.around.pool is None else f"rows that are equal in {self.around.pool!r}"
        return {
            "metric": self.around.metric,
            "pool": pool if self.around.against is None else f"the {self.statistics.others} rows of another file",
            "against": self.around.against,
            "text": _TEXTS[self.around.text],
            "search": self.around.search,
            "approximation": asdict(approximation) if approximation else None,
        }

    def keep_speed(self) -> None:
        """Remember how fast the models were, for who asks how long a run will take."""
        if self.from_before != FromBefore():
            return
        busy: Counter[str] = Counter()
        for stage, seconds in self.statistics.seconds.items():
            kind, _, rest = stage.partition(":")
            if kind == "model":
                busy[rest.partition(":")[0]] += seconds  # type: ignore[assignment]
        keep_speed(
            self.scorer.bundle,
            str(self.settings["device"]),
            ", ".join(map(str, self.scorer.devices)),
            tokens=self.statistics.tokens,
            busy_s=busy,
            elapsed_s=time.perf_counter() - self._begin - self.statistics.seconds["neighbours"],
        )

    def say_result(self) -> None:
        """The closing words."""
        now = time.perf_counter()
        earlier = self.from_before.rows - self.from_before.rejected
        before = f", {earlier:,} of them by the run that was cut," if earlier else ""
        self.say(
            f"scored {rows_of(self.rows_written)}{before} in {duration(now - self._begin)} "
            f"({self._speed(now)}): {self.out}"
        )
        if self.rejected:
            where = "standard error" if self.out == "-" else f"{self.out}.rejects.jsonl"
            self.say(f"rejected {rows_of(self.rejected)}: {where}; the first because {self.reject_reason}")
        if self.unpredicted:
            self.say(f"no prediction for {rows_of(self.unpredicted)}; the first because {self.null_reason}")
        for line in said_of_few_tokens(self.few_tokens):
            self.say(line)
        self.say_unread()
        for mark, rows in (self.reader.templated if self.reader else {}).items():
            self.say(
                f"caution: the text of {rows_of(rows)} holds {mark!r}, as templates write it; all of it is scored as "
                "the response"
            )
        if not self.rows_written and not self.rejected:
            self.say("the input holds no rows")

    def _share_done(self, statistics: Statistics, elapsed: float) -> tuple[float, float | None]:
        """Share of the rows that are done, and seconds left by the speed of this run's own work, None while unknown.

        How many rows there are is known once all are read, and guessed before.
        """
        total = self.reader.rows_expected if self.reader else None
        if not total:
            return 0.0, None
        limit = self.settings.get("limit")
        total = min(total, limit) if isinstance(limit, int) else total
        done = min(total, statistics.rows_computed + self.rejected)
        before = min(done, statistics.before.rows + self.from_before.rejected)
        own = done - before
        known = own > _SHOWS_S_LEFT * (total - before)
        return done / total, elapsed * (total - done) / own if known else None

    def _speed(self, now: float) -> str:
        """Of this run's own work, whatever it took over."""
        counts, elapsed = self.statistics, now - self._begin
        rows = counts.rows_computed - counts.before.rows
        tokens = counts.tokens.total() - counts.before.tokens
        return f"{rows / elapsed:,.1f} rows/s, {tokens / elapsed:,.0f} tokens/s"


def _rows_on_few_tokens(rows: Sequence[ScoredRow]) -> dict[str, int]:
    names = dict.fromkeys(name for row in rows for name in row.columns if name.endswith(_FEW_TOKENS))
    values = {
        name: np.array([math.nan if (value := row.columns.get(name)) is None else value for row in rows], dtype=float)
        for name in names
    }
    return rows_on_few_tokens(values)
