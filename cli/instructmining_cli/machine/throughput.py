"""Measurements of ``bench``: scores a user's rows repeatedly on a device and discards the results."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import TypeAlias

import numpy as np

from instructmining.bundle import PRECISIONS, Bundle, PrecisionName, Role
from instructmining.errors import InputError
from instructmining.inference.devices import Device
from instructmining.reading.example_reader import ExampleReader
from instructmining.scorer.scorer import Scorer
from instructmining.types import Example
from instructmining.writing.statistics import Statistics
from instructmining_cli.machine.hardware import device_memory_bytes, peak_memory_bytes
from instructmining_cli.machine.peaks import Peak, product_peak

Say: TypeAlias = Callable[[str], None]

USUAL_ROUNDS = 3
LATENCY_ROWS = (1, 8)  # rows per call
_ROUNDS_S = 20.0  # without a given number of rounds, no round starts that would end later
_WARM_UP_ROWS = 8
_LATENCY_S = 3.0  # time for the calls of each size
_CALLS = (3, 200)  # least and most calls of each size
_SAMPLE_FROM, _SAMPLE_ROWS = 1024, 64  # the calls use 64 rows, evenly spaced in the first 1024


@dataclass(frozen=True, slots=True)
class Round:
    """One pass over all rows, from reading to the finished row; nothing is written."""

    seconds: float
    statistics: Statistics
    rows: int
    rejected: int  # by reading and by scoring

    @property
    def rows_per_s(self) -> float:
        """Scored rows per second."""
        return self.rows / self.seconds

    @property
    def tokens_per_s(self) -> float:
        """Tokens per second of all roles, without padding."""
        return self.statistics.tokens.total() / self.seconds

    def seconds_of(self, label: str) -> float:
        """Return the device seconds for the texts of one label of the statistics."""
        stages = self.statistics.seconds.items()
        return sum(seconds for stage, seconds in stages if stage.startswith(f"model:{label}:"))


@dataclass(frozen=True, slots=True)
class Latency:
    """Calls of one size, one after another, on an idle scorer."""

    seconds: tuple[float, ...]  # of each call

    def percentile(self, share: float) -> float:
        """Return the time of a call within which this share of the calls ended."""
        return float(np.quantile(self.seconds, share, method="inverted_cdf"))


@dataclass(frozen=True, slots=True)
class Throughput:
    """The result of a measurement."""

    bundle: Bundle
    devices: tuple[Device, ...]
    rounds: tuple[Round, ...]
    latency: Mapping[int, Latency]  # by rows of a call
    peaks: Mapping[PrecisionName, Peak]  # of the first device, the faster of two: before and after the rounds
    slower_peaks: Mapping[PrecisionName, Peak]  # the slower one; shows how much the speed of the machine changed
    process_peak_bytes: int | None
    device_bytes: Mapping[str, int] = field(default_factory=dict)  # device → bytes in use after the rounds, if known

    @property
    def typical(self) -> Round:
        """The round with the median time; of two, the slower one."""
        return sorted(self.rounds, key=lambda round_: round_.seconds)[len(self.rounds) // 2]

    @property
    def busy_share(self) -> float:
        """Share of the typical round in which the devices computed, 0..1."""
        return sum(self.typical.statistics.busy.values()) / self.typical.seconds / len(self.devices)

    def role(self, label: str) -> Role:
        """Return the role whose graph a label of the statistics names."""
        return next(role for name, role in self.bundle.roles.items() if name in label.split("+"))

    def share_of_peak(self, labels: Iterable[str]) -> float | None:
        """Return the time that products with weights would take at the device's peak, over the time of the models.

        Products of padding count as work. Attention's own products and everything else in the graphs do not, but their
        time does.

        Args:
            labels: labels of the typical round's statistics.

        Returns:
            A share in 0..1; None if the bundle does not state the number of products.
        """
        ideal = actual = 0.0
        for label in labels:
            products = self._multiply_adds(label)
            if products is None:
                return None
            ideal += products / self.peaks[_precision(self.role(label))].multiply_adds_per_s
            actual += self.typical.seconds_of(label)
        return ideal / actual if actual else None

    def _multiply_adds(self, label: str) -> int | None:
        each, done = self.role(label).multiply_adds, self.typical.statistics
        if not each:
            return None
        return (
            each["token"] * done.padded[label] + each["scored"] * done.scored[label] + each["row"] * done.texts[label]
        )


def measure_throughput(
    scorer: Scorer,
    read: Callable[[], ExampleReader],
    *,
    rounds: int | None = None,
    say: Say = lambda _: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Throughput:
    """Score all rows several times after a short warm-up, then single calls of a few rows; discard the results.

    Args:
        scorer: open scorer on the devices to measure.
        read: opens the input again; bad rows are counted, so it must not raise for them.
        rounds: number of rounds; by default :data:`USUAL_ROUNDS`, or fewer if they would take over 20 seconds.
        say: called with a line for each step.
        clock: returns seconds.

    Raises:
        InputError: no row can be scored.
        DeviceError: a graph, or the product that measures the peak, fails on the device.
    """
    sample = [example for example in islice(read(), _SAMPLE_FROM) if example.has_response]
    if not sample:
        raise InputError("the input holds no row that can be scored; bench needs at least one")
    say(f"warming up on {min(len(sample), _WARM_UP_ROWS)} rows")
    _drain(scorer, sample[:_WARM_UP_ROWS], Statistics())
    say(f"measuring the peak of {scorer.device}")
    used = [name for name in PRECISIONS if name in scorer.precisions]
    before = {name: product_peak(scorer.device, name) for name in used}
    done = list(_rounds(scorer, read, rounds, say, clock))
    say(f"timing calls of {' and '.join(map(str, LATENCY_ROWS))} rows")
    steps = np.linspace(0, len(sample) - 1, min(len(sample), _SAMPLE_ROWS)).astype(int).tolist()
    spread = [sample[step] for step in steps]
    latency = {rows: _latency(scorer, spread, rows, clock) for rows in LATENCY_ROWS}
    process, devices = peak_memory_bytes(), {str(device): device_memory_bytes(device) for device in scorer.devices}
    say(f"measuring the peak of {scorer.device} again")
    both = {
        name: sorted((peak, product_peak(scorer.device, name)), key=lambda measured: measured.multiply_adds_per_s)
        for name, peak in before.items()
    }
    return Throughput(
        bundle=scorer.bundle,
        devices=scorer.devices,
        rounds=tuple(done),
        latency=latency,
        peaks={name: faster for name, (_, faster) in both.items()},
        slower_peaks={name: slower for name, (slower, _) in both.items()},
        process_peak_bytes=process,
        device_bytes={name: used_bytes for name, used_bytes in devices.items() if used_bytes is not None},
    )


def _rounds(
    scorer: Scorer, read: Callable[[], ExampleReader], rounds: int | None, say: Say, clock: Callable[[], float]
) -> Iterator[Round]:
    spent = 0.0
    for number in range(rounds or USUAL_ROUNDS):
        if rounds is None and number and spent * (number + 1) / number > _ROUNDS_S:
            return
        say(f"round {number + 1} of {rounds or f'up to {USUAL_ROUNDS}'}")
        statistics, reader, begin = Statistics(), read(), clock()
        rows = _drain(scorer, reader, statistics)
        seconds = clock() - begin
        spent += seconds
        yield Round(seconds, statistics, rows, reader.rejected + statistics.rows_rejected)


def _latency(scorer: Scorer, examples: Sequence[Example], rows: int, clock: Callable[[], float]) -> Latency:
    """Time calls of some rows each, cycling through the examples."""
    source = cycle(examples)
    least, most = _CALLS
    spent: list[float] = []
    while len(spent) < least or (len(spent) < most and sum(spent) < _LATENCY_S):
        batch = list(islice(source, rows))
        begin = clock()
        _drain(scorer, batch, Statistics())
        spent.append(clock() - begin)
    return Latency(tuple(spent))


def _drain(scorer: Scorer, examples: Iterable[Example], statistics: Statistics) -> int:
    """Score and discard rows and return their number; rejected rows are counted in the statistics."""
    return sum(1 for _ in scorer.score(examples, on_reject=lambda _: None, statistics=statistics))


def _precision(role: Role) -> PrecisionName:
    return next(name for name in PRECISIONS if name == role.precision)
