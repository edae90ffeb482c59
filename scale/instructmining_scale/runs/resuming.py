"""Resumes an interrupted run, if it is the same run, with its batch sizes and counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from instructmining import __version__
from instructmining.errors import InputError, ResumeError
from instructmining.inference.batching import Batching
from instructmining.reading.digests import InputPart
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.values import all_utf8
from instructmining.scorer.scorer import Scorer
from instructmining.types import Position
from instructmining.writing.journal import SPOOLED, WRITTEN, Journal
from instructmining_scale.runs.scoring_run import Run

_BUDGET_FROM = "budget_from"  # stored with the identity, but changes no row


def identity_of(
    scorer: Scorer, inputs: Sequence[InputPart], settings: Mapping[str, object], origin: str
) -> dict[str, object]:
    """Return everything that the rows of a run depend on, and where its batch sizes came from."""
    identity = {
        "instructmining": __version__,
        "onnxruntime": scorer.runtime_version,
        "device": scorer.device.kind,
        "bundle": scorer.bundle.digest,
        "rule": f"{scorer.rule.id} {scorer.rule.digest}" if scorer.rule else None,
        "columns": list(scorer.columns),
        "inputs": [part.digest() for part in inputs],
        **settings,
        "batching": asdict(scorer.batching),
        _BUDGET_FROM: origin,
    }
    found: dict[str, object] = all_utf8(identity)
    return found


def check_inputs(identity: Mapping[str, Any], parts: Sequence[InputPart]) -> None:
    """Check that the inputs have not changed; only a file whose state changed is read again.

    Args:
        identity: identity of the run.
        parts: its inputs and the files of ``--knn-against``, as they were when it began.

    Raises:
        InputError: the content of a file changed.
    """
    for part, digest in zip(parts, [*identity["inputs"], *identity["knn_against"]], strict=True):
        if part.changed and all_utf8(part.digest()) != digest:
            raise InputError(
                f"{part.path}: was changed while it was read, so the partial folder has rows of both versions; start "
                "over with --overwrite when nothing writes the file"
            )


def check_identity(kept: Mapping[str, object], identity: Mapping[str, object], out: str) -> None:
    """Check that a run is the same as the earlier one with this OUT.

    Raises:
        ResumeError: it is another run; the message names the difference.
    """
    if found := difference(kept, identity):
        raise ResumeError(f"{out}: was started by another run: {found}; give --overwrite to start over")


def difference(kept: Mapping[str, object], identity: Mapping[str, object]) -> str | None:
    """Name the first difference between the identities of two runs; None where they are the same run."""
    for name, value in identity.items():
        if name != _BUDGET_FROM and kept.get(name) != value:
            return f"{name} was {_short(kept.get(name))}, is now {_short(value)}"
    return None


def kept_budgets(identity: Mapping[str, Any] | None, scorer: Scorer, *, given: int | None) -> str | None:
    """Set the batch sizes of the interrupted run, unless others are given; return where they came from."""
    if identity is None or given is not None or identity.get("instructmining") != __version__:
        return None  # check_identity refuses another version
    scorer.batching = Batching(**identity["batching"])
    return str(identity[_BUDGET_FROM])


def restore(journal: Journal, run: Run, reader: ExampleReader) -> None:
    """Set the counts and the reader to the state of the last commit."""
    written, spooled = journal.marks.get(WRITTEN), journal.marks.get(SPOOLED)
    latest = written or spooled
    if latest is not None:
        run.statistics.restore(latest["statistics"])
    if written is not None:
        run.restore(written)
    elif spooled is not None and run.spools:
        run.restore_spooled(spooled)
    read = spooled or written
    if read is not None and read["end"] is not None:
        reader.begin_after(Position(**read["end"]))
    run.take_over(journal.batches.kept)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
