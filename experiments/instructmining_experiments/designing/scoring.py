"""Scores the pool once, into ``scored.jsonl``; what an interrupted run scored is kept and not scored again."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeAlias

import orjson

from instructmining import __version__
from instructmining.bundle import Bundle
from instructmining.bundle.digests import sha256_of
from instructmining.errors import InputError, OutputError
from instructmining.inference.devices import runtime_version
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.reading.values import dumps
from instructmining.scorer.scorer import Scorer
from instructmining.types import Example, InputWindow, Position, Reject
from instructmining.writing.journal import SPOOLED, WRITTEN
from instructmining.writing.run_writer import RunWriter
from instructmining.writing.statistics import Statistics
from instructmining_experiments.state.plan import PoolFile
from instructmining_experiments.state.pool import LENGTHS, SCORED

Progress: TypeAlias = Callable[[str, float], None]  # what is being done, and the share of it that is done
_VERSIONS = "versions"  # an interrupted run continues with the same alone; a finished one may be of others


@dataclass(slots=True)
class _Counts:
    """Rows so far, as the journal stores them."""

    windows: int = 0
    rejected: int = 0
    reason: str = ""  # of the first rejected row
    rows: Counter[str] = field(default_factory=Counter)  # file → rows that were scored
    statistics: Statistics = field(default_factory=Statistics)


def versions() -> dict[str, str]:
    """Return the versions that values and draws depend on."""
    return {
        "instructmining": __version__,
        "python": platform.python_version(),
        "numpy": version("numpy"),
        "onnxruntime": runtime_version(),
    }


def score_pool(
    folder: Path,
    files: Sequence[str],
    *,
    bundle: Bundle,
    indicators: Sequence[str],
    device: str,
    overwrite: bool = False,
    progress: Progress,
) -> tuple[PoolFile, ...]:
    """Score the rows of all files, in order, into ``scored.jsonl``: their turns as messages, their line and columns.

    A file that is there and holds the same rows and columns is left as it is.

    Args:
        folder: of the experiment.
        files: of the pool, then the evaluation files.
        bundle: whose roles are used.
        indicators: columns to compute, besides the lengths.
        device: as :meth:`Scorer.open` takes it.
        overwrite: replace a scored pool of other rows, columns or another bundle.
        progress: called after each batch.

    Returns:
        The files, with the number of their rows that could be scored.

    Raises:
        InputError: a file cannot be read, has no row that can be scored, holds preference pairs, or was changed.
        OutputError: the folder holds another scored pool, or the disk refuses it.
        BundleError: the bundle lacks a role.
    """
    out = folder / SCORED
    columns = list(dict.fromkeys([*LENGTHS, *indicators]))
    identity: dict[str, object] = {
        "bundle": bundle.digest,
        "columns": columns,
        "rows": [digest_of(file) for file in files],
        _VERSIONS: versions() | {"device": device},
    }
    with ExitStack() as stack:
        writer = stack.enter_context(RunWriter(str(out), resume=True, inputs=files, reads=[bundle.path]))
        if writer.identity is not None and (other := _difference(writer.identity, identity, finished=writer.finished)):
            if not overwrite:
                raise OutputError(
                    f"{out}: holds scores of {other}; name another folder, or give --overwrite to score again"
                )
            stack.close()
            writer = stack.enter_context(RunWriter(str(out), overwrite=True, inputs=files, reads=[bundle.path]))
        if not writer.finished:
            scorer = stack.enter_context(Scorer.open(bundle, indicators=columns, device=device))
            _score(writer, scorer, files, identity, progress)
    return _scored(out)


def digest_of(file: str) -> str:
    """Return the SHA-256 of a file of rows.

    Raises:
        InputError: it cannot be read.
    """
    if not Path(file).is_file():
        raise InputError(f"{file}: No such file; an experiment reads files, more than once")
    try:
        return sha256_of(Path(file))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from error


def _difference(kept: Mapping[str, object], identity: Mapping[str, object], *, finished: bool) -> str | None:
    """Return what differs from an earlier run; None if nothing that matters does."""
    names = {"rows": "other rows", "columns": "other columns", "bundle": "another bundle"}
    for name, value in identity.items():
        if kept.get(name) != value and not (finished and name == _VERSIONS):
            return names.get(name, "another version or device")
    return None


def _score(
    writer: RunWriter, scorer: Scorer, files: Sequence[str], identity: Mapping[str, object], progress: Progress
) -> None:
    reader = read_examples(list(files))
    reader.look()
    counts = _Counts()
    if writer.journal is not None:
        _restore(writer.journal.marks, counts, reader)
    writer.begin(identity)

    def report(statistics: Statistics) -> None:
        if statistics.neighbours_done:
            progress("searching neighbours", statistics.neighbours_done / statistics.neighbours_wanted)
        elif reader.rows_expected:
            progress("scoring", min(1.0, statistics.rows_computed / reader.rows_expected))

    windows = scorer.score_windows(
        map(_plain, reader.windows(scorer.batching.window_rows)),
        on_progress=report,
        statistics=counts.statistics,
        journal=writer.journal,
    )
    with closing(windows):
        for window in windows:
            rows = list(scorer.rows(window))
            writer.write(rows, window.rejects)
            counts.windows += 1
            counts.rejected += len(window.rejects)
            counts.reason = counts.reason or next((reject.reason for reject in window.rejects), "")
            counts.rows.update(row.example.row.source for row in rows if row.example.row is not None)
            if writer.journal is not None and writer.journal.due:
                writer.commit(_mark(counts, window.end))
    if not counts.rows:
        why = f"; the first because {counts.reason}" if counts.reason else ""
        raise InputError(f"{', '.join(files)}: no row can be scored{why}")
    digests = [digest_of(file) for file in files]
    if digests != identity["rows"]:
        raise InputError(f"{', '.join(files)}: changed while they were scored; give --overwrite to score them again")
    found = [PoolFile(file, digest, counts.rows[file]) for file, digest in zip(files, digests, strict=True)]
    writer.finish({"identity": identity, "files": [asdict(one) for one in found], "rejected": counts.rejected})


def _plain(window: InputWindow) -> InputWindow:
    """Return a window whose rows are messages, so that files of several shapes become one."""
    return replace(window, items=[_as_messages(item) for item in window.items])


def _as_messages(item: Example | Reject) -> Example | Reject:
    if isinstance(item, Reject) or item.row is None:
        return item
    if item.rejected is not None:
        raise InputError(
            f"{item.row.source}, line {item.row.line}: is a preference pair; an experiment fine-tunes on rows with one "
            "response each"
        )
    messages = [{"role": turn.role, "content": turn.text} for turn in item.turns]
    return Example(item.turns, replace(item.row, raw=dumps({"messages": messages, "line": item.row.line}), fields={}))


def _mark(counts: _Counts, end: Position | None) -> dict[str, object]:
    return {
        "end": asdict(end) if end is not None else None,
        "windows": counts.windows,
        "rejected": counts.rejected,
        "reason": counts.reason,
        "rows": dict(counts.rows),
        "statistics": counts.statistics.as_json(),
    }


def _restore(marks: Mapping[str, Any], counts: _Counts, reader: ExampleReader) -> None:
    written, spooled = marks.get(WRITTEN), marks.get(SPOOLED)
    if (latest := written or spooled) is not None:
        counts.statistics.restore(latest["statistics"])
    if written is not None:
        counts.windows, counts.rejected, counts.reason = written["windows"], written["rejected"], written["reason"]
        counts.rows.update(written["rows"])
    read = spooled or written
    if read is not None and read["end"] is not None:
        reader.begin_after(Position(**read["end"]))


def _scored(out: Path) -> tuple[PoolFile, ...]:
    file = Path(f"{out}.run.json")
    try:
        said = orjson.loads(file.read_bytes())
        return tuple(PoolFile(**one) for one in said["files"])
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise InputError(f"{file}: does not say what {SCORED} holds; give --overwrite to score again") from error
