"""A data set in folders with partition columns, from its files to the merged and selected rows."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from cut_runs import CUT, Command, outputs
from typer.testing import CliRunner

from instructmining_cli.app import app


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Files of several kinds in folders with two columns; some rows are bad."""
    folder = tmp_path / "data"
    for year in (2023, 2024):
        for lang in ("de", "fr", "__HIVE_DEFAULT_PARTITION__"):
            file = folder / f"year={year}" / f"lang={lang}" / ("x.jsonl" if lang == "fr" else "x.parquet")
            file.parent.mkdir(parents=True)
            rows = [
                {"instruction": f"{year} {lang} {number}", "output": "a b" * (number % 7), "year": year}
                for number in range(40)
            ]
            if lang == "fr":
                file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
            else:
                pq.write_table(pa.Table.from_pylist(rows).drop_columns("year" if year == 2023 else []), file)
    return folder


def settings(data: Path | str, bundle: Path, columns: str = "perplexity,mtld") -> tuple[str, ...]:
    at = ("--device", "cpu", "--block-bytes", "8192", "--max-batch-tokens", "512")
    return ("score", str(data), "--indicators", columns, "--bundle", str(bundle), *at)


@pytest.mark.parametrize("columns", ["perplexity,mtld", "knn_2"])
def test_shards_merge_to_the_bytes_of_one_run_with_the_folders_columns(
    data: Path, small_bundle: Path, tmp_path: Path, columns: str
) -> None:
    asked = (*settings(data, small_bundle, columns), *(("--pool", "lang") if columns == "knn_2" else ()))
    one, parts, merged = tmp_path / "one.jsonl", tmp_path / "parts", tmp_path / "merged.jsonl"
    assert run(*asked, "-o", str(one)).exit_code == 3
    for shard in (2, 3, 1):
        result = run(*asked, "-o", str(parts), "--shard", f"{shard}/3")
        assert result.exit_code in {0, 3}, result.output
    assert run("merge", str(parts), "-o", str(merged)).exit_code == 3
    assert outputs(merged) == outputs(one)
    rows = [json.loads(line) for line in one.read_text().splitlines()]
    said = [(str(row["year"]), row["lang"]) for row in rows]
    assert said == [tuple(row["instruction"].split()[:2]) if row["lang"] else (str(row["year"]), None) for row in rows]
    assert {type(row["year"]) for row in rows} == {int, str}  # the rows' own field stays as it is
    rejects = [json.loads(line) for line in Path(f"{one}.rejects.jsonl").read_text().splitlines()]
    assert {json.loads(reject["row"])["lang"] for reject in rejects} == {"de", "fr", None}


def test_a_run_that_is_killed_continues_with_the_folders_columns(
    data: Path, small_bundle: Path, tmp_path: Path
) -> None:
    one, cut = tmp_path / "one.jsonl", tmp_path / "cut.jsonl"
    asked = settings(data, small_bundle)
    assert Command((*asked, "-o", str(one))).run() == 3
    assert Command((*asked, "-o", str(cut), "--resume"), pause_after=4).run() == CUT
    assert Command((*asked, "-o", str(cut), "--resume")).run() == 3
    assert outputs(cut) == outputs(one)


def test_files_that_are_given_one_by_one_are_another_run(data: Path, small_bundle: Path, tmp_path: Path) -> None:
    parts = str(tmp_path / "parts")
    assert run(*settings(data, small_bundle), "-o", parts, "--shard", "1/2").exit_code in {0, 3}
    every = [str(path) for path in sorted(data.rglob("x.*"))]
    command, _, *rest = settings("", small_bundle)
    result = run(command, *every, *rest, "-o", parts, "--shard", "2/2")
    assert result.exit_code == 1
    assert "its plan is of another run: partitioned was" in str(result.exception)
    pattern = run(*settings(data / "**" / "x.*", small_bundle), "-o", parts, "--shard", "2/2")  # the same files
    assert pattern.exit_code in {0, 3}, pattern.output


def test_folders_columns_are_kept_in_parquet_and_selected_by_group(
    data: Path, small_bundle: Path, tmp_path: Path
) -> None:
    out, best = tmp_path / "scored.parquet", tmp_path / "best.jsonl"
    assert run(*settings(data, small_bundle), "-o", str(out)).exit_code == 3
    assert pq.read_schema(out).field("lang").type == pa.string()
    result = run("select", str(out), "-o", str(best), "--by", "perplexity", "--top", "1", "--group-by", "lang")
    assert result.exit_code == 0, result.output
    langs = [json.loads(line)["lang"] for line in best.read_text().splitlines()]
    assert sorted(map(str, langs)) == ["None", "de", "fr"]
