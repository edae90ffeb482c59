"""The result of ``bench`` as a table and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from instructmining.scored.aligning import wrapped
from instructmining.scorer.scorer import Scorer
from instructmining_cli.machine.diagnosis import versions
from instructmining_cli.machine.hardware import device_name
from instructmining_cli.machine.throughput import Throughput

_PERCENTILES = {"p50": 0.5, "p95": 0.95}
_STEADY = 0.8  # if the slower peak is below this share of the faster, the machine's speed changed


@dataclass(frozen=True, slots=True)
class BenchReport:
    """A measurement and what was measured."""

    found: Throughput
    scorer: Scorer
    inputs: Sequence[str]
    limit: int
    rows_read: int  # in one round, bad ones included

    def as_json(self) -> dict[str, object]:
        """Return all figures (seconds, bytes, shares in 0..1), of the typical round unless named otherwise."""
        found, round_ = self.found, self.found.typical
        statistics = round_.statistics
        share = found.share_of_peak(statistics.tokens)
        return {
            "versions": versions(),
            "devices": {str(device): device_name(device) for device in found.devices},
            "nodes": {roles: placement.as_json() for roles, placement in self.scorer.placements.items()},
            "bundle": {"path": str(found.bundle.path), "name": found.bundle.name, "digest": found.bundle.digest},
            "settings": {
                "inputs": list(self.inputs),
                "limit": self.limit,
                "columns": list(self.scorer.columns),
                **asdict(self.scorer.batching),
            },
            "rounds": [
                {"seconds": _short(round_.seconds), "rows_per_s": _short(round_.rows_per_s)} for round_ in found.rounds
            ],
            "rows": {"read": self.rows_read, "scored": round_.rows, "rejected": round_.rejected},
            "rows_per_s": _short(round_.rows_per_s),
            "tokens_per_s": _short(round_.tokens_per_s),
            "padding_share": _short(statistics.padding_share),
            "seconds": {stage: _short(seconds) for stage, seconds in statistics.seconds.items()},
            "busy_share": _short(found.busy_share),
            "share_of_peak": None if share is None else _short(share),
            "peak_gflop_per_s": {name: _short(peak.gflop_per_s) for name, peak in found.peaks.items()},
            "slower_peak_gflop_per_s": {name: _short(peak.gflop_per_s) for name, peak in found.slower_peaks.items()},
            "roles": {label: self._role(label) for label in statistics.tokens},
            "memory_bytes": {"process_peak": found.process_peak_bytes, "devices_in_use": dict(found.device_bytes)},
            "latency_ms": {
                str(rows): {
                    "calls": len(latency.seconds),
                    **{name: _short(1e3 * latency.percentile(share)) for name, share in _PERCENTILES.items()},
                }
                for rows, latency in found.latency.items()
            },
        }

    def table(self, width: int | None = None) -> Iterator[str]:
        """Yield the lines of the table, wrapped at the width if there is one."""
        lines = [*self._heading(), *self._speeds(), *self._roles(), *self._stages(), *self._costs()]
        indent = 2 + max(len(name) for name, _ in lines)
        for name, value in lines:
            yield wrapped(f"{name:<{indent}}{value}", width, indent=indent)

    @property
    def left_out(self) -> str | None:
        """What a longer bench would also measure; None if all rows were read and there was more than one round."""
        parts = []
        if self.rows_read >= self.limit:
            parts.append(f"rows beyond the first {self.limit:,} (--limit)")
        if len(self.found.rounds) == 1:
            parts.append("a second round, so the spread is not known (--rounds)")
        return "; ".join(parts) or None

    def _heading(self) -> Iterator[tuple[str, str]]:
        for device in self.found.devices:
            yield "device", f"{device}, {device_name(device)}"
        for roles, placement in self.scorer.placements.items():
            yield f"graph of {roles}", str(placement)
        yield "bundle", f"{self.found.bundle.name}, digest {self.found.bundle.digest[:12]}"
        yield "columns", ", ".join(self.scorer.columns)

    def _speeds(self) -> Iterator[tuple[str, str]]:
        found, round_ = self.found, self.found.typical
        rejected = f", {round_.rejected:,} of {self.rows_read:,} rejected" if round_.rejected else ""
        yield "rows", f"{round_.rows:,} in {round_.seconds:.2f} s{rejected}"
        speeds = sorted(one.rows_per_s for one in found.rounds)
        spread = f" ({speeds[0]:,.1f} to {speeds[-1]:,.1f} in {len(speeds)} rounds)" if len(speeds) > 1 else ""
        yield "rows/s", f"{round_.rows_per_s:,.1f}{spread}"
        yield "tokens/s", f"{round_.tokens_per_s:,.0f} of all roles"
        yield "padding", f"{round_.statistics.padding_share:.1%} of what was computed"
        yield "device busy", f"{found.busy_share:.1%} of the time"
        if found.peaks:
            yield "share of peak", _share(found.share_of_peak(round_.statistics.tokens))
        else:
            yield "share of peak", "none: no model ran"
        for name, peak in found.peaks.items():
            shape = f"{peak.rows:,} rows by {peak.size:,} x {peak.size:,}"
            slower, unsteady = found.slower_peaks[name].gflop_per_s, ""
            if slower < _STEADY * peak.gflop_per_s:
                unsteady = (
                    f"; {slower:,.0f} at another time: the speed of the machine changed, so the share is uncertain"
                )
            yield f"peak, {name}", f"{peak.gflop_per_s:,.0f} GFLOP/s of matrix products ({shape}){unsteady}"

    def _roles(self) -> Iterator[tuple[str, str]]:
        for label in self.found.typical.statistics.tokens:
            figures = self._role(label)
            yield (
                label,
                f"{figures['tokens']:,} tokens, {figures['tokens_per_s']:,.0f}/s while they run, "
                f"padding {figures['padding_share']:.1%}, share of peak {_share(self.found.share_of_peak([label]))}",
            )

    def _stages(self) -> Iterator[tuple[str, str]]:
        for stage, seconds in sorted(self.found.typical.statistics.seconds.items(), key=lambda item: -item[1]):
            yield f"  {stage}", f"{seconds:.3f} s"

    def _costs(self) -> Iterator[tuple[str, str]]:
        yield "peak memory", f"{_bytes(self.found.process_peak_bytes)} of this process"
        for device, used_bytes in self.found.device_bytes.items():
            yield f"memory of {device}", f"{_bytes(used_bytes)} in use, by all programs"
        for rows, latency in self.found.latency.items():
            figures = ", ".join(
                f"{name} {1e3 * latency.percentile(share):,.1f} ms" for name, share in _PERCENTILES.items()
            )
            yield f"latency of {_rows(rows)}", f"{figures} ({len(latency.seconds)} calls)"

    def _role(self, label: str) -> dict[str, object]:
        statistics, seconds = self.found.typical.statistics, self.found.typical.seconds_of(label)
        tokens, padded = statistics.tokens[label], statistics.padded[label]
        share = self.found.share_of_peak([label])
        return {
            "precision": self.found.role(label).precision,
            "texts": statistics.texts[label],
            "tokens": tokens,
            "scored_tokens": statistics.scored[label],
            "padding_share": _short(1 - tokens / padded),
            "seconds": _short(seconds),
            "tokens_per_s": _short(tokens / seconds),
            "share_of_peak": None if share is None else _short(share),
        }


def _share(share: float | None) -> str:
    return "not known: the bundle was written before products were counted" if share is None else f"{share:.1%}"


def _bytes(count: int | None) -> str:
    return "not known" if count is None else f"{count / 1e6:,.0f} MB"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"


def _short(value: float) -> float:
    """Round to five digits; more are noise."""
    return float(f"{value:.5g}")
