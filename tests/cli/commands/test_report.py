"""``report`` on the command line: what it prints, where it writes, and its errors in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from scored_rows import scored_rows, write_run, write_scored

Run = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def scored(tmp_path: Path) -> Path:
    path = write_scored(tmp_path / "scored.jsonl", scored_rows(12))
    write_run(path)
    return path


def test_the_page_is_written_and_said(run: Run, scored: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "report.html"
    assert run("report", scored, "-o", out) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("report of the rows of scored (12), ")
    assert out.read_bytes().startswith(b"<!doctype html>")
    assert run("report", scored, "-o", out) == 1
    assert capsys.readouterr().err == f"error: {out}: exists; give --overwrite to replace it\n"
    assert run("report", scored, "-o", out, "--overwrite", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_json_prints_one_document(run: Run, scored: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "report.html"
    assert run("report", scored, scored, "-o", out, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["out"] == str(out)
    assert document["bytes"] == out.stat().st_size
    assert document["rows"] == {str(scored): 12, f"{scored} (2)": 12}
    assert document["seconds"] > 0
    assert run("report", scored, "-o", "-", "--json") == 2


def test_a_dash_writes_the_page_to_standard_output(scored: Path) -> None:
    code = "from instructmining_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(scored), "-o", "-"], capture_output=True, check=True, timeout=120
    )
    assert done.stdout.startswith(b"<!doctype html>")
    assert done.stdout.endswith(b"</html>\n")


def test_an_input_is_never_replaced(run: Run, tmp_path: Path, capsys: Capture) -> None:
    scored = write_scored(tmp_path / "scored.html", scored_rows(3))
    assert run("report", scored, "-o", scored, "--overwrite") == 1
    assert "would replace" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--by", "rewrad"], "no column 'rewrad'"),
        (["--group-by", "sauce"], "no field 'sauce'"),
        (["--prefix", "im_"], "no column that score adds"),
        (["--rule", "paper-v3"], "rule 'paper-v3' needs"),
    ],
    ids=["by", "group-by", "prefix", "rule"],
)
def test_what_does_not_fit_the_file_is_an_error_of_one_line(
    run: Run, scored: Path, tmp_path: Path, capsys: Capture, options: list[str], said: str
) -> None:
    assert run("report", scored, "-o", tmp_path / "report.html", *options) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert said in line
    assert not (tmp_path / "report.html").exists()


def test_a_file_without_run_file_says_why_there_are_no_terms(run: Run, tmp_path: Path, capsys: Capture) -> None:
    scored = write_scored(tmp_path / "scored.jsonl", scored_rows(3))
    assert run("report", scored, "-o", tmp_path / "report.html") == 0
    assert "the terms of the rule are not shown: there is no" in capsys.readouterr().err


def test_descending_needs_a_column(run: Run, scored: Path, tmp_path: Path) -> None:
    assert run("report", scored, "-o", tmp_path / "report.html", "--descending") == 2
    assert run("report", scored, "-o", tmp_path / "report.html", "--by", "reward", "--descending") == 0


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2", "markupsafe"])
def test_without_the_extra_the_error_says_how_to_install_it(scored: Path, tmp_path: Path, missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None\nfrom instructmining_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "report", str(scored), "-o", str(tmp_path / "report.html")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {missing} is not installed, which the extra [report] has; ")
    assert re.search(r"pip install (-e )?\S*\[report\]", line.replace("'", ""))
