from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining import Example, ScoredRow
from instructmining.columns import rows_of
from instructmining.records import Column, ScoredWindow, SourceRow
from instructmining.spool import Spool


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the spool puts its folder, empty but for it."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def window(*numbers: int) -> ScoredWindow:
    examples = []
    for number in numbers:
        source = SourceRow("rows.jsonl", number + 1, number * 7, b'{"instruction": "\xc3\xa9"}', {"instruction": "é"})
        examples.append(Example(Example.of(f"prompt {number}", "é😀").turns, source))
    columns = {
        "reward": Column(np.array(numbers) / 3),
        "mtld": Column(np.full(len(numbers), np.nan), dict.fromkeys(range(len(numbers)), "no word")),
    }
    return ScoredWindow(examples, [("embedding",)] * len(numbers), columns)


def rows(windows: Iterable[ScoredWindow]) -> list[list[ScoredRow]]:
    return [list(rows_of(one, ["reward", "mtld"])) for one in windows]


def test_windows_and_embeddings_come_back_as_they_were() -> None:
    rng = np.random.default_rng(0)
    windows = [window(*range(begin, begin + size)) for begin, size in ((0, 3), (3, 1), (4, 5))]
    embeddings = [rng.normal(size=(len(one), 4)).astype(np.float32) for one in windows]
    with Spool() as spool:
        for one, embedding in zip(windows, embeddings, strict=True):
            spool.append(one, embedding)
        assert spool.rows == 9
        found = spool.embeddings()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, np.concatenate(embeddings))
        assert rows(spool.windows()) == rows(windows)


def test_the_embeddings_lie_on_disk_and_the_folder_goes_with_the_spool(temporary: Path) -> None:
    with Spool() as spool:
        spool.append(window(0), np.ones((1, 4), dtype=np.float32))
        assert isinstance(spool.embeddings(), np.memmap)
        (folder,) = temporary.iterdir()
        assert (folder / "embeddings.f32").stat().st_size == 16
    assert list(temporary.iterdir()) == []


def test_the_folder_goes_when_an_error_ends_the_run(temporary: Path) -> None:
    with pytest.raises(AttributeError), Spool() as spool:
        spool.append(window(0), None)  # type: ignore[arg-type]
    assert list(temporary.iterdir()) == []


def test_an_empty_spool_has_no_rows_and_no_embeddings() -> None:
    with Spool() as spool:
        assert spool.rows == 0
        assert spool.embeddings().shape == (0, 0)
        assert list(spool.windows()) == []


def test_embeddings_that_are_a_view_are_written_in_the_order_of_their_rows() -> None:
    wide = np.arange(12, dtype=np.float32).reshape(2, 6)
    with Spool() as spool:
        spool.append(window(0, 1), wide[:, ::2])
        assert spool.embeddings().tolist() == [[0, 2, 4], [6, 8, 10]]


@settings(max_examples=25, deadline=None)
@given(sizes=st.lists(st.integers(1, 6), max_size=6))
def test_any_windows_come_back_in_order(sizes: list[int]) -> None:
    windows, begin = [], 0
    with Spool() as spool:
        for size in sizes:
            windows.append(window(*range(begin, begin + size)))
            spool.append(windows[-1], np.full((size, 2), begin, dtype=np.float32))
            begin += size
        assert rows(spool.windows()) == rows(windows)
        assert spool.rows == len(spool.embeddings()) == begin
