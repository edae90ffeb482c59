"""Runs the notebooks of docs/notebooks and compares what they show, or with ``--write`` stores it in them.

``python examples/notebooks.py`` needs the demo bundle, and nbclient and ipykernel of the extra [dev]; it takes half a
minute. Each notebook runs in a temporary copy of the folders it reads. Numbers may differ from those stored by 1e-4
or by two units of their last digit; drawings and styles are not compared.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
CELL_S = 300  # longest time of a cell
_NUMBER = re.compile(r"(?<![\w.])-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?(?![\w.])")
_LOOKS = re.compile(r"<svg.*?</svg>| style=\"[^\"]*\"", re.DOTALL)
_SHOWN = 100  # most characters of a difference


def run(notebook: Path, place: Path) -> NotebookNode:
    """Run a notebook in a copy of its folder and of examples/.

    Args:
        notebook: path of the notebook.
        place: an empty folder.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    shutil.copytree(ROOT / "examples", place / "examples")
    folder = place / "docs" / "notebooks"
    folder.mkdir(parents=True)
    read = nbformat.read(notebook, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(read, timeout=CELL_S, kernel_name="python3", record_timing=False, resources=resources)
    return client.execute()


def shown(notebook: NotebookNode) -> Iterator[tuple[int, str]]:
    """Yield the number of each code cell with what it shows, as text."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            if output.output_type == "stream":
                yield number, output.text
            else:
                data = output.get("data", {})
                yield number, data.get("text/html", data.get("text/plain", ""))


def differences(stored: NotebookNode, found: NotebookNode) -> list[str]:
    """Say which cells show something else: other words, or numbers that are not equal within the tolerance."""
    before, after = list(shown(stored)), list(shown(found))
    if [number for number, _ in before] != [number for number, _ in after]:
        return ["not the same cells show something"]
    pairs = [(number, old, new) for (number, old), (_, new) in zip(before, after, strict=True)]
    return [f"cell {number}: {why}" for number, old, new in pairs for why in _unlike(old, new)]


def _unlike(old: str, new: str) -> Iterator[str]:
    old, new = _LOOKS.sub("", old), _LOOKS.sub("", new)
    words = [_NUMBER.split(text) for text in (old, new)]
    if words[0] != words[1]:
        first = next((pair for pair in zip(*words, strict=False) if pair[0] != pair[1]), ("fewer", "more"))
        yield f"stored {first[0][:_SHOWN]!r}, found {first[1][:_SHOWN]!r}"
        return
    for one, other in zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=True):
        if abs(_value(one) - _value(other)) > max(1e-4, 2 * _last_digit(one), 2 * _last_digit(other)):
            yield f"stored {one}, found {other}"


def _value(number: str) -> float:
    return float(number.replace(",", ""))


def _last_digit(number: str) -> float:
    """Return the value of a one in the last place; 0 of a whole number, which is a count."""
    mantissa, _, exponent = number.partition("e")
    digits = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - digits) if digits or exponent else 0.0


def main(*, write: bool) -> int:
    """Run all; return the number of differences."""
    told = 0
    for notebook in sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as place:
            found = run(notebook, Path(place))
        unlike = differences(nbformat.read(notebook, as_version=4), found)
        for line in unlike:
            print(f"{notebook.name}: {line}")
        told += len(unlike)
        if write:
            found.metadata = nbformat.from_dict(
                {
                    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
                    "language_info": {"name": "python"},
                }
            )
            nbformat.validate(found)
            notebook.write_text(nbformat.writes(found) + "\n", encoding="utf-8")
    return told


if __name__ == "__main__":
    sys.exit(bool(main(write="--write" in sys.argv[1:])) and "--write" not in sys.argv[1:])
