"""Speeds of runs on this machine, cached by bundle and device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson

from instructmining.bundle import Bundle
from instructmining.writing.cache import keep, kept

LEAST_S = 5.0  # a shorter run is mostly start-up


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one run."""

    device: str  # that was used
    at: str  # when, ISO 8601
    tokens_per_s: Mapping[str, float]  # by model pass, in its share of the run's time

    def expected_s(self, tokens: Mapping[str, float]) -> float | None:
        """Return the seconds for tokens of each model pass; None if one of them was not timed."""
        if any(label not in self.tokens_per_s for label in tokens):
            return None
        return sum(count / self.tokens_per_s[label] for label, count in tokens.items())


def keep_speed(
    bundle: Bundle, asked: str, device: str, *, tokens: Mapping[str, int], busy_s: Mapping[str, float], elapsed_s: float
) -> None:
    """Cache the speed of a run that was long enough to measure; if it cannot be written, nothing is cached.

    Args:
        bundle: bundle of the run.
        asked: device as given on the command line.
        device: device that was used.
        tokens: tokens computed, by model pass.
        busy_s: device seconds, by model pass.
        elapsed_s: seconds of the run, without the search for neighbours.
    """
    whole = sum(busy_s.values())
    if elapsed_s < LEAST_S or not whole:
        return
    rates = {label: count / (elapsed_s * busy_s[label] / whole) for label, count in tokens.items() if busy_s.get(label)}
    speed = Speed(device, datetime.now(UTC).isoformat(timespec="seconds"), rates)
    keep(_name(bundle, asked), orjson.dumps(asdict(speed)))


def last_speed(bundle: Bundle, asked: str) -> Speed | None:
    """Return the speed of the last run with this bundle and device; None if there is none."""
    try:
        last = orjson.loads(kept(_name(bundle, asked)) or b"")
        return Speed(str(last["device"]), str(last["at"]), {str(k): float(v) for k, v in last["tokens_per_s"].items()})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _name(bundle: Bundle, asked: str) -> str:
    key = hashlib.sha256(f"{bundle.digest}\n{asked}".encode()).hexdigest()[:32]
    return f"speeds/{key}.json"
