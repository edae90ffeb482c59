"""Folders that ``datasets.save_to_disk`` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from instructmining.errors import InputError
from instructmining.reading.examples import read_examples
from instructmining.reading.sources import expand
from instructmining_cli.app import app


def write(path: Path, row: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"instruction": ["a"], "output": [row]})
    with pa.ipc.new_stream(path, table.schema) as file:
        file.write_table(table)


def save(folder: Path, *rows: str, names: list[str] | None = None) -> None:
    """Write what ``Dataset.save_to_disk`` writes, a file for each row."""
    names = names if names is not None else [f"data-{number:05}-of-{len(rows):05}.arrow" for number in range(len(rows))]
    folder.mkdir(parents=True, exist_ok=True)
    for name, row in zip(names, rows, strict=True):
        write(folder / name, row)
    (folder / "dataset_info.json").write_text('{"features": {}}')
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def save_splits(folder: Path, **splits: list[str]) -> None:
    """Write what ``DatasetDict.save_to_disk`` writes."""
    for name, rows in splits.items():
        save(folder / name, *rows)
    (folder / "dataset_dict.json").write_text(json.dumps({"splits": list(splits)}))


def responses(source: str | Path) -> list[str]:
    return [example.response_texts[0] for example in read_examples(source)]


def test_a_saved_data_set_is_its_rows_without_what_tells_of_them(tmp_path: Path) -> None:
    save(tmp_path / "saved", "b", "a", "c")
    assert responses(tmp_path / "saved") == ["b", "a", "c"]
    assert expand([tmp_path / "saved"]).skipped == ()


@pytest.mark.parametrize("source", ["saved", "./saved/", "saved/*.arrow", "./saved/*", "**/*.arrow", "."])
def test_files_come_in_the_order_of_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("saved"), "1", "2", "3", names=["c.arrow", "a.arrow", "b.arrow"])
    write(Path("saved/stale.arrow"), "stale")
    assert responses(source) == ["1", "2", "3"]
    (skipped,) = expand([source]).skipped
    assert [Path(name).name for name in skipped.names] == ["stale.arrow"]


def test_files_of_a_data_set_stay_where_they_are_among_others(tmp_path: Path) -> None:
    save(tmp_path / "b", "2", "3", names=["y.arrow", "x.arrow"])
    write(tmp_path / "a.arrow", "1")
    write(tmp_path / "c.arrow", "4")
    assert responses(tmp_path) == ["1", "2", "3", "4"]


def test_splits_are_read_one_after_the_other_in_the_order_of_the_data_set(tmp_path: Path) -> None:
    save_splits(tmp_path / "saved", train=["1", "2"], test=["3"], validation=[])
    assert responses(tmp_path / "saved") == ["1", "2", "3"]
    assert responses(tmp_path / "*") == ["1", "2", "3"]
    assert responses(tmp_path / "saved" / "test") == ["3"]


def test_a_file_that_the_data_set_does_not_name_is_not_read_unless_it_is_given(tmp_path: Path) -> None:
    save(tmp_path / "saved", "a")
    for name in ("cache-0123456789abcdef.arrow", "data-00001-of-00002.arrow"):
        write(tmp_path / "saved" / name, name)
    assert responses(tmp_path / "saved") == ["a"]
    (skipped,) = expand([tmp_path / "saved"]).skipped
    assert skipped.names == ("cache-0123456789abcdef.arrow", "data-00001-of-00002.arrow")
    given = tmp_path / "saved" / skipped.names[0]
    assert responses(given) == [given.name]


def test_arrow_files_of_other_folders_are_all_read(tmp_path: Path) -> None:
    write(tmp_path / "cache-1.arrow", "a")
    (tmp_path / "dataset_info.json").write_text("{}")
    assert responses(tmp_path) == ["a"]


def test_a_data_set_that_lacks_a_file_is_an_input_error(tmp_path: Path) -> None:
    save(tmp_path / "saved" / "train", "a", "b")
    (tmp_path / "saved" / "train" / "data-00001-of-00002.arrow").unlink()
    with pytest.raises(InputError, match=r"train/data-00001-of-00002\.arrow: No such file .*copy all of .*saved$"):
        read_examples(tmp_path / "saved")


def test_a_data_set_that_lacks_a_split_is_an_input_error(tmp_path: Path) -> None:
    save_splits(tmp_path / "saved", train=["a"])
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(InputError, match=r"saved/test: No such file or folder"):
        read_examples(tmp_path / "saved")


def test_a_data_set_without_rows_is_an_input_error(tmp_path: Path) -> None:
    save(tmp_path / "saved")
    with pytest.raises(InputError, match="the folder holds no file of rows"):
        read_examples(tmp_path / "saved")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("state.json", "{"),
        ("state.json", "[]"),
        ("state.json", "{}"),
        ("state.json", '{"_data_files": ["a.arrow"]}'),
        ("state.json", '{"_data_files": [{"filename": 1}]}'),
        ("state.json", '{"_data_files": [{"filename": "../a.arrow"}]}'),
        ("state.json", '{"_data_files": [{"filename": "a.arrow"}, {"filename": "a.arrow"}]}'),
        ("dataset_dict.json", '{"splits": {}}'),
    ],
)
def test_a_damaged_description_is_an_input_error(tmp_path: Path, name: str, content: str) -> None:
    save(tmp_path, "a")
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=rf"{name}: is not what datasets' save_to_disk writes, or is damaged"):
        read_examples(tmp_path)


def test_rows_that_were_selected_by_an_old_version_are_an_input_error(tmp_path: Path) -> None:
    save(tmp_path, "a")
    state = {"_data_files": [{"filename": "dataset.arrow"}], "_indices_data_files": [{"filename": "indices.arrow"}]}
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(InputError, match="load the data set and save it again"):
        read_examples(tmp_path)


# With datasets itself


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
def test_what_datasets_saves_is_read_as_it_loads_it(tmp_path: Path) -> None:
    datasets: Any = pytest.importorskip("datasets")
    whole = datasets.Dataset.from_dict({"instruction": list("abcdefg"), "output": list("hijklmn"), "id": range(7)})
    whole.save_to_disk(tmp_path / "one", num_shards=3)
    chosen = whole.select([5, 1, 3]).with_format("numpy", columns=["id"])
    chosen.save_to_disk(tmp_path / "chosen")
    splits = datasets.DatasetDict(train=whole, test=whole.select([6]))
    splits.save_to_disk(tmp_path / "splits")
    for name, rows in (("one", whole), ("chosen", chosen.with_format(None))):
        read = [example.row.fields for example in read_examples(tmp_path / name) if example.row is not None]
        assert read == list(rows)
    read = [example.row.fields for example in read_examples(tmp_path / "splits") if example.row is not None]
    assert read == [row for rows in datasets.load_from_disk(tmp_path / "splits").values() for row in rows]


@pytest.mark.peer
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "parquet"])
def test_a_scored_file_is_loaded_by_datasets_with_its_types(small_bundle: Path, tmp_path: Path, suffix: str) -> None:
    datasets: Any = pytest.importorskip("datasets")
    labels = datasets.ClassLabel(names=["no", "yes"])
    features = datasets.Features(
        {"instruction": datasets.Value("string"), "output": datasets.Value("string"), "label": labels}
        | {"id": datasets.Value("int64"), "tags": datasets.List(datasets.Value("string"))}
    )
    rows = {"instruction": ["a", "b"], "output": ["c d", "e"], "label": [1, 0], "id": [2**62 + 1, -1]}
    datasets.Dataset.from_dict({**rows, "tags": [["x"], []]}, features=features).save_to_disk(tmp_path / "saved")
    out = tmp_path / f"scored.{suffix}"
    asked = ("--indicators", "perplexity,output_length,knn_1", "--device", "cpu", "--bundle", str(small_bundle))
    result = CliRunner().invoke(app, ["score", str(tmp_path / "saved"), "-o", str(out), *asked])
    assert result.exit_code == 0, result.output
    kind = "parquet" if suffix == "parquet" else "json"
    loaded = datasets.load_dataset(kind, data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row["id"] for row in loaded] == rows["id"]
    assert [row["label"] for row in loaded] == rows["label"]
    assert [row["tags"] for row in loaded] == [["x"], []]
    assert {name: loaded.features[name].dtype for name in ("id", "label", "perplexity", "output_length")} == {
        "id": "int64",
        "label": "int64",
        "perplexity": "float64",
        "output_length": "int64",
    }


def test_a_scored_file_is_read_by_pyarrow_dataset_with_its_types(small_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "lang=de"
    folder.mkdir(parents=True)
    table = pa.table({"instruction": ["a"], "output": ["c d"], "id": pa.array([2**64 - 1], pa.uint64())})
    pq.write_table(table, folder / "x.parquet")
    for suffix, kind in (("jsonl", "json"), ("parquet", "parquet")):
        out = tmp_path / f"scored.{suffix}"
        asked = ("--indicators", "perplexity,output_length", "--device", "cpu", "--bundle", str(small_bundle))
        result = CliRunner().invoke(app, ["score", str(tmp_path / "data"), "-o", str(out), *asked])
        assert result.exit_code == 0, result.output
        scored = pyarrow.dataset.dataset(out, format=kind).to_table()
        assert scored["lang"].to_pylist() == ["de"]
        assert (scored.schema.field("perplexity").type, scored.schema.field("lang").type) == (pa.float64(), pa.string())
        if kind == "parquet":
            assert scored["id"].to_pylist() == [2**64 - 1]
