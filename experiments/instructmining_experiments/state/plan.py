"""What an experiment will do: every draw, seed and digest, written once and never changed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from instructmining.errors import InputError
from instructmining.writing.atomic import write_whole

PLAN = "plan.json"
FORMAT = 1
RunKind: TypeAlias = Literal["random", "tilted", "replicate"]


@dataclass(frozen=True, slots=True)
class PoolFile:
    """A file of the pool; its rows follow those of the files before it."""

    path: str
    sha256: str
    rows: int  # that could be scored


@dataclass(frozen=True, slots=True)
class EvaluationSet:
    """Rows that no run is trained on, and on which every trained model's loss is measured."""

    name: str
    source: str  # where its rows come from
    rows: tuple[int, ...]  # numbers in the scored pool


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row that is too near to one of an evaluation set to be trained on."""

    row: int
    near: int
    distance: float  # of their embeddings; 0 for the same prompt


@dataclass(frozen=True, slots=True)
class Run:
    """A subset to fine-tune on."""

    name: str
    kind: RunKind
    rows: tuple[int, ...]  # numbers in the scored pool
    seed: int  # of the order of its batches
    tokens: int  # of prompts and responses, as the pool's lengths count them
    replicates: str | None = None  # the run with the same rows and another seed
    weights: Mapping[str, float] = field(default_factory=dict)  # of a tilted one: stratum → share of its draws


@dataclass(frozen=True, slots=True)
class Plan:
    """An experiment's plan."""

    seed: int
    bundle: str  # digest of the bundle that scored the pool
    scored_sha256: str  # of the scored pool
    files: tuple[PoolFile, ...]
    subset_tokens: int  # wanted of each subset
    indicators: tuple[str, ...]  # columns whose means over a run's rows `fit` sees
    evaluation: tuple[EvaluationSet, ...]  # the first is the one that a rule predicts
    reserved: tuple[int, ...]  # rows that no run sees, for `compare`
    left_out: tuple[LeftOut, ...]
    runs: tuple[Run, ...]
    written_with: Mapping[str, str] = field(default_factory=dict)  # package → version
    reward_model: str | None = None  # id of the model that gave the column ``reward``

    def run(self, name: str) -> Run:
        """Return a run by its name."""
        return next(run for run in self.runs if run.name == name)

    def in_turn(self) -> list[Run]:
        """Return the runs with the replicates spread among the subsets, so that any first part of them has some."""
        subsets = [run for run in self.runs if run.kind != "replicate"]
        replicates = [run for run in self.runs if run.kind == "replicate"]
        due = {run.name: (number + 1) * len(subsets) / len(replicates) for number, run in enumerate(replicates)}
        due |= {run.name: number + 1 for number, run in enumerate(subsets)}
        return sorted(self.runs, key=lambda run: (due[run.name], run.kind == "replicate"))

    def save(self, folder: Path) -> None:
        """Write ``plan.json`` with a digest of its content.

        Raises:
            OutputError: it cannot be written.
        """
        content = {"format": FORMAT, **asdict(self)}
        write_whole(
            folder / PLAN, orjson.dumps({"digest": content_digest(content), **content}, option=orjson.OPT_INDENT_2)
        )

    @classmethod
    def load(cls, folder: Path) -> Plan:
        """Read ``plan.json``.

        Raises:
            InputError: there is none, it is of another format, or it was edited.
        """
        file = folder / PLAN
        try:
            content: dict[str, Any] = orjson.loads(file.read_bytes())
            digest, found = content.pop("digest"), content.pop("format")
        except FileNotFoundError as error:
            raise InputError(f"{folder}: has no {PLAN}; 'instructmining experiment design' writes one") from error
        except (OSError, orjson.JSONDecodeError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{file}: is not a plan: {error}") from error
        if found != FORMAT:
            raise InputError(f"{file}: is a plan of format {found}; this version reads {FORMAT}")
        if content_digest({"format": found, **content}) != digest:
            raise InputError(f"{file}: was edited after it was written; draw a new plan into another folder")
        return cls(
            **{
                **content,
                "files": tuple(PoolFile(**entry) for entry in content["files"]),
                "indicators": tuple(content["indicators"]),
                "evaluation": tuple(
                    EvaluationSet(**{**entry, "rows": tuple(entry["rows"])}) for entry in content["evaluation"]
                ),
                "reserved": tuple(content["reserved"]),
                "left_out": tuple(LeftOut(**entry) for entry in content["left_out"]),
                "runs": tuple(Run(**{**entry, "rows": tuple(entry["rows"])}) for entry in content["runs"]),
            }
        )


def content_digest(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, whatever the order of their keys."""
    return hashlib.sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
