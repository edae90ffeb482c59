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
    """The last speed of each model pass."""

    device: str  # of the last run
    at: str  # when the last run was, ISO 8601
    tokens_per_s: Mapping[str, float]  # by model pass, in its share of its run's time

    def expected_s(self, tokens: Mapping[str, float]) -> float | None:
        """Return the seconds for tokens of each model pass; None if one of them was not timed.

        A pass that was timed only together with others takes their speed, so that the seconds are at most these.
        """
        rates = [(count, self._rate(label)) for label, count in tokens.items()]
        if any(rate is None for _, rate in rates):
            return None
        return sum(count / rate for count, rate in rates if rate)

    def at_most(self, tokens: Mapping[str, float]) -> bool:
        """Whether a pass has only the speed of a pass with more roles, which takes longer."""
        return any(label not in self.tokens_per_s for label in tokens)

    def _rate(self, label: str) -> float | None:
        if label in self.tokens_per_s:
            return self.tokens_per_s[label]
        roles = set(label.split("+"))
        return max((rate for other, rate in self.tokens_per_s.items() if roles <= set(other.split("+"))), default=None)


def keep_speed(
    bundle: Bundle, asked: str, device: str, *, tokens: Mapping[str, int], busy_s: Mapping[str, float], elapsed_s: float
) -> None:
    """Cache the speed of a run that was long enough to measure; if it cannot be written, nothing is cached.

    The speeds of passes that this run did not compute are kept, if the device is of the same kind.

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
    before = last_speed(bundle, asked)
    if before is not None and before.device.partition(" ")[0] == device.partition(" ")[0]:
        rates = {**before.tokens_per_s, **rates}
    speed = Speed(device, datetime.now(UTC).isoformat(timespec="seconds"), rates)
    keep(_name(bundle, asked), orjson.dumps(asdict(speed)))


def last_speed(bundle: Bundle, asked: str) -> Speed | None:
    """Return the last speeds with this bundle and device; None if there are none."""
    try:
        last = orjson.loads(kept(_name(bundle, asked)) or b"")
        return Speed(str(last["device"]), str(last["at"]), {str(k): float(v) for k, v in last["tokens_per_s"].items()})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _name(bundle: Bundle, asked: str) -> str:
    key = hashlib.sha256(f"{bundle.digest}\n{asked}".encode()).hexdigest()[:32]
    return f"speeds/{key}.json"
