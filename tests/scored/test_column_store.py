from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from file_limits import no_file_over

from instructmining.errors import OutputError
from instructmining.scored import column_store as columnstore
from instructmining.scored.column_store import ColumnStore, moments


def test_columns_come_back_whole_known_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columnstore, "CHUNK_ROWS", 2)
    with ColumnStore(["a", "b"]) as store:
        store.add({"a": np.array([1.0, np.nan]), "b": np.array([4.0, 5.0])})
        store.add({"a": np.array([3.0]), "b": np.array([6.0])})
        assert store.rows == 3
        np.testing.assert_array_equal(store.column("a"), [1, np.nan, 3])
        np.testing.assert_array_equal(store.known("a"), [1, 3])
        chunks = list(store.chunks(["b", "a"]))
    np.testing.assert_array_equal(chunks[0], [[4, 1], [5, np.nan]])
    np.testing.assert_array_equal(chunks[1], [[6, 3]])


def test_a_column_that_is_read_is_a_copy() -> None:
    with ColumnStore(["a"]) as store:
        store.put("a", np.array([2.0, 1.0]))
        store.column("a").sort()
        np.testing.assert_array_equal(store.column("a"), [2, 1])


def test_a_store_without_rows_has_columns_without_rows() -> None:
    with ColumnStore(["a"]) as store:
        assert len(store.column("a")) == len(store.known("a")) == 0
        assert list(store.chunks(["a"])) == []


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ColumnStore(["a"]) as store, no_file_over(8):
        store.add({"a": np.arange(3.0)})  # which waits to be written
        with pytest.raises(OutputError, match=r"File too large; TMPDIR names another folder"):
            store.column("a")


def test_moments_are_those_of_a_sample_and_none_where_not_defined() -> None:
    assert moments(np.array([1.0, 2.0, 4.5])) == (2.5, pytest.approx(np.sqrt(3.25)))
    assert moments(np.array([3.0])) == (3.0, None)
    assert moments(np.empty(0)) == (None, None)
