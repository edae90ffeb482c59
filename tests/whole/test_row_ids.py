"""Ids of rows are in OUT, in its selections and in the rejects what they are in the input."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from instructmining.reading.rows import open_rows
from instructmining.types import SourceRow
from instructmining_cli.app import app

UUIDS = [uuid.UUID(bytes=b"0123456789abcdef"), uuid.UUID(bytes=bytes(range(200, 216))), uuid.UUID(int=1)]
BYTES = [{"base64": base64.b64encode(one.bytes).decode()} for one in UUIDS]
TABLE = {
    "id": (pa.array([2**63 - 1, -(2**63), 2**53 + 1]), [2**63 - 1, -(2**63), 2**53 + 1]),
    "unsigned": (pa.array([2**64 - 1, 0, 2**63], pa.uint64()), [2**64 - 1, 0, 2**63]),
    "beyond": (pa.array([Decimal(10**30 + 1)] * 3, pa.decimal128(38, 0)), [10**30 + 1] * 3),
    "_id": (pa.array(["007", "1e5", "null"]), ["007", "1e5", "null"]),
    "large": (pa.array(["a", "b", "c"], pa.large_string()), ["a", "b", "c"]),
    "named": (pa.array(["x", "y", "x"]).dictionary_encode(), ["x", "y", "x"]),
    "uuid": (pa.array([one.bytes for one in UUIDS], pa.uuid()), [str(one) for one in UUIDS]),
    "bytes": (pa.array([one.bytes for one in UUIDS], pa.binary(16)), BYTES),  # the first is text by chance
    "inside": (
        pa.array([[{"id": one.bytes}] for one in UUIDS], pa.list_(pa.struct([("id", pa.binary(16))]))),
        [[{"id": one}] for one in BYTES],
    ),
    "missing": (pa.array([None, 2**62 + 1, None], pa.int64()), [None, 2**62 + 1, None]),
    "__index_level_0__": (pa.array([10, 20, 30]), [10, 20, 30]),
}
ROWS = {"instruction": pa.array(["a", "b", "c"]), "output": pa.array(["d e", "f", ""])}


def run(*arguments: str) -> None:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code in {0, 3}, result.output


def fields_of(path: Path) -> list[Mapping[str, object]]:
    return [row.fields for row in open_rows(str(path)) if isinstance(row, SourceRow)]


def score(source: Path, out: Path, bundle: Path, *columns: str) -> None:
    run("score", str(source), "-o", str(out), "--indicators", ",".join(columns), "--bundle", str(bundle))


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_ids_of_a_table_stay_what_they_are(small_bundle: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    table = pa.table({name: array for name, (array, _) in TABLE.items()} | ROWS)
    source = tmp_path / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(table, source)
    else:
        with pa.ipc.new_file(source, table.schema) as file:
            file.write_table(table)
    wanted = [{name: said[number] for name, (_, said) in TABLE.items()} for number in range(3)]
    out, again, best = (tmp_path / f"{name}.{suffix}" for name in ("out", "again", "best"))
    score(source, out, small_bundle, "mtld")
    score(out, again, small_bundle, "mtld", "output_length")
    run("select", str(again), "-o", str(best), "--by", "output_length", "--top", "2")
    for path, expected in ((out, wanted[:2]), (again, wanted[:2]), (best, [wanted[1], wanted[0]])):
        assert [{name: fields[name] for name in TABLE} for fields in fields_of(path)] == expected
    (reject,) = map(json.loads, Path(f"{out}.rejects.jsonl").read_text().splitlines())
    assert {name: json.loads(reject["row"])[name] for name in TABLE} == wanted[2]
    assert (reject["line"], reject["offset"]) == (3, 2)  # the row's number, and of the rows before it
    if suffix == "parquet":
        schema = pq.read_schema(best)
        assert (schema.field("id").type, schema.field("unsigned").type) == (pa.int64(), pa.uint64())


def test_ids_of_json_lines_keep_their_text(small_bundle: Path, tmp_path: Path) -> None:
    ids = ["12345678901234567890123", "18446744073709551615", "1.50", '"007"', "1E3", "true", "null", '{"$oid": "65a"}']
    lines = [f'{{"id": {one}, "instruction": "a", "output": "b"}}' for one in ids]
    source, out, table = (tmp_path / name for name in ("rows.jsonl", "out.jsonl", "out.parquet"))
    source.write_text("\n".join(lines))
    score(source, out, small_bundle, "mtld")
    assert all(line.startswith(before[:-1]) for before, line in zip(lines, out.read_text().splitlines(), strict=True))
    score(source, table, small_bundle, "mtld")
    assert [fields["id"] for fields in fields_of(table)] == [json.loads(one) for one in ids]


def test_ids_of_csv_are_text(small_bundle: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "rows.csv", tmp_path / "out.parquet"
    source.write_text("id,instruction,output\n007,a,b\n12345678901234567890123,a,b\n")
    score(source, out, small_bundle, "mtld")
    assert pq.read_table(out)["id"].to_pylist() == ["007", "12345678901234567890123"]
