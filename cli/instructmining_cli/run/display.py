"""Shows a scoring run on standard error: opening lines, a live view or plain lines, and a summary."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from instructmining.errors.names import few, short
from instructmining.scored.aligning import wrapped
from instructmining.scored.few_tokens import said_of_few_tokens
from instructmining.tables.controls import visible
from instructmining.writing.statistics import Statistics
from instructmining_cli.process.terminal import voice
from instructmining_cli.run.run_views import closing_table, live_view
from instructmining_cli.run.space import room_left, room_needed
from instructmining_scale.runs.host import View
from instructmining_scale.runs.scoring_run import FromBefore, Run
from instructmining_scale.wording import duration, rows_of, size_of

_SAID_FROM_S = 5.0  # expected time of a search for neighbours
_SAID_FROM_BYTES = 2**30  # disk space needed
_SAID_FROM_SHARE = 0.1  # disk space needed, of the free space
_UNREAD_AFTER_S = 10.0  # a longer run names unread fields this early, a shorter one at the end
_PLAIN_EVERY_S = 30.0  # interval of lines without a live view
_LIVE_EVERY_S = 0.25


class Display(View):
    """Reports the progress and the result of a run; with ``--quiet`` only cautions.

    Draws a live view and a closing table if standard error is a terminal that can move its cursor; otherwise writes
    plain lines.
    """

    def __init__(self, run: Run) -> None:
        """Prepare the console; nothing is written yet."""
        self._run = run
        # Rich takes a pipe for a terminal if FORCE_COLOR is set.
        self._console = Console(stderr=True, highlight=False, soft_wrap=True, force_terminal=sys.stderr.isatty())
        self._on_terminal = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live: Live | None = None
        self._last_drawn = run.began
        self._said_neighbours = False
        self._said_unread: set[tuple[str, str]] = set()  # file and field

    def say(self, text: str) -> None:
        """Write a line of progress or of the summary, unless ``--quiet`` is given."""
        if not voice().quiet:
            self.warn(text)

    def warn(self, text: str) -> None:
        """Write a caution."""
        self._console.print(visible(text), markup=False)

    def say_room(self) -> None:
        """Say the disk space that the run needs if it is large, and warn if it is more than is free."""
        run = self._run
        here = run.here or run.out
        if here == "-":
            return
        needed = room_needed(run.inputs, here, embedding_size=run.scorer.embedding_size, options=run.options)
        if needed is None:
            return
        left = room_left(here)
        if needed > left:
            self.warn(
                f"caution: the run needs about {size_of(needed)} next to {here}; {size_of(left)} are free; "
                "if the disk fills up it stops, and --resume continues it"
            )
        elif needed >= max(_SAID_FROM_BYTES, _SAID_FROM_SHARE * left):
            self.say(f"the run needs about {size_of(needed)} next to {here}; {size_of(left)} are free")

    @contextmanager
    def showing(self) -> Iterator[None]:
        """Write the opening lines; inside the block, :meth:`progress` is shown."""
        scorer, before = self._run.scorer, self._run.from_before
        if scorer.bundle.note and scorer.roles:
            self.say(f"bundle {scorer.bundle.name!r}: {scorer.bundle.note}")
        if scorer.caution:
            self.warn(f"caution: {scorer.caution}")
        self.say(f"device: {', '.join(map(str, scorer.devices))}")
        if before != FromBefore():
            self.say(
                f"resumed; not repeated: {rows_of(before.rows)}, {before.batches:,} batches of {before.texts:,} texts, "
                f"{before.device_seconds:,.1f} device seconds"
            )
        if not self._on_terminal or voice().quiet:
            yield
            return
        with Live(live_view(self._run), console=self._console, transient=True) as self._live:
            yield
        self._live = None

    def progress(self, statistics: Statistics) -> None:
        """Show the current state; the scorer calls it after each batch and each block of neighbours."""
        if (statistics.neighbours_expected_s or 0) >= _SAID_FROM_S and not self._said_neighbours:
            self._said_neighbours = True
            expected = duration(statistics.neighbours_expected_s or 0)
            self.say(f"searching the neighbours of {rows_of(statistics.rows_scored)}: about {expected}")
        if self._run.elapsed_s >= _UNREAD_AFTER_S and not self._said_unread:
            self.say_unread("so far")
        now = time.perf_counter()
        if now - self._last_drawn < (_PLAIN_EVERY_S if self._live is None else _LIVE_EVERY_S):
            return
        self._last_drawn = now
        if self._live is not None:
            self._live.update(live_view(self._run))
        else:
            self.say(self._plain_line(statistics))

    def say_unread(self, until: str = "") -> None:
        """Name each field that holds text and has no role, once per file."""
        for path, counts in self._run.unread.items():
            new = {name: rows for name, rows in counts.items() if (path, name) not in self._said_unread}
            if new:
                listed = few([f"{short(name) or '(no name)'} ({rows_of(rows)})" for name, rows in new.items()])
                self.warn(f"{path}: not read: {listed}{f' {until}' if until else ''}")
                self._said_unread |= {(path, name) for name in new}

    def say_result(self) -> None:
        """Write the summary."""
        run = self._run
        if self._on_terminal and not voice().quiet:
            for line in closing_table(run):
                self.say(wrapped(line, self._console.width, indent=12))
        else:
            self._say_plain_result()
        for line in said_of_few_tokens(run.few_tokens):
            self.say(line)
        self.say_unread()
        for mark, rows in (run.reader.templated if run.reader else {}).items():
            self.warn(
                f"caution: the text of {rows_of(rows)} contains {mark!r}, a mark of a template; all of it is scored as "
                "the response"
            )
        if not run.rows_written and not run.rejected:
            self._say_no_rows()

    def _say_no_rows(self) -> None:
        run = self._run
        if run.shard is None:
            self.warn("caution: the input holds no rows")
            return
        blocks = size_of(run.options.block_bytes)
        self.say(
            f"shard {run.shard[0]} of {run.shard[1]} has no rows: shards begin at multiples of {blocks} in each file; "
            "for fewer bytes in a shard give fewer shards, or a lower --block-bytes"
        )

    def _say_plain_result(self) -> None:
        run = self._run
        earlier = run.from_before.rows - run.from_before.rejected
        before = f", {earlier:,} of them before it was resumed," if earlier else ""
        rows, tokens = run.speed
        self.say(
            f"scored {rows_of(run.rows_written)}{before} in {duration(run.elapsed_s)} "
            f"({rows:,.1f} rows/s, {tokens:,.0f} tokens/s): {run.out}"
        )
        if run.rejected:
            self.warn(f"rejected {rows_of(run.rejected)}: {run.rejects_place}; the first because {run.reject_reason}")
        if run.unpredicted:
            self.say(f"no prediction for {rows_of(run.unpredicted)}; the first because {run.null_reason}")

    def _plain_line(self, statistics: Statistics) -> str:
        if statistics.neighbours_done:
            done, wanted = statistics.neighbours_done, statistics.neighbours_wanted
            return f"neighbours: {done / wanted:.0%}  {done:,} of {wanted:,} rows"
        share, left_s = self._run.share_done()
        left = "?" if left_s is None else duration(left_s)
        rows, tokens = self._run.speed
        return (
            f"scoring: {share:.0%}  {statistics.rows_computed:,.0f} rows, {rows:,.1f} rows/s, {tokens:,.0f} tokens/s, "
            f"{left} left"
        )
