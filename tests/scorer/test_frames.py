from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

from instructmining import Example, Reject, Scorer, read_examples, score_table, to_arrow
from instructmining.errors import InputError, RowError
from instructmining.reading.arrow import Table
from instructmining.reading.rows import open_rows
from instructmining.scored.scored_file import ScoredRows
from instructmining.scored.selection import SelectionOptions, select

ROWS = {"id": pa.array([7, 8, 9], pa.uint8()), "prompt": ["a", "b", "c"], "response": ["x y z", None, "z z y"]}
TABLE = pa.table(ROWS)
ADDED = ["output_length", "perplexity", "mtld", "truncated", "score_notes"]


@pytest.fixture(scope="module")
def scorer(small_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(small_bundle, indicators="output_length,mtld,perplexity", device="cpu") as opened:
        yield opened


@pytest.mark.parametrize("make", [lambda table: table, pa.Table.to_pandas, pl.from_arrow, pa.Table.to_reader])
def test_scores_stand_beside_the_columns_of_any_table(scorer: Scorer, make: Callable[[pa.Table], Table]) -> None:
    rejects: list[Reject] = []
    result = score_table(scorer, make(TABLE), on_reject=rejects.append)
    assert result.schema.names == [*ROWS, *ADDED]
    assert result["id"].to_pylist() == [7, 9]
    assert result.schema.field("id").type == pa.uint8()
    assert [(reject.line, reject.offset) for reject in rejects] == [(2, 1)]
    with_one = list(scorer.score([Example.of("a", "x y z"), Example.of("c", "z z y")]))
    for name in ("output_length", "mtld", "perplexity"):
        wanted = [row.columns[name] for row in with_one]
        assert np.allclose(result[name].to_numpy(), np.array(wanted, dtype=float), rtol=1e-5)
    assert result["score_notes"].to_pylist() == ["{}", "{}"]


def test_the_types_of_the_scores_do_not_depend_on_the_rows(scorer: Scorer) -> None:
    whole = score_table(scorer, TABLE, on_reject=lambda _: None).schema
    assert score_table(scorer, TABLE.slice(0, 0)).schema == whole
    assert [whole.field(name).type for name in ADDED] == [
        pa.int64(), pa.float64(), pa.float64(), pa.list_(pa.string()), pa.string()
    ]  # fmt: skip


def test_a_bad_row_raises_where_nobody_takes_it(scorer: Scorer) -> None:
    with pytest.raises(RowError, match="table, line 2: no response"):
        score_table(scorer, TABLE)


def test_the_result_goes_back_into_pandas_with_its_index_and_into_polars(scorer: Scorer) -> None:
    frame = pd.DataFrame({"prompt": ["a", "c"], "response": ["x", "y"]}, index=["first", "second"])
    result = score_table(scorer, frame, prefix="im_")
    assert list(result.to_pandas().index) == ["first", "second"]
    polars = pl.from_arrow(result)
    assert isinstance(polars, pl.DataFrame)
    assert polars["im_mtld"].dtype == pl.Float64


def test_a_column_of_ours_and_what_is_no_table_are_input_errors(scorer: Scorer) -> None:
    with pytest.raises(InputError, match="--prefix"):
        score_table(scorer, TABLE.append_column("mtld", pa.array([1, 2, 3])))
    for source in (5, pl.LazyFrame({"a": [1]})):
        with pytest.raises(InputError, match="table: cannot be read"):
            score_table(scorer, source)  # type: ignore[arg-type]


def test_scored_rows_of_files_become_a_table(scorer: Scorer, write_rows: Callable[..., Path]) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b c"}]
    path = write_rows({"messages": turns, "id": 1}, {"messages": turns, "id": 2.5})
    result = to_arrow(scorer.score(read_examples(path)))
    assert result["messages"].to_pylist() == [turns, turns]
    assert result["id"].to_pylist() == [1.0, 2.5]
    assert result.schema.names == ["messages", "id", *ADDED]
    assert to_arrow(scorer.score([Example.of("a", "b")]))["messages"][0].as_py()[1]["content"] == "b"


# Parquet out of score, and into what reads scored files


def test_scored_parquet_is_read_and_selected_like_json_lines(
    run: Callable[..., int], small_bundle: Path, tmp_path: Path, write_rows: Callable[..., Path]
) -> None:
    rows = write_rows(
        {"prompt": "a", "response": "x y z", "tags": ["p"]},
        {"prompt": "b", "response": "?", "more": {"k": None}},
        {"prompt": "c", "response": "z z y x"},
    )
    outs = {}
    for suffix in (".jsonl", ".parquet"):
        out = tmp_path / f"scored{suffix}"
        options = ("--bundle", small_bundle, "--indicators", "mtld,perplexity", "--device", "cpu")
        assert run("score", rows, "-o", out, *options) == 0
        outs[suffix] = ScoredRows(out)
    assert outs[".parquet"].columns == outs[".jsonl"].columns == ("perplexity", "mtld")
    for one, other in zip(outs[".parquet"].rows(), outs[".jsonl"].rows(), strict=True):
        added = {name: other.fields[name] for name in ("mtld", "perplexity", "truncated", "score_notes")}
        assert {name: one.fields[name] for name in added} == added
    notes = [row.fields["score_notes"] for row in outs[".parquet"].rows()]
    assert notes[1] == {"mtld": notes[1]["mtld"]}  # type: ignore[index]
    kept = tmp_path / "kept.parquet"
    assert select(str(tmp_path / "scored.parquet"), kept, SelectionOptions(top=2), by="perplexity").kept == 2
    found = [row.fields for row in open_rows(str(kept))]  # type: ignore[union-attr]
    assert all(set(row) == {"prompt", "response", "tags", "more"} for row in found)
    assert not list(tmp_path.glob("*.partial"))
