"""Options of a run in shards."""

from __future__ import annotations

import re
from typing import Annotated, Literal, TypeAlias

import typer

from instructmining_cli.options.checks import a_count

_SHARD = re.compile(r"([1-9][0-9]{0,6})/([1-9][0-9]{0,6})")
_PAIR = re.compile(r"[1-9][0-9]{0,6},[1-9][0-9]{0,6}")
Suffix: TypeAlias = Literal[".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]


def _checked(shard: str | None) -> str | None:
    """Check a shard's number.

    Raises:
        BadParameter: it is none.
    """
    if shard is not None:
        found = _SHARD.fullmatch(shard)
        if found is None or int(found[1]) > int(found[2]):
            raise typer.BadParameter(f"{shard!r}: wanted I/N, the shard's number from 1 and how many there are, as 3/8")
    return shard


Shard: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="I/N",
        callback=_checked,
        help="Score only the I-th of N parts of the input, into the folder OUT; in any order, on any machine.",
    ),
]
RayAddress: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="ADDRESS",
        help="Score all shards on a Ray cluster, into the folder OUT: auto, local (starts one here) or HOST:PORT.",
    ),
]
Shards: TypeAlias = Annotated[
    int | None, typer.Option(min=1, callback=a_count, help="With --ray: how many shards; by default 4 a worker.")
]
Workers: TypeAlias = Annotated[
    int | None,
    typer.Option(min=1, callback=a_count, help="With --ray: how many workers; by default one a GPU, or one a node."),
]
PartFormat: TypeAlias = Annotated[Suffix, typer.Option(help="Suffix of the parts' files, with --shard.")]


def _checked_pair(pair: str | None) -> str | None:
    """Check a pair of shards.

    Raises:
        BadParameter: it is none.
    """
    if pair is not None and _PAIR.fullmatch(pair) is None:
        raise typer.BadParameter(f"{pair!r}: wanted I,J, the numbers of two shards from 1, as 2,7; or of one, as 3,3")
    return pair


Pair: TypeAlias = Annotated[
    str | None, typer.Option(metavar="I,J", callback=_checked_pair, help="Search only this pair of shards.")
]


def pair_of(pair: str) -> tuple[int, int]:
    """Return the numbers of a pair's shards, ascending."""
    one, _, other = pair.partition(",")
    return min(int(one), int(other)), max(int(one), int(other))


def shard_of(shard: str) -> tuple[int, int]:
    """Return the number of a shard, and how many there are."""
    number, _, shards = shard.partition("/")
    return int(number), int(shards)
