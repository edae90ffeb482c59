"""The kept rows: each part writes its own in order, and these are joined to files in the order of all."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import OutputError
from instructmining.scored.scored_file import ScoredRows
from instructmining.scored.selection.qualifying import Verdict
from instructmining.scored.selection.subsets import in_order, without_scores
from instructmining.types import SourceRow
from instructmining.writing.atomic import beside, write_whole
from instructmining_scale.selection.part_columns import Candidates, Limits, Question

Place = tuple[int, int]  # of a row in the order of all: its key, and its number among the rows of all parts
_PLACED = np.dtype([("key", np.uint64), ("row", np.int64), ("begin", np.int64), ("size", np.int64)])
PLACE = np.dtype([("key", np.uint64), ("row", np.int64)])
_GOLDEN = (5**0.5 - 1) / 2  # its multiples spread evenly between whole numbers


@dataclass(frozen=True, slots=True)
class CutOut:
    """A part whose kept rows are to be written."""

    question: Question
    number: int
    path: Path
    rows_before: int
    limits: Limits


@dataclass(frozen=True, slots=True)
class Kept:
    """What a part keeps."""

    verdicts: dict[int, int]  # verdict on its candidates → rows
    groups: dict[int, int]  # number of a group → kept rows; empty without groups
    tokens: int
    bytes: int  # of the lines of the kept rows
    last: tuple[Place, float] | None  # place and value of the last kept row in order
    sample: NDArray[np.void]  # places of kept rows, one for so many bytes, from which the places of cuts are taken


def cut_out(wanted: CutOut) -> Kept:
    """Decide on the candidates of a part, and write those that are kept to the scratch folder, in order.

    Raises:
        InputError: the part cannot be read, or changed.
        OutputError: a disk refuses the rows.
    """
    question, limits = wanted.question, wanted.limits
    of = Candidates.load(question, wanted.number, wanted.rows_before)
    has_room, in_budget = limits.in_room(of), limits.in_budget(of)
    kept = np.flatnonzero(has_room & in_budget)
    counts = {
        Verdict.KEPT: len(kept),
        Verdict.ABOVE: of.above,
        Verdict.FULL: int((~has_room & in_budget).sum()),
        Verdict.OVER_BUDGET: int((~in_budget).sum()),
    }
    verdicts = {int(verdict): count for verdict, count in counts.items() if count}
    if not len(kept):
        return Kept(verdicts, {}, 0, 0, None, np.zeros(0, PLACE))
    kept = kept[np.argsort(of.keys[kept], kind="stable")]
    placed = _write(wanted, of, kept)
    groups, by_group = np.unique(of.groups[kept], return_counts=True)
    return Kept(
        verdicts,
        dict(zip(groups.tolist(), by_group.tolist(), strict=True)) if question.choice.group_by is not None else {},
        int(of.tokens[kept].sum()) if len(of.tokens) else 0,
        int(placed["size"].sum()),
        ((int(placed["key"][-1]), int(placed["row"][-1])), float(of.values[kept[-1]])),
        _sample(placed, wanted.number, question.sample_bytes),
    )


def _sample(placed: NDArray[np.void], number: int, sample_bytes: int) -> NDArray[np.void]:
    """Return the places of rows at even distances in bytes, in each part from another beginning."""
    ends = np.cumsum(placed["size"])
    at = np.arange(number * _GOLDEN % 1 * sample_bytes, ends[-1], sample_bytes)
    rows = placed[np.searchsorted(ends, at, side="right")]
    sample = np.zeros(len(rows), PLACE)
    sample["key"], sample["row"] = rows["key"], rows["row"]
    return sample


def _write(wanted: CutOut, of: Candidates, kept: NDArray[np.int64]) -> NDArray[np.void]:
    """Write the lines of kept rows, and where each lies; returns the latter."""
    question = wanted.question
    placed = np.zeros(len(kept), _PLACED)
    placed["key"], placed["row"] = of.keys[kept], of.rows[kept]

    def content(row: SourceRow) -> bytes:
        return (row.raw if question.keep_scores else without_scores(row, question.prefix)) + b"\n"

    source = ScoredRows(wanted.path, prefix=question.prefix)
    lines = _lines_file(question.scratch, wanted.number)
    partial = beside(lines)
    try:
        with partial.open("xb") as file:
            for at, (_, line) in enumerate(in_order(source, of.rows[kept] - wanted.rows_before, content)):
                placed["size"][at] = file.write(line)
        partial.replace(lines)
        placed["begin"] = np.cumsum(placed["size"]) - placed["size"]
        np.save(_places_file(question.scratch, wanted.number), placed)
    except OSError as error:
        raise OutputError(f"{lines}: {error.strerror}") from error
    source.check_unchanged()
    return placed


@dataclass(frozen=True, slots=True)
class Join:
    """A file of the selection, from what the parts wrote."""

    scratch: Path
    parts: Sequence[int]  # that keep rows
    begin: Place | None  # of the first row; None at the beginning
    end: Place | None  # of the row after the last
    out: Path


@dataclass(frozen=True, slots=True)
class Joined:
    """A file of the selection, as its mark has it."""

    name: str
    rows: int
    bytes: int
    sha256: str


def join(wanted: Join) -> Joined:
    """Write the rows between two places in order; memory holds them.

    Raises:
        OutputError: the disk refuses them.
    """
    places, lines = [], []
    for number in wanted.parts:
        placed = np.load(_places_file(wanted.scratch, number), mmap_mode="r")
        begin = 0 if wanted.begin is None else _place_in(placed, wanted.begin)
        end = len(placed) if wanted.end is None else _place_in(placed, wanted.end)
        if begin == end:
            continue
        these = np.array(placed[begin:end])
        with _lines_file(wanted.scratch, number).open("rb") as file:
            file.seek(int(these["begin"][0]))
            content = memoryview(file.read(int(these["size"].sum())))
        ends = np.cumsum(these["size"]).tolist()
        lines += [content[first:last] for first, last in zip([0, *ends[:-1]], ends, strict=True)]
        places.append(these)
    all_places = np.concatenate(places) if places else np.zeros(0, _PLACED)
    order = np.lexsort((all_places["row"], all_places["key"]))
    content = memoryview(b"".join([lines[at] for at in order.tolist()]))
    write_whole(wanted.out, content)
    return Joined(wanted.out.name, len(order), len(content), hashlib.sha256(content).hexdigest())


def _place_in(placed: NDArray[np.void], place: Place) -> int:
    """Return the number of rows before a place."""
    key = np.uint64(place[0])
    begin, end = (int(np.searchsorted(placed["key"], key, side=side)) for side in ("left", "right"))
    return begin + int(np.searchsorted(placed["row"][begin:end], place[1]))


def _lines_file(scratch: Path, number: int) -> Path:
    return scratch / f"kept-{number:06}.lines"


def _places_file(scratch: Path, number: int) -> Path:
    return scratch / f"kept-{number:06}.npy"
