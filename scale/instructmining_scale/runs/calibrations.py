"""Measured batch sizes, cached between runs by bundle, device, threads and versions."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Literal, TypeAlias

import orjson

from instructmining import __version__
from instructmining.inference.batching import Batching
from instructmining.inference.calibration import one_budget
from instructmining.reading.compression import file_size, is_pipe
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining.scorer.scorer import Scorer
from instructmining.types import Reject
from instructmining.writing.cache import keep, kept

Origin: TypeAlias = Literal["given", "measured before", "measured", "usual"]
_CALIBRATE_FROM_BYTES = 1 << 20  # about a thousand rows, a minute or more of work


def choose_budgets(
    scorer: Scorer,
    inputs: Sequence[str],
    fields: FieldOptions,
    *,
    given: int | None,
    limit: int | None,
    options: ReadOptions,
    say: Callable[[str], None],
) -> Origin:
    """Set the scorer's batch sizes: as given, as measured before for its bundle and device, or measured now.

    They are measured only if the input is long enough and can be read twice; otherwise the defaults are kept.

    Returns:
        Where the batch sizes came from.
    """
    if given is not None:
        scorer.batching = replace(one_budget(scorer.batching, given), enough_tokens=None)
        return "given"
    name = f"budgets/{_key(scorer)}.json"
    cached = _read(kept(name), scorer.batching)
    if cached is not None:
        scorer.batching = cached
        return "measured before"
    if any(map(is_pipe, inputs)) or limit is not None or sum(map(file_size, inputs)) < _CALIBRATE_FROM_BYTES:
        return "usual"
    say("finding the fastest batch size on this device, once")
    examples = read_examples(inputs, fields=fields, options=options, on_reject=_pass)
    found = scorer.calibrate(islice(examples, scorer.batching.window_rows))
    keep(name, orjson.dumps(found.max_batch_tokens))
    return "measured"


def _key(scorer: Scorer) -> str:
    """Return a digest of everything that the best batch size depends on."""
    roles = ",".join(sorted(scorer.batching.max_batch_tokens))
    devices = ",".join(map(str, scorer.devices))
    parts = (scorer.bundle.digest, devices, scorer.runtime_version, __version__, roles)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _read(content: bytes | None, batching: Batching) -> Batching | None:
    """Return the cached batch sizes; None if they are damaged or for other roles."""
    try:
        budgets = orjson.loads(content or b"")
    except orjson.JSONDecodeError:
        return None
    if not isinstance(budgets, dict) or budgets.keys() != batching.max_batch_tokens.keys():
        return None
    if not all(isinstance(budget, int) and budget > 0 for budget in budgets.values()):
        return None
    return replace(batching, max_batch_tokens=budgets)


def _pass(_: Reject) -> None:
    """Ignore a bad row; the run itself reports it."""
