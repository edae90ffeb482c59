"""What the benchmarks share: seeded rows, a small bundle of random weights, and what their results file keeps."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from small_bundle import write_small_bundle

from benchmarks import seeded
from benchmarks.machine import processor
from instructmining import Example, read_examples


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "bundle"
    write_small_bundle(path)
    return path


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return seeded.write_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")


@pytest.fixture(scope="session")
def examples(rows_file: Path) -> list[Example]:
    return list(read_examples(rows_file))


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Keeps the statistics and the processor; leaves out every round's time and where the files are."""
    output_json["machine_info"] = {
        "processor": processor(),
        "python_version": output_json["machine_info"]["python_version"],
        "load_after": [round(load, 2) for load in os.getloadavg()],  # of other work too
    }
    output_json["commit_info"] = {name: output_json["commit_info"].get(name) for name in ("id", "dirty")}
    for one in output_json["benchmarks"]:
        del one["stats"]["data"]
