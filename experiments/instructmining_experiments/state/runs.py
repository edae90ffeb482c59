"""The state of each run of an experiment: what lies in its folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from instructmining.errors import InputError
from instructmining.writing.atomic import write_whole

RUNS = "runs"
_RESULT, _FAILURE = "result.json", "failure.json"


@dataclass(frozen=True, slots=True)
class Result:
    """A run that was trained and evaluated."""

    name: str
    seed: int
    learning_rate: float
    steps: int
    tokens: int  # of all steps
    scored: int  # response tokens among them
    train_losses: tuple[float, ...]  # of each step, in nats per response token
    evaluation: Mapping[str, Mapping[str, Any]]  # as ``evaluation.as_json`` writes it
    device: str
    train_seconds: float
    evaluation_seconds: float

    @property
    def losses(self) -> dict[str, float]:
        """The loss by evaluation set."""
        return {name: float(one["loss"]) for name, one in self.evaluation.items()}


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run."""

    path: Path

    @classmethod
    def of(cls, experiment: Path, name: str) -> RunFolder:
        """Return a run's folder in an experiment's."""
        return cls(experiment / RUNS / name)

    @property
    def checkpoint(self) -> Path:
        """The file that a killed run begins at."""
        return self.path / "checkpoint.pt"

    @property
    def model(self) -> Path:
        """The folder of the trained model, until it is evaluated."""
        return self.path / "model"

    def result(self) -> Result | None:
        """Read the result; None where there is none yet.

        Raises:
            InputError: the file is damaged.
        """
        content = self._read(_RESULT)
        if content is None:
            return None
        try:
            return Result(**content | {"train_losses": tuple(content["train_losses"])})
        except (KeyError, TypeError) as error:
            raise InputError(f"{self.path / _RESULT}: is not a result: {error}; remove it to train again") from error

    def failure(self) -> str | None:
        """Read why the run failed; None where it did not."""
        content = self._read(_FAILURE)
        return None if content is None else str(content.get("reason"))

    def keep_result(self, result: Result) -> None:
        """Record that the run was trained and evaluated."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / _RESULT, orjson.dumps(asdict(result)))

    def keep_failure(self, reason: str, **facts: object) -> None:
        """Record that the run failed, with its seed and rate."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_whole(self.path / _FAILURE, orjson.dumps({"reason": reason, **facts}))

    def retry(self) -> None:
        """Forget a failure, so that the run begins again at its last checkpoint."""
        (self.path / _FAILURE).unlink(missing_ok=True)

    def clear(self, *, keep_model: bool) -> None:
        """Remove what a finished run needs no longer."""
        self.checkpoint.unlink(missing_ok=True)
        if not keep_model and self.model.exists():
            shutil.rmtree(self.model)

    def _read(self, name: str) -> dict[str, Any] | None:
        file = self.path / name
        try:
            content = orjson.loads(file.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, orjson.JSONDecodeError) as error:
            raise InputError(f"{file}: cannot be read: {error}; remove it to train again") from error
        if not isinstance(content, dict):
            raise InputError(f"{file}: is not an object; remove it to train again")
        return content
