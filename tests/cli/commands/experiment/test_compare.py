from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_experiment import write_experiment


def test_what_is_missing_is_one_line_before_anything_slow_is_loaded(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("experiment", "compare", tmp_path) == 1
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path}: has no plan.json; 'instructmining experiment design' writes one\n"
    )
    folder = write_experiment(tmp_path / "experiment").folder
    assert run("experiment", "compare", folder) == 1
    error = capsys.readouterr().err
    assert error == f"error: {folder}: has no rule.json; 'instructmining experiment fit' writes it, or name a --rule\n"


def test_without_the_extra_the_error_comes_before_anything_is_trained(tmp_path: Path) -> None:
    folder = write_experiment(tmp_path / "experiment").folder
    (folder / "rule.json").write_text("{}")
    code = "import sys; sys.modules['matplotlib'] = None\nfrom instructmining_cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "experiment", "compare", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1
    error = done.stderr.splitlines()[1]
    assert error.startswith("error: matplotlib is not installed, which the extra [experiment] has; ")
