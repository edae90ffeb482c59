"""Texts that wait, and which of them make the next batch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from instructmining.bundle import RoleName
from instructmining.inference.batching import ALIKE, Batching
from instructmining_serving.scheduling.work import Work

# Tokens that cost about as much as a run has beside its texts, where small batches are fast too; estimated: a language
# model of 135 million weights reads 540 MB for each run. A text that adds more padding has a run of its own.
_OF_A_RUN = 32
Lane: TypeAlias = tuple[Path, tuple[str, ...]]  # graph and outputs: texts of one lane can share a batch


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """A text that waits."""

    length: int  # tokens
    number: int  # of its arrival
    work: Work = field(compare=False)
    part: int = field(compare=False)
    text: int = field(compare=False)


class TextQueue:
    """All texts that wait; not safe to share between threads.

    Requests are served by weighted fair queueing (Demers, Keshav and Shenker 1989, doi 10.1145/75246.75248): first the
    one that would end first if all that wait shared the device equally. So a small request goes before what is left of
    large ones, and a large one is not passed by small ones for ever, since virtual time goes on as tokens are served.
    """

    def __init__(self, batching: Batching) -> None:
        """Make an empty queue.

        Args:
            batching: budgets of the roles, and how widths are rounded.
        """
        self._batching = batching
        self._lanes: dict[Lane, list[Entry]] = {}
        self._waiting: dict[Work, dict[int, list[Entry]]] = {}  # work → part → entries, ascending
        self._roles: dict[Lane, RoleName] = {}
        self._tokens: Counter[Lane] = Counter()
        self._arrivals = 0
        self._now = 0.0  # virtual time: tokens that each request has been served, if all share equally
        self.tokens = 0  # that wait

    def __len__(self) -> int:
        """Return the number of requests that have texts waiting."""
        return len(self._waiting)

    @property
    def oldest(self) -> float | None:
        """When the request that waits longest arrived; None where none waits."""
        return min((work.arrived for work in self._waiting), default=None)

    def add(self, work: Work) -> None:
        """Add the texts of a request that has some."""
        work.ends = self._now + work.left_tokens
        parts: dict[int, list[Entry]] = {}
        for number, part in enumerate(work.parts):
            lane = (part.role.graph, part.outputs)
            self._roles[lane] = part.role.name
            entries = []
            for text, tokens in enumerate(part.texts):
                entries.append(Entry(len(tokens.ids), self._arrivals, work, number, text))
                self._arrivals += 1
            if entries:
                entries.sort()
                parts[number] = entries
                waiting = self._lanes.setdefault(lane, [])
                for entry in entries:
                    insort(waiting, entry)
                self._tokens[lane] += sum(entry.length for entry in entries)
        self._waiting[work] = parts
        self.tokens += work.left_tokens

    def discard(self, work: Work) -> None:
        """Remove what still waits of a request."""
        for entries in list(self._waiting.get(work, {}).values()):
            for entry in reversed(entries):
                self._remove(entry)

    def clear(self) -> list[Work]:
        """Remove everything, and return the requests that waited."""
        works = list(self._waiting)
        for work in works:
            self.discard(work)
        return works

    def fills_a_batch(self) -> bool:
        """Return whether the texts of some lane fill the budget of a batch."""
        return any(
            tokens >= self._batching.max_batch_tokens[self._roles[lane]] for lane, tokens in self._tokens.items()
        )

    def take(self) -> tuple[Lane, list[Entry]]:
        """Remove the texts of the next batch: one of the request that is served next, and those nearest in length."""
        work = min(self._waiting, key=lambda one: (one.ends, one.arrived))
        part, entries = next(iter(self._waiting[work].items()))
        lane = (work.parts[part].role.graph, work.parts[part].outputs)
        taken = self._around(lane, entries[-1])
        self._now += sum(entry.length for entry in taken) / len(self._waiting)
        for entry in taken:
            self._remove(entry)
        return lane, taken

    def _around(self, lane: Lane, first: Entry) -> list[Entry]:
        """Return texts around one in the order of lengths, as many as fit: those that add least padding first."""
        waiting = self._lanes[lane]
        budget = self._batching.max_batch_tokens[self._roles[lane]]
        low = bisect_left(waiting, first)
        high = low + 1
        while low > 0 or high < len(waiting):
            longest, rows = self._width(waiting[high - 1].length), high - low
            longer = self._width(waiting[high].length) if high < len(waiting) else None
            of_longer = None if longer is None else (longer - longest) * rows
            of_shorter = None if low == 0 else longest - waiting[low - 1].length
            upward = of_longer is not None and (of_shorter is None or of_longer <= of_shorter)
            width = longer if upward and longer is not None else longest
            if (rows + 1) * width > budget:
                break
            enough = self._batching.enough_tokens
            least = waiting[low].length if upward else waiting[low - 1].length
            padding = of_longer if upward else of_shorter
            if (
                enough is not None
                and least < ALIKE * width
                and (rows * longest >= enough or (padding or 0) > _OF_A_RUN)
            ):
                break
            low, high = (low, high + 1) if upward else (low - 1, high)
        return waiting[low:high]

    def _width(self, length: int) -> int:
        return -(-length // self._batching.width_multiple) * self._batching.width_multiple

    def _remove(self, entry: Entry) -> None:
        parts = self._waiting[entry.work]
        entries = parts[entry.part]
        del entries[bisect_left(entries, entry)]
        part = entry.work.parts[entry.part]
        lane = (part.role.graph, part.outputs)
        del self._lanes[lane][bisect_left(self._lanes[lane], entry)]
        self._tokens[lane] -= entry.length
        self.tokens -= entry.length
        if not entries:
            del parts[entry.part]
        if not parts:
            del self._waiting[entry.work]


def by_work(entries: Sequence[Entry]) -> Mapping[tuple[Work, int], list[int]]:
    """Return the places of the entries of each part of each request."""
    found: dict[tuple[Work, int], list[int]] = {}
    for place, entry in enumerate(entries):
        found.setdefault((entry.work, entry.part), []).append(place)
    return found
