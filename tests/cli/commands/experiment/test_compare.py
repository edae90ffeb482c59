from __future__ import annotations

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
