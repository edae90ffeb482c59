"""The parity gate: compares a written graph with transformers in float32, in batches and row by row."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from instructmining.errors import ExportError
from instructmining.inference.devices import Device, cpu_threads
from instructmining.inference.references import BOUNDS, Agreement, References, agreements
from instructmining.inference.sessions import GraphSession
from instructmining.reading.examples import read_examples
from instructmining.types import Example


class ParityError(ExportError):
    """A graph is not equal to its checkpoint."""


def parity_examples() -> list[Example]:
    """Read the rows that every export is checked on; they vary in length and language."""
    with resources.as_file(resources.files("instructmining_export") / "data" / "parity_rows.jsonl") as path:
        return list(read_examples(path))


def check(references: Mapping[str, References], graph: Path, *, precision: str = "fp32") -> dict[str, Agreement]:
    """Compare a written graph with the references of the roles that it serves.

    Args:
        references: by role, all over the same texts.
        graph: an ``.onnx`` file.
        precision: selects the bounds.

    Returns:
        The figures for the manifest, by role.

    Raises:
        ParityError: a figure is beyond its bound.
    """
    session = GraphSession(graph, Device("cpu", threads=cpu_threads()))
    found = dict(zip(references, agreements(list(references.values()), session), strict=True))
    for role, figures in found.items():
        if broken := figures.beyond(BOUNDS[precision]):
            raise ParityError(
                f"role {role!r} in {precision}: the graph is not equal to its checkpoint: {'; '.join(broken)}"
            )
    return found
