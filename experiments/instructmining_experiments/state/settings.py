"""How all runs of an experiment are trained: chosen with the first run, and the same for every other."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import orjson

from instructmining.bundle.digests import sha256_of
from instructmining.errors import InputError
from instructmining.writing.atomic import write_whole
from instructmining_experiments.state.plan import PLAN

SETTINGS = "training.json"
TemplateName: TypeAlias = Literal["auto", "chatml", "plain"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What every run of an experiment has in common."""

    template: TemplateName = "auto"  # of conversations; "auto" for the model's own
    max_length: int | None = None  # tokens of the longest text; None for the model's limit, at most 2,048
    epochs: int = 1
    step_tokens: int = 512  # wanted of a step
    learning_rate: float | None = None  # None for the best of ``rates``
    rates: tuple[float, ...] = (1e-5, 3e-5, 1e-4, 3e-4)
    warmup: float = 0.1  # share of the steps in which the rate rises
    weight_decay: float = 0.0
    clip: float = 1.0  # largest norm of the gradient


@dataclass(frozen=True, slots=True)
class Begun:
    """What the first run of an experiment was trained with."""

    model: Mapping[str, str]  # id, revision, licence; of a folder a digest
    settings: Settings
    device: str  # "cpu" or "cuda"
    plan_sha256: str

    def is_kept(self, folder: Path) -> bool:
        """Return whether runs were trained with this before; False where none was trained.

        Raises:
            InputError: an earlier run of this experiment was trained with something else.
        """
        file = folder / SETTINGS
        if not file.exists():
            return False
        before, now = _flat(_read(file)), _flat(orjson.loads(orjson.dumps(asdict(self))))
        for name in [*now, *before]:
            if before.get(name) != now.get(name):
                raise InputError(
                    f"{file}: earlier runs of this experiment have {name} {_shown(before.get(name))}, this one "
                    f"{_shown(now.get(name))}; give the same, or design another folder"
                )
        return True

    def keep(self, folder: Path) -> None:
        """Record it, before the first run.

        Raises:
            OutputError: it cannot be written.
        """
        write_whole(folder / SETTINGS, orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2))

    @classmethod
    def load(cls, folder: Path) -> Begun:
        """Read it.

        Raises:
            InputError: nothing was trained yet, or the file is damaged.
        """
        file = folder / SETTINGS
        if not file.exists():
            raise InputError(f"{folder}: has no trained runs; 'instructmining experiment train' trains them")
        content = _read(file)
        try:
            settings = content["settings"] | {"rates": tuple(content["settings"]["rates"])}
            return cls(**content | {"settings": Settings(**settings)})
        except (KeyError, TypeError) as error:
            raise InputError(f"{file}: is not what train wrote: {error}") from error


def plan_digest(folder: Path) -> str:
    """Return the SHA-256 of the plan's file."""
    return sha256_of(folder / PLAN)


def _read(file: Path) -> dict[str, Any]:
    try:
        content = orjson.loads(file.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise InputError(f"{file}: is not what train wrote: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{file}: is not what train wrote: not an object")
    return content


def _flat(content: Mapping[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {}
    for name, value in content.items():
        # The path of a folder may change; its digest may not.
        inner = {f"{name} {key}": one for key, one in value.items()} if isinstance(value, dict) else {name: value}
        found |= inner
    if "model digest" in found:
        found.pop("model id", None)
    return found


def _shown(value: object) -> str:
    return "unset" if value is None else os.fsdecode(orjson.dumps(value)).strip('"')
