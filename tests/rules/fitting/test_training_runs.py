from __future__ import annotations

import hashlib
import time
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from instructmining.errors import FittingError, InputError
from instructmining.rules.fitting.training_runs import read_runs

GOOD = "name,reward,mtld,loss\na,1.5,60,0.9\nb,2,70,0.8\nc,-1e0,65,1.1\n"
COLUMNS = {"reward": [1.5, 2.0, -1.0], "mtld": [60, 70, 65], "loss": [0.9, 0.8, 1.1]}


@pytest.fixture
def runs_file(tmp_path: Path) -> Path:
    return tmp_path / "runs.csv"


def test_a_runs_file_is_read_in_raw_units_with_labels_and_its_digest(runs_file: Path) -> None:
    runs_file.write_text(GOOD)
    found = read_runs(runs_file)
    assert found.labels == ("a", "b", "c")
    assert found.losses.tolist() == [0.9, 0.8, 1.1]
    assert {column: values.tolist() for column, values in found.means.items()} == {
        "reward": [1.5, 2.0, -1.0],
        "mtld": [60.0, 70.0, 65.0],
    }
    assert found.origin["file"] == "runs.csv"
    assert found.origin["sha256"] == hashlib.sha256(GOOD.encode()).hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        GOOD.replace("\n", "\r\n"),
        "\ufeff" + GOOD,
        GOOD.replace("\n", "\n\n") + ",,,\n",
        GOOD.replace(",", " , "),
        GOOD.replace("name", "run"),
        "name,knn_6,loss,mtld,reward\n" + "a,,0.9,60,1.5\nb, ,0.8,70,2\nc,,1.1,65,-1\n",
    ],
    ids=["crlf", "byte order mark", "blank lines", "spaces", "run for name", "an empty column is absent"],
)
def test_other_spellings_of_the_same_runs_are_the_same(runs_file: Path, text: str) -> None:
    runs_file.write_bytes(text.encode())
    found = read_runs(runs_file)
    assert found.labels == ("a", "b", "c")
    assert found.losses.tolist() == COLUMNS["loss"]
    assert {column: found.means[column].tolist() for column in sorted(found.means)} == {
        "mtld": COLUMNS["mtld"],
        "reward": COLUMNS["reward"],
    }


def test_runs_without_a_name_are_called_by_their_line(runs_file: Path) -> None:
    runs_file.write_text("name,reward,loss\n,1,0.9\nb,2,0.8\n\n,3,0.7\n")
    assert read_runs(runs_file).labels == ("line 2", "b", "line 5")


def test_named_terms_are_taken_in_their_order_and_may_be_no_indicators(runs_file: Path) -> None:
    runs_file.write_text("seconds,reward,mtld,loss\n1,2,x,0.9\n2,3,y,0.8\n")
    found = read_runs(runs_file, ["seconds", "reward"])
    assert list(found.means) == ["seconds", "reward"]
    assert found.labels == ("line 2", "line 3")


@pytest.mark.parametrize(
    "source",
    [
        COLUMNS,
        {column: np.array(values) for column, values in COLUMNS.items()},
        pd.DataFrame(COLUMNS),
        pd.DataFrame(COLUMNS, index=[7, 3, 5]),
        pl.DataFrame(COLUMNS),
        pa.table(COLUMNS),
        pa.table(COLUMNS).to_reader(),
    ],
    ids=["lists", "arrays", "pandas", "pandas with an index", "polars", "arrow", "arrow stream"],
)
def test_tables_in_memory_are_read_alike(source: object) -> None:
    found = read_runs(source)  # type: ignore[arg-type]
    assert found.labels == ("run 1", "run 2", "run 3")
    assert {"loss": found.losses.tolist()} | {name: values.tolist() for name, values in found.means.items()} == COLUMNS
    numbers = b"".join(
        name.encode() + b"\0" + np.array(COLUMNS[name], dtype="<f8").tobytes() for name in ("loss", "reward", "mtld")
    )
    assert found.origin["sha256"] == hashlib.sha256(numbers).hexdigest()


FAULTS = [
    ("", "runs.csv: is empty; wanted a header line"),
    ("\n\n", "runs.csv: is empty"),
    ("reward,loss\n", "runs.csv: has no runs"),
    ("reward,mtld\n1,2\n", "runs.csv: no column 'loss'. There are: reward, mtld; add the evaluation loss of each run"),
    ("reward,loss\n1,0.9\n2,0\n", "runs.csv, line 3, column 'loss': 0, wanted a raw loss above 0"),
    ("reward,loss\n1,0.9\n\n2,-0.1\n", "runs.csv, line 4, column 'loss': -0.1, wanted a raw loss above 0"),
    ("reward,loss\n1,0.9\nnan,0.8\n", "runs.csv, line 3, column 'reward': 'nan', wanted a finite number"),
    ("reward,loss\n1,inf\n2,0.8\n", "runs.csv, line 2, column 'loss': 'inf', wanted a finite number"),
    ("reward,loss\n1,0.9\n2_0,0.8\n", "line 3, column 'reward': '2_0', wanted a finite number"),
    ('reward,loss\n1,"0,9"\n2,0.8\n', "line 2, column 'loss': '0,9', wanted a finite number"),
    ("reward,loss\n1,0.9\n,0.8\n", "line 3, column 'reward': is empty in this run"),
    ("reward,loss\n1,0.9\n2,\n", "line 3, column 'loss': is empty in this run"),
    ("reward,loss\n1,0.9\n2\n", "line 3: 1 cells, the header has 2"),
    ("reward,loss\n1,0.9\n2,0.8,3\n", "line 3: 3 cells, the header has 2"),
    ('reward,loss\n1,0.9\n"2,0.8\n', "line 3: not CSV"),
    ("reward,loss,reward\n1,0.9,1\n", "column 'reward' occurs twice"),
    ("reward,,loss\n1,2,0.9\n", "column 2 has no name"),
    ("reward;loss\n1;0.9\n", "separated by commas; the header is 'reward;loss'"),
    (
        "reward,loss\n2,0.9\n2,0.8\n",
        "column 'reward': is 2 in every run, so nothing can be estimated from it; leave it",
    ),
    ("reward,loss\n1,0.9\n2,0.9\n", "column 'loss': is 0.9 in every run"),
    ("name,run,reward,loss\na,b,1,0.9\n", "both 'name' and 'run' label the runs; keep one"),
    ("rewards,sead,loss\n1,2,0.9\n", "not indicators: 'rewards', 'sead'; rename them (input_length, output_length"),
    ("predicted_log_loss,loss\n1,0.9\n", "not indicators: 'predicted_log_loss'"),
    ("name,loss\na,0.9\n", "no column holds an indicator's means"),
    ("reward,loss\n,0.9\n,0.8\n", "no column holds an indicator's means"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS, ids=[message for _, message in FAULTS])
def test_a_fault_is_said_with_its_line_column_and_value(runs_file: Path, text: str, message: str) -> None:
    runs_file.write_text(text)
    with pytest.raises(FittingError) as raised:
        read_runs(runs_file)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ([], "terms is empty; name at least one"),
        (["rewrd"], r"no column of means 'rewrd'; did you mean 'reward'\? There are: reward, mtld"),
        (["loss"], "no column of means 'loss'"),
        (["name"], "no column of means 'name'"),
        (["mtld", "mtld"], "term 'mtld' is named twice"),
    ],
)
def test_terms_that_are_not_there_are_named(runs_file: Path, terms: list[str], message: str) -> None:
    runs_file.write_text(GOOD)
    with pytest.raises(FittingError, match=message):
        read_runs(runs_file, terms)


def test_a_named_term_without_any_value_is_an_error(runs_file: Path) -> None:
    runs_file.write_text("reward,mtld,loss\n1,,0.9\n2,,0.8\n")
    with pytest.raises(FittingError, match="column 'mtld': is empty in every run"):
        read_runs(runs_file, ["mtld"])


def test_a_file_that_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv: No such file"):
        read_runs(tmp_path / "none.csv")


def test_bytes_that_are_not_utf8_are_named(runs_file: Path) -> None:
    runs_file.write_bytes(b"reward,loss\n1,0.9\n2,\xe9\n")
    with pytest.raises(FittingError, match="not UTF-8: byte 0xe9 at byte 20"):
        read_runs(runs_file)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"reward": [1, 2], "loss": [0.9]}, "columns of different length: 'reward' 2, 'loss' 1"),
        ({"reward": [1, None], "loss": [0.9, 0.8]}, "run 2, column 'reward': is empty in this run"),
        ({"reward": [1, True], "loss": [0.9, 0.8]}, "run 2, column 'reward': True, wanted a finite number"),
        ({"reward": [1, float("nan")], "loss": [0.9, 0.8]}, "run 2, column 'reward': nan, wanted a finite number"),
        ({}, "has no runs"),
        (7, "7 \\(int\\), wanted a path, columns by name, or a table with __arrow_c_stream__"),
        (pa.array([1, 2]), "runs: "),
    ],
)
def test_faults_of_tables_in_memory_are_said(source: object, message: str) -> None:
    with pytest.raises(FittingError, match=message):
        read_runs(source)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["1e101", "-1e308"])
def test_a_number_whose_square_is_none_is_an_error(runs_file: Path, cell: str) -> None:
    runs_file.write_text(GOOD.replace("60", cell))
    with pytest.raises(FittingError, match=r"line 2, column 'mtld': .*wanted a number between -1e\+100 and 1e\+100"):
        read_runs(runs_file)


def test_an_integer_that_no_float_holds_is_an_error() -> None:
    with pytest.raises(FittingError, match="wanted a finite number"):
        read_runs(COLUMNS | {"mtld": [60, 10**400, 65]})


def test_many_columns_are_checked_at_once(tmp_path: Path) -> None:
    names = ["loss", *(f"c{number}" for number in range(50_000))]
    path = tmp_path / "runs.csv"
    path.write_text(f"{','.join(names)}\n" + f"{','.join(['1'] * len(names))}\n")
    began = time.process_time()
    with pytest.raises(FittingError, match="is 1 in every run"):
        read_runs(path, ["c1"])
    assert time.process_time() - began < 5
