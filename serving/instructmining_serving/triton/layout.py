"""What the writer of a model repository and the front in it agree on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

from instructmining.errors import BundleError
from instructmining.reading.small_files import read_small

FRONT = "instructmining"  # the model that takes rows
VERSION = "1"  # of every model
INPUT = "EXAMPLE"  # rows as JSON
RESULT = "RESULT"  # all of a row's result as JSON
SETTINGS, RULE, BUNDLE = "settings.json", "rule.json", "bundle"  # in the folder of the front's version


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What the front computes, and by which models."""

    indicators: Sequence[str]
    has_rule: bool  # in :data:`RULE`
    device_kind: str  # "cpu" or "cuda", on which the models run
    models: Mapping[str, str]  # graph of the manifest → model of the repository
    inputs: Mapping[str, Sequence[str]]  # model → names of its inputs

    @classmethod
    def read(cls, folder: Path) -> FrontSettings:
        """Read the settings.

        Raises:
            BundleError: the file is missing or is none of this version.
        """
        file = folder / SETTINGS
        try:
            return cls(**orjson.loads(read_small(file)))
        except (OSError, orjson.JSONDecodeError, TypeError) as error:
            raise BundleError(f"{file}: no settings of this version: {error}; export the repository again") from error

    def content(self) -> bytes:
        """Return the bytes of the file."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
