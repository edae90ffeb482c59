"""Selects the best rows of a scored set that lies in parts; no process holds the rows of all.

Every part is read once for the numbers of its candidates, which wait in files. Histograms of these, summed over the
parts in rounds, give the exact places where the rows wanted and the token budget end. Every part then writes its kept
rows in order, and these are joined, again in parts.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import orjson

from instructmining.errors import OutputError, SelectionError
from instructmining.errors.arguments import check_type
from instructmining.reading.values import all_utf8
from instructmining.scored.selection import Selection, chosen
from instructmining.scored.selection.options import SelectionOptions, check
from instructmining.scored.selection.qualifying import Contents, Verdict, check_groups
from instructmining.scored.selection.ranking import by_reason, groups_as_json, short_of_wanted
from instructmining.types import PREDICTION
from instructmining.writing.atomic import beside, claimed, put_folder, write_whole
from instructmining_scale.parts import finished_parts, plan_of
from instructmining_scale.plan import MERGED, Plan, PlanError
from instructmining_scale.selection.borders import Borders, Counts, Round, find_borders
from instructmining_scale.selection.part_columns import Ask, Limits, Look, Question, Seen, ask, keep_groups, look
from instructmining_scale.selection.part_rows import PLACE, CutOut, Join, Joined, Kept, Place, cut_out, join
from instructmining_scale.selection.tasks import cpus, mapped

MARK = "selection.json"
_FILE_BYTES = 64 << 20  # of the lines in a file of the selection, about; a task holds them in memory
_SAMPLES = 64  # places for the rows of a file
_ASKED_EACH = 2  # answers of each processor in a round


@dataclass(frozen=True, slots=True)
class SelectedDataset:
    """The rows that were kept, in files."""

    folder: Path
    files: Sequence[Path]  # JSON lines; one after the other, they are what ``select`` writes
    selection: Selection  # the counts


def select_dataset(  # noqa: PLR0913 - each field of SelectionOptions is also an argument
    scored: str | Path,
    out: str | Path,
    choice: SelectionOptions | None = None,
    *,
    top: int | None = None,
    fraction: float | None = None,
    max_loss: float | None = None,
    tokens: int | None = None,
    where: Sequence[str] = (),
    group_by: str | None = None,
    quotas: Mapping[str, int] | None = None,
    by: str = PREDICTION,
    descending: bool = False,
    keep_scores: bool = False,
    overwrite: bool = False,
) -> SelectedDataset:
    """Write the rows with the smallest values, ascending, of a scored set in parts; equal values keep their order.

    The rows are those that ``select`` keeps of the merged file, in the same order and with the same bytes. The parts
    are worked on by tasks of the Ray cluster that this process is connected to; where it is to none, by this process,
    one after the other. No process holds more than the numbers of one part's candidates (28 bytes a row), or the lines
    of one file of the selection. What is interrupted is started over.

    Args:
        scored: the folder of :func:`instructmining_scale.score_dataset`, or of ``score --shard`` or ``--ray``.
        out: a folder, which appears whole: files of about 64 MiB and selection.json.
        choice: which rows are kept; or give its fields as arguments.
        top: as in :class:`instructmining.SelectionOptions`, which explains all seven.
        fraction: likewise.
        max_loss: likewise.
        tokens: likewise.
        where: likewise.
        group_by: likewise.
        quotas: likewise.
        by: column to order by.
        descending: largest values first, for columns where more is better.
        keep_scores: keep the columns of ``score``; without it, rows have the bytes that they had before scoring.
        overwrite: replace OUT.

    Raises:
        PlanError: the folder has no plan, or a part is missing or damaged.
        SelectionError: an argument is wrong, ``distinct`` is asked for, or the rows lack a column or a group.
        InputError: a part cannot be read, or changed meanwhile.
        OutputError: OUT exists or cannot be written.
        RayError: a task was lost again and again.

    Example:
        >>> from instructmining_scale import select_dataset
        >>> select_dataset("/shared/scored", "/shared/best", tokens=10**9).selection.kept  # doctest: +SKIP
    """
    given = {
        "top": top,
        "fraction": fraction,
        "max_loss": max_loss,
        "tokens": tokens,
        "where": where,
        "group_by": group_by,
        "quotas": {} if quotas is None else quotas,
    }
    choice = chosen(choice, given)
    check("by", by, str, wanted="the name of a column")
    if choice.distinct is not None:
        raise SelectionError(
            "distinct compares every row with all rows that were kept before it, so it needs them in one place; merge "
            "the parts and use select, or select more rows here and use select on these"
        )
    if descending and choice.max_loss is not None:
        raise SelectionError("max_loss keeps the smallest values and cannot be combined with descending")
    check_type("out", out, (str, Path), wanted="the path of a folder", error=OutputError)
    target = Path(out).absolute()
    plan = plan_of(str(scored))
    parts = _parts(Path(scored).absolute(), plan)
    with claimed(target):
        if target.exists() and not (overwrite and (target / MARK).exists()):
            raise OutputError(f"{out}: exists; name another folder, or replace a selection with overwrite")
        folder = beside(target)
        scratch = folder / "scratch"
        prefix, sample_bytes = str(plan.identity["prefix"]), max(1, _FILE_BYTES // _SAMPLES)
        question = Question(choice, by, prefix, descending, keep_scores, scratch, sample_bytes)
        try:
            scratch.mkdir(parents=True)
            selecting = _Selecting(question, parts, str(scored))
            selection, mark, files = selecting.written(folder)
            shutil.rmtree(scratch)
            write_whole(folder / MARK, _as_bytes({"scored": {"plan": plan.digest}, **mark}, files))
            put_folder(folder, target)
        except OSError as error:
            raise OutputError(f"{out}: {error.strerror}") from error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return SelectedDataset(target, [target / file.name for file in files], selection)


def _parts(folder: Path, plan: Plan) -> list[Path]:
    """Return the files of the scored rows, in order.

    Raises:
        PlanError: one is missing or damaged.
    """
    parts = finished_parts(str(folder), plan)
    for part in parts:
        part.check(sizes_only=True)
    if not plan.waits:
        return [Path(part.rows) for part in parts if part.count("rows_out")]
    if not (folder / MERGED).exists():
        raise PlanError(
            f"{folder}: its rows wait for the neighbours among all; finish them: instructmining merge {folder} -o "
            f"{folder / MERGED}"
        )
    return [folder / MERGED]


def _as_bytes(content: Mapping[str, object], files: Sequence[Joined]) -> bytes:
    whole = {"instructmining": version("instructmining"), **content, "files": [asdict(file) for file in files]}
    return orjson.dumps(all_utf8(whole), option=orjson.OPT_INDENT_2) + b"\n"


class _Selecting:
    """One selection: what is known of all parts so far."""

    def __init__(self, question: Question, parts: Sequence[Path], name: str) -> None:
        self._question = question
        self._choice = question.choice
        self._parts = parts
        self._name = name
        self._field = question.by
        self._verdicts: Counter[int] = Counter()
        self._rows_before: list[int] = []
        self._rows = 0
        self._groups: dict[str, int] = {} if self._choice.group_by is not None else {"": 0}
        self._candidates: list[int] = []
        self._room: list[int] = []

    def written(self, folder: Path) -> tuple[Selection, dict[str, object], list[Joined]]:
        """Decide on all rows and write those that are kept; returns the counts and the files."""
        self._look()
        limits = self._limits()
        found = self._cut_out(limits)
        files = self._join(folder, {number: kept for number, kept in found.items() if kept.bytes})
        return self._result(list(found.values()), files)

    def _look(self) -> None:
        """Read all parts, and learn what they have together."""
        wanted = [Look(self._question, number, path) for number, path in enumerate(self._parts)]
        has_values, missing, fields = False, None, list[str]()
        candidates: Counter[int] = Counter()
        for number, seen in _in_order(mapped(look, wanted)):
            contents = seen.contents
            self._rows_before.append(self._rows)
            self._rows += contents.rows
            has_values |= contents.has_values
            missing = contents.missing if missing is None else missing & contents.missing
            fields = fields or list(contents.fields)
            self._field = seen.field
            self._verdicts.update(seen.verdicts)
            numbers = [self._groups.setdefault(name, len(self._groups)) for name in seen.groups]
            check_groups(self._name, len(self._groups), self._choice.group_by or "")
            candidates.update(dict(zip(numbers, seen.candidates, strict=True)))
            if self._choice.group_by is not None:
                keep_groups(self._question.scratch, number, numbers)
        of_all = Contents(self._rows, has_values, missing or frozenset(), list(self._groups), fields)
        of_all.check(self._name, self._choice, self._field)
        self._candidates = [candidates[number] for number in range(len(self._groups))]
        self._room = [
            self._choice.room(name, count) for name, count in zip(self._groups, self._candidates, strict=True)
        ]

    def _limits(self) -> Limits:
        """Find where the rows wanted and the budget end."""
        limits = Limits()
        room = np.array(self._room, dtype=np.int64)
        limits = replace(limits, room=find_borders(room, lambda asked: self._ask(limits, asked)))
        limits = replace(limits, room_rows=self._row_borders(limits, limits.room, is_budget=False))
        if self._choice.tokens is None:
            return limits
        budget = np.array([self._choice.tokens], dtype=np.int64)
        limits = replace(limits, budget=find_borders(budget, lambda asked: self._ask(limits, asked, is_budget=True)))
        return replace(limits, budget_rows=self._row_borders(limits, limits.budget, is_budget=True))

    def _row_borders(self, limits: Limits, at: Borders | None, *, is_budget: bool) -> Borders:
        """Find the row at which each group ends, among those with the key of its border."""
        assert at is not None
        bits = max(1, self._rows.bit_length())
        return find_borders(at.left, lambda asked: self._ask(limits, asked, is_budget=is_budget), key_bits=bits)

    def _ask(self, limits: Limits, asked: Round, *, is_budget: bool = False) -> Counts:
        parts = list(enumerate(self._rows_before))
        each = -(-len(parts) // (_ASKED_EACH * cpus())) or 1
        wanted = [
            Ask(self._question, parts[begin : begin + each], limits, is_budget, asked)
            for begin in range(0, len(parts), each)
        ]
        total = np.zeros((len(asked.groups), 1 << asked.bits), dtype=np.int64)
        for _, sums in mapped(ask, wanted):
            total += sums
        return total

    def _cut_out(self, limits: Limits) -> dict[int, Kept]:
        """Have every part write its kept rows."""
        wanted = [
            CutOut(self._question, number, path, self._rows_before[number], limits)
            for number, path in enumerate(self._parts)
        ]
        return dict(sorted(mapped(cut_out, wanted)))

    def _join(self, folder: Path, found: Mapping[int, Kept]) -> list[Joined]:
        """Write the files of the selection."""
        size = sum(kept.bytes for kept in found.values())
        places = np.sort(np.concatenate([np.zeros(0, PLACE), *(kept.sample for kept in found.values())]))
        files = max(1, -(-size // _FILE_BYTES))
        at = [len(places) * number // files for number in range(1, files)]
        cuts: list[Place | None] = [None, *sorted({places[one].item() for one in at})]
        bounds = list(zip(cuts, [*cuts[1:], None], strict=True))
        wanted = [
            Join(
                self._question.scratch, list(found), *bounds[at], folder / f"part-{at + 1:05}-of-{len(bounds):05}.jsonl"
            )
            for at in range(len(bounds))
        ]
        return [joined for _, joined in sorted(mapped(join, wanted), key=lambda done: done[0])]

    def _result(self, found: Sequence[Kept], files: list[Joined]) -> tuple[Selection, dict[str, object], list[Joined]]:
        choice, names = self._choice, list(self._groups)
        verdicts, by_group = self._verdicts.copy(), Counter[int]()
        for kept in found:
            verdicts.update(kept.verdicts)
            by_group.update(kept.groups)
        rows = verdicts[Verdict.KEPT]
        of_group = [by_group[number] for number in range(len(names))]
        is_grouped = choice.group_by is not None
        nothing = ["nothing was kept"] if self._rows and not rows else []
        last = max((kept.last for kept in found if kept.last is not None), default=None)
        tokens = sum(kept.tokens for kept in found) if choice.tokens is not None else None
        selection = Selection(
            rows=self._rows,
            without_value=verdicts[Verdict.NO_VALUE],
            kept=rows,
            worst=None if last is None else last[1],
            left_out=by_reason(dict(sorted(verdicts.items())), choice, self._field),
            tokens=tokens,
            remarks=(*nothing, *short_of_wanted(choice, rows, *((names, of_group) if is_grouped else ()))),
        )
        groups = groups_as_json(names, self._candidates, self._room, of_group) if is_grouped else None
        question = self._question
        mark: dict[str, object] = {
            "choice": choice.as_json(),
            "by": question.by,
            "prefix": question.prefix,
            "descending": question.descending,
            "keep_scores": question.keep_scores,
            "counts": {
                "rows": self._rows,
                "candidates": sum(self._candidates),
                "kept": rows,
                "left_out": dict(selection.left_out),
                "groups": groups,
            },
            "tokens": tokens,
            "worst": selection.worst,
            "remarks": list(selection.remarks),
        }
        return selection, mark, files


def _in_order(results: Iterator[tuple[int, Seen]]) -> Iterator[tuple[int, Seen]]:
    """Yield results in the order of their numbers."""
    waiting: dict[int, Seen] = {}
    wanted = 0
    for number, seen in results:
        waiting[number] = seen
        while wanted in waiting:
            yield wanted, waiting.pop(wanted)
            wanted += 1
