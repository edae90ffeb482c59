"""The notebooks of docs/notebooks: what can be said without running them, and, slowly, what they show."""

from __future__ import annotations

import ast
import builtins
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat import NotebookNode
from paths import ROOT

import instructmining
from examples.notebooks import differences, shown

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
PLACE = re.compile(r"(?<![\w.<])(?:/(?:home|tmp|work|root|usr|opt|var|Users|mnt|private)/|[A-Z]:\\|file:)")


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def test_both_notebooks_are_there() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["first-look", "own-rule"]


@each
def test_a_notebook_is_valid_begins_with_its_title_and_was_run_once_from_its_first_cell(path: Path) -> None:
    found = read(path)
    nbformat.validate(found)
    assert found.cells[0].source.startswith("# ")
    assert [cell.source for cell in found.cells if cell.source.startswith("# ")] == [found.cells[0].source]
    counts = [cell.execution_count for cell in found.cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    assert found.metadata.kernelspec.name == "python3"


@each
def test_a_notebook_stores_no_error_no_place_of_a_machine_and_no_time(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert PLACE.findall(text) == []
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", [])]
    assert len(outputs) >= 5
    assert {output.output_type for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert "iopub.execute_input" not in text
    assert len(text) < 100_000


@each
def test_the_code_of_a_notebook_parses_and_each_of_its_names_is_known_where_it_is_used(path: Path) -> None:
    known = set(dir(builtins))
    for source in code(path):
        tree = ast.parse(source)
        nodes = list(ast.walk(tree))
        imported = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module == "instructmining"]
        assert {alias.name for node in imported for alias in node.names} <= set(instructmining.__all__)
        known |= {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}
        known |= {alias.name for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}
        known |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
        known |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
        known |= {node.arg for node in nodes if isinstance(node, ast.arg)}
        used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        assert used <= known


@each
def test_the_files_that_a_notebook_reads_are_there(path: Path) -> None:
    named = re.findall(r"\.\./\.\./examples/[\w.]+", "\n".join(code(path)))
    assert named
    assert all((path.parent / name).is_file() for name in named)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("mean 0.5", "mean 0.50004", []),
        ("mean 478.92", "mean 478.94", []),
        ("mean 478.92", "mean 478.95", ["cell 0: stored 478.92, found 478.95"]),
        ("1.2e-05 p", "1.3e-05 p", []),
        ("kept 1,024 rows", "kept 1,025 rows", ["cell 0: stored 1,024, found 1,025"]),
        ("reward -0.1", "rewards -0.1", ["cell 0: stored 'reward ', found 'rewards '"]),
        ("1 row", "1 row\n2 rows", ["cell 0: stored ' row', found ' row\\n'"]),
        ("<td>1</td><svg><path d='1 2'/></svg>", "<td>1</td><svg><path d='3 4'/></svg>", []),
    ],
)
def test_two_runs_are_equal_within_the_tolerance(old: str, new: str, said: list[str]) -> None:
    notebooks = [
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell("1", outputs=[nbformat.v4.new_output("stream", text=text)])]
        )
        for text in (old, new)
    ]
    assert [text for _, text in shown(notebooks[0])] == [old]
    assert differences(notebooks[0], notebooks[1]) == said


@pytest.mark.slow
@pytest.mark.usefixtures("real_bundle")
def test_the_notebooks_run_and_show_what_they_have_stored() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "notebooks.py"], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr
