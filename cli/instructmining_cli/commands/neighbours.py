"""``instructmining neighbours``: searches the neighbours of a run in shards, in pairs of shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from instructmining_cli.options.devices import DeviceName
from instructmining_cli.options.output import Json
from instructmining_cli.options.sharding import Pair, pair_of
from instructmining_cli.process.terminal import say

if TYPE_CHECKING:
    from instructmining.writing.statistics import Statistics

_SAID_FROM_S = 5.0  # expected time of a search


def neighbours(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="The folder that score --shard wrote to.")],
    pair: Pair = None,
    device: DeviceName = "auto",
    json: Json = False,
) -> None:
    """Search the neighbours of a run in shards, a pair of shards at a time; merge uses what is there.

    Each pair is a task of its own, in any order, on any machine. Without --pair all missing pairs are searched; a pair
    that was searched is left as it is.

    Examples:
        instructmining neighbours parts --pair 2,7
        instructmining neighbours parts --device cuda
    """
    from instructmining_cli.reports.json_out import print_document
    from instructmining_scale.merging import pairs_of
    from instructmining_scale.wording import duration

    pairs = pairs_of(folder, device)
    asked = pairs.all if pair is None else [pairs.known(pair_of(pair))]
    wanted = [one for one in asked if not pairs.is_searched(one)]
    said: set[tuple[int, int]] = set()

    def report(statistics: Statistics) -> None:
        expected = statistics.neighbours_expected_s
        if expected is not None and expected >= _SAID_FROM_S and one not in said:
            said.add(one)
            say(f"pair {one[0]},{one[1]}: about {duration(expected)}")

    if not wanted:
        say(f"{folder}: {'all pairs are' if pair is None else f'the pair {pair} is'} searched already")
    for number, one in enumerate(wanted, 1):
        say(f"pair {one[0]},{one[1]} ({number:,} of {len(wanted):,}): {pairs.products(one):,} distances")
        pairs.search(one, report)
    if json:
        print_document({"folder": folder, "searched": len(wanted), "missing": len(pairs.missing)})
