from __future__ import annotations

from pathlib import Path

import pytest

from instructmining_report.gathering.records import records_of, same_reason


@pytest.mark.parametrize(
    ("reason", "same"),
    [
        ("not UTF-8: byte 0xe9 at byte 43 of the row", "not UTF-8: byte … at byte … of the row"),
        ("5 rows in the run, knn_6 needs 7", "… rows in the run, knn_6 needs …"),
        ("row has 1,234,567 bytes, more than 64", "row has … bytes, more than …"),
        ("no response: field 'output' is missing", "no response: field 'output' is missing"),
    ],
)
def test_reasons_that_differ_by_numbers_alone_are_one(reason: str, same: str) -> None:
    assert same_reason(reason) == same


def test_without_texts_values_of_rows_are_left_out_and_names_of_fields_stay() -> None:
    reason = "turn has the unknown role 'my secret'; field 'output' is missing"
    assert same_reason(reason, texts=False) == "turn has the unknown role '…'; field 'output' is missing"


def test_records_that_are_missing_or_damaged_are_as_if_not_there(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    found = records_of(str(path))
    assert (found.run, found.selection, found.rejects) == ({}, {}, None)
    Path(f"{path}.run.json").write_bytes(b"{broken")
    Path(f"{path}.selection.json").write_bytes(b"[1]")
    Path(f"{path}.rejects.jsonl").write_bytes(b"{broken\n")
    found = records_of(str(path))
    assert (found.run, found.selection, found.rejects) == ({}, {}, ())
    assert records_of(None).files == ()
