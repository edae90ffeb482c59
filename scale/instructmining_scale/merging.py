"""Merges the parts of a run in shards into the files that one run would have written."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from instructmining.errors import OutputError
from instructmining.reading.compression import opened
from instructmining.stores.addresses import folder_of, is_address, name_of, plain
from instructmining.stores.files import open_file
from instructmining.writing.destinations import Destination
from instructmining.writing.run_writer import RunWriter
from instructmining_scale.finishing import Finishing
from instructmining_scale.pairs import Pairs, Report
from instructmining_scale.parts import AGAIN, Part, check_count, check_inputs, finished_parts, plan_of
from instructmining_scale.plan import Plan, PlanError
from instructmining_scale.waiting import WaitingPart

_CHUNK = 1 << 20
_COUNTS = ("rows_in", "rows_out", "rows_rejected", "rows_from_before", "blank_lines")
_SUMS = ("batches", "batches_split_for_memory", "texts_retried")
_OF_ALL = ("versions", "bundle", "rule", "caution")  # of the run file, what is the same for all parts


@dataclass(frozen=True, slots=True)
class Merged:
    """What was merged."""

    parts: int
    rows: int
    rejects: int


def merge(
    folder: str, out: str, *, overwrite: bool = False, device: str = "cpu", report: Report = lambda _: None
) -> Merged:
    """Check that all parts of a folder are there and of one run, and join them in the order of the input.

    Where columns need the neighbours among the rows of all shards, these are searched here. OUT and its rejects are
    those of one run to the byte, but for a gzip OUT of parts that are not gzip: then the same lines are compressed in
    other pieces.

    Args:
        folder: that ``score --shard`` wrote to.
        out: a path ending in .jsonl, .parquet, .csv or .tsv, text also .gz or .zst, or "-" for standard output.
        overwrite: replace OUT.
        device: of a search for neighbours, "auto", "cpu" or "cuda".
        report: called while neighbours are searched.

    Raises:
        PlanError: the folder has no plan, or a part is missing, incomplete or of another run.
        OutputError: OUT exists or cannot be written, or the parts are Parquet files.
    """
    folder = plain(folder)
    plan = plan_of(folder)
    parts = finished_parts(folder, plan)
    is_stored = is_address(folder)
    for part in parts:
        part.check(sizes_only=is_stored)
    check_inputs(parts)
    if plan.suffix == ".parquet" and not plan.waits:
        raise OutputError(f"{folder}: its parts are Parquet files, which are not merged; read them as they are")
    prefix = str(plan.identity["prefix"])
    inputs = [path for path, _ in plan.files]
    place = Destination.of(out, resumes=False)
    with ExitStack() as stack:
        stack.enter_context(place.begun(overwrite=overwrite, resume=False, reads=[folder, *inputs]))
        writer = stack.enter_context(
            RunWriter(
                place.here,
                prefix=prefix,
                overwrite=overwrite or place.is_stored,
                inputs=inputs,
                reads=[folder],
                restarts=True,
            )
        )
        writer.begin({})
        if plan.waits:
            here = [stack.enter_context(part.here()) for part in parts]
            waiting = Finishing(Path(folder_of(here[0].rows)), plan, waiting_parts(plan, here), device)
            nulls = _finish(waiting, here, writer, report)
        else:
            nulls = _join(plan, parts, writer, out)
        writer.finish(_run_file(plan, parts, nulls), with_digests=place.is_stored)
        place.deliver()
    return Merged(len(parts), _sum(parts, "rows_out"), _sum(parts, "rows_rejected"))


def _join(plan: Plan, parts: Sequence[Part], writer: RunWriter, out: str) -> Mapping[str, float]:
    """Copy the rows and rejects of all parts; returns the rows by column that is null."""
    for part, lines in zip(parts, _lines_before(parts), strict=True):
        with part.here() as here:
            _copy_rows(here, writer, is_same=out.endswith(plan.suffix))
            _copy_rejects(here, writer, lines, of_file=_first_file(plan, part))
    return _added(part.run["counts"]["null"] for part in parts)


def _finish(finishing: Finishing, parts: Sequence[Part], writer: RunWriter, report: Report) -> Mapping[str, float]:
    """Write the rows that wait for their neighbours; returns the rows by column that is null."""
    nulls: Counter[str] = Counter()
    written, rejected = 0, 0
    folder = folder_of(parts[0].rows)
    with ExitStack() as stack:
        if writer.journal is not None:
            scratch = writer.journal.folder
        else:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="instructmining-", dir=folder)))
        for rows, rejects in finishing.windows(scratch, report):
            writer.write(rows, rejects)
            written, rejected = written + len(rows), rejected + len(rejects)
            for row in rows:
                nulls.update(row.notes.keys())
    check_count(folder, written, _sum(parts, "rows_out"), "rows")
    check_count(folder, rejected, _sum(parts, "rows_rejected"), "rejects")
    return nulls


def pairs_of(folder: str, device: str) -> Pairs:
    """Return the pairs of a folder's shards.

    Raises:
        PlanError: a part is missing, or the run searches no neighbours in pairs.
        DeviceError: the device does not work here.
    """
    if is_address(folder):
        raise PlanError(f"{folder}: is in a store; copy it to a disk to search in pairs, or merge it as it is")
    plan = plan_of(folder)
    if not plan.waits:
        raise PlanError(f"{folder}: no column of this run needs the neighbours among all rows")
    finished = finished_parts(folder, plan)
    for part in finished:
        part.check(sizes_only=True)
    parts = waiting_parts(plan, finished)
    pairs = Finishing(Path(folder), plan, parts, device).pairs
    if pairs is None:
        raise PlanError(
            f"{folder}: neighbours in pools, of prompts alone, or by an index are searched by merge, not in pairs"
        )
    return pairs


def waiting_parts(plan: Plan, parts: Sequence[Part]) -> list[WaitingPart]:
    """Return the parts as what waits for the neighbours among all."""
    return [
        WaitingPart(Path(part.rows), part.run, lines, _first_file(plan, part))
        for part, lines in zip(parts, _lines_before(parts), strict=True)
    ]


def _lines_before(parts: Sequence[Part]) -> list[int]:
    """Return for each part the lines, before it, of the file that it begins in."""
    found, lines = [], 0
    for part in parts:
        found.append(lines if part.begin.at else 0)
        lines = part.lines + (lines if part.is_inside_a_file else 0)
    return found


def _first_file(plan: Plan, part: Part) -> str:
    """Return the file inside which a part begins, as rejects name it."""
    return plan.files[part.begin.file][0] if part.begin.at else ""


def _copy_rows(part: Part, writer: RunWriter, *, is_same: bool) -> None:
    """Copy the rows of a part, as they are stored where OUT is stored so too.

    Raises:
        PlanError: they are not as many as the part's run file says.
    """
    wanted = part.count("rows_out")
    if not wanted:
        return
    rows = 0
    with opened(part.rows) as source:
        for lines in _whole_lines(source.stream):
            rows += lines.count(b"\n")
            if not is_same:
                writer.write_lines(lines)
    check_count(part.rows, rows, wanted, "rows")
    if is_same:
        with open_file(part.rows) as file:
            while some := file.read(_CHUNK):
                writer.write_lines(some, is_packed=True)


def _copy_rejects(part: Part, writer: RunWriter, lines: int, *, of_file: str) -> None:
    """Copy the rejects of a part; their lines count from the beginning of the file.

    Args:
        part: whose rejects.
        writer: of OUT.
        lines: of the file that the part begins in, before the part.
        of_file: that file, as rejects name it.

    Raises:
        PlanError: they are not as many as the part's run file says.
    """
    rejects = 0
    try:
        with open_file(part.rejects) as file:
            for line in file:
                rejects += 1
                writer.write_rejects(_later(line, lines, of_file) if lines else line)
    except FileNotFoundError as error:
        raise PlanError(f"{part.rejects}: is missing; {AGAIN}") from error
    check_count(part.rejects, rejects, part.count("rows_rejected"), "rejects")


def _later(line: bytes, lines: int, of_file: str) -> bytes:
    reject = orjson.loads(line)
    if reject["source"] != of_file:
        return line
    return orjson.dumps(reject | {"line": reject["line"] + lines}) + b"\n"


def _whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a stream in pieces that end where lines do."""
    rest = b""
    while some := stream.read(_CHUNK):
        whole, newline, after = some.rpartition(b"\n")
        if newline:
            yield rest + whole + newline
            rest = after
        else:
            rest += some
    if rest:
        yield rest


def _run_file(plan: Plan, parts: Sequence[Part], nulls: Mapping[str, float]) -> dict[str, object]:
    """Return a run file with the sums of the parts' counts."""
    runs = [part.run for part in parts]
    counts: dict[str, object] = {name: _sum(parts, name) for name in _COUNTS}
    counts["null"] = dict(nulls)
    counts["truncated"] = _added(run["counts"]["truncated"] for run in runs)
    inputs = [source for run in runs for source in run["identity"]["inputs"]]
    not_read: dict[str, Counter[str]] = {}
    for run in runs:
        for path, fields in run["counts"].get("not_read", {}).items():
            not_read.setdefault(path, Counter()).update(fields)
    counts["not_read"] = {path: dict(fields) for path, fields in not_read.items()}
    return {
        "started_at": min(run["started_at"] for run in runs),
        **{name: runs[0][name] for name in _OF_ALL},
        "settings": {name: value for name, value in runs[0]["settings"].items() if name != "shard"},
        "device": ", ".join(dict.fromkeys(run["device"] for run in runs)),
        "counts": counts,
        "tokens": _added(run["tokens"] for run in runs),
        **{name: sum(run[name] for run in runs) for name in _SUMS},
        "seconds": _added(run["seconds"] for run in runs),
        "merged_from": [{"part": name_of(part.rows), "device": part.run["device"]} for part in parts],
        "identity": {**plan.identity, "inputs": inputs},
    }


def _added(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add counts by name; unlike the sum of counters, it keeps zeros."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(total)


def _sum(parts: Sequence[Part], name: str) -> int:
    return sum(part.count(name) for part in parts)
