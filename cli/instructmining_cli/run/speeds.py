"""How fast runs were on this machine, kept between them: by bundle and device."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import orjson

from instructmining.bundle import Bundle
from instructmining.writing.cache import keep, kept

_WORTH_KEEPING_S = 5.0  # a shorter run is mostly its beginning


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one run."""

    device: str  # as it was measured
    at: str  # when, ISO 8601
    tokens_per_s: Mapping[str, float]  # by model pass, while the other passes ran beside it in their turn

    def expected_s(self, tokens: Mapping[str, float]) -> float | None:
        """Seconds for so many tokens of each model pass; None where one was never timed."""
        if any(label not in self.tokens_per_s for label in tokens):
            return None
        return sum(count / self.tokens_per_s[label] for label, count in tokens.items())


def keep_speed(
    bundle: Bundle, asked: str, device: str, *, tokens: Mapping[str, int], busy_s: Mapping[str, float], elapsed_s: float
) -> None:
    """Remember a run's speed, where it was long enough to tell; a cache that cannot be written costs only that.

    Args:
        bundle: that was used.
        asked: the device as it was asked for.
        device: the device as it was measured.
        tokens: computed, by model pass.
        busy_s: seconds of devices, by model pass.
        elapsed_s: seconds of the run.
    """
    whole = sum(busy_s.values())
    if elapsed_s < _WORTH_KEEPING_S or not whole:
        return
    rates = {label: count / (elapsed_s * busy_s[label] / whole) for label, count in tokens.items() if busy_s.get(label)}
    speed = Speed(device, datetime.now(UTC).isoformat(timespec="seconds"), rates)
    keep(_name(bundle, asked), orjson.dumps(asdict(speed)))


def last_speed(bundle: Bundle, asked: str) -> Speed | None:
    """Of the last run with this bundle on the device that is asked for; None where there was none."""
    try:
        said = orjson.loads(kept(_name(bundle, asked)) or b"")
        return Speed(str(said["device"]), str(said["at"]), {str(k): float(v) for k, v in said["tokens_per_s"].items()})
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None


def _name(bundle: Bundle, asked: str) -> str:
    key = hashlib.sha256(f"{bundle.digest}\n{asked}".encode()).hexdigest()[:32]
    return f"speeds/{key}.json"
