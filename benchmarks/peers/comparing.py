"""Measuring ours and its peers: settings are searched and numbers compared on a sample, then all rows are timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.peers.lines import Line, Run
from benchmarks.peers.material import Material
from benchmarks.peers.rounds import Side, Timed, found_settings, in_turn, opened, ratio

Sides = Callable[[Material], Sequence[Side]]
Check = Callable[[dict[str, Timed]], None]


def measured(run: Run, sides: Sides, check: Check, *, every: bool = False) -> tuple[dict[str, Timed], dict[str, str]]:
    """Each side's times, at its best setting, and the reasons of those that there is none for.

    Args:
        run: how many rounds; without any, numbers are checked alone.
        sides: makes the sides for a material.
        check: raises where numbers differ; called with those of the sample, then with those of all rows.
        every: keep what every round gives.
    """
    with opened(sides(run.sample), run.pythons) as (workers, missing):
        timed = found_settings(workers, search=bool(run.rounds))
        check(timed)
        if run.sample is run.material:
            in_turn(workers, timed, run.rounds, every=every)
            return timed, missing
    for of in timed.values():
        of.values = None
    kept = [side for side in sides(run.material) if side.name in timed]
    with opened(kept, run.pythons) as (workers, failed):
        timed = {name: timed[name] for name in workers}
        in_turn(workers, timed, run.rounds, every=every)
    check(timed)
    return timed, missing | failed


def against(
    run: Run, what: str, timed: dict[str, Timed], targets: Sequence[tuple[str, float]], missing: dict[str, str]
) -> list[Line]:
    """A line for each peer: how many times faster ours is."""
    lines = []
    for name, target in targets:
        if name not in timed or not run.rounds:
            note = missing.get(name, "numbers checked, not timed" if name in timed else "not checked")
            lines.append(Line(what, name, None, target, note=note))
            continue
        peer, ours = timed[name], timed["ours"]
        setting = ", ".join(f"{key} {value}" for key, value in peer.setting.items())
        note = f"{peer.median:.3g} s against {ours.median:.3g} s" + (f"; its best: {setting}" if setting else "")
        lines.append(Line(what, name, ratio(peer.seconds, ours.seconds), target, note=note))
    return lines


def ours_scores(material: Material, column: str, *, calibrate: bool, bundle: str | None = None) -> Side:
    """Our side of a column over the real rows."""
    chosen = {"rows": str(material.real_rows), "column": column, "calibrate": calibrate}
    return Side("ours", "ours", "ours", "scores", {**chosen, "bundle": bundle or str(material.bundle)})
