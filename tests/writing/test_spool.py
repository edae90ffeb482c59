from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from file_limits import no_file_over
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining import Example, ScoredRow
from instructmining.errors import OutputError, ResumeError
from instructmining.indicators.columns import rows_of
from instructmining.types import Column, Position, Reject, ScoredWindow, SourceRow
from instructmining.writing.spool import Spool, Vectors


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
        assert rows(one for _, one in spool.windows()) == rows(windows)


def test_the_embeddings_lie_on_disk_and_the_folder_goes_with_the_spool(temporary: Path) -> None:
    with Spool() as spool:
        spool.append(window(0), np.ones((1, 4), dtype=np.float32))
        assert isinstance(spool.embeddings(), np.memmap)
        (folder,) = temporary.iterdir()
        assert (folder / "embeddings.f32").stat().st_size == 16
    assert list(temporary.iterdir()) == []


def test_the_folder_goes_when_an_error_ends_the_run(temporary: Path) -> None:
    with pytest.raises(AttributeError), Spool() as spool:
        spool.append(None, None)  # type: ignore[arg-type]
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
        assert rows(one for _, one in spool.windows()) == rows(windows)
        assert spool.rows == len(spool.embeddings()) == begin


def test_rejects_and_the_position_come_back_with_their_window() -> None:
    rejects = [
        Reject("rows.jsonl", 3, 70, "invalid JSON", b"{\xff"),
        Reject.of(window(4).examples[0], "no place for a turn"),
        Reject.of(Example.of("half \ud800", "é"), "not Unicode"),
    ]
    made = replace(window(0, 1), rejects=rejects, end=Position(1, 9, 400, 5, 3, 2, {"rows.jsonl": "alpaca"}))
    with Spool() as spool:
        spool.append(made, np.ones((2, 2), dtype=np.float32))
        spool.append(replace(window(), rejects=rejects[:1]), None)
        ((_, first), (begin, second)) = spool.windows()
    assert made.end is not None
    assert (first.rejects, first.end) == (rejects, replace(made.end, formats={}))  # which stand in the journal once
    assert (begin, len(second), second.rejects, second.end) == (2, 0, rejects[:1], None)


def test_what_is_behind_a_mark_is_cut_off_and_what_is_written_again_follows(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(window(0, 1), np.full((2, 3), 1, dtype=np.float32))
        mark = spool.mark()
        spool.append(window(2), np.full((1, 3), 2, dtype=np.float32))
    with Spool(tmp_path, mark) as spool:
        assert (spool.rows, spool.count) == (2, 1)
        spool.append(window(7), np.full((1, 3), 7, dtype=np.float32))
        assert spool.embeddings()[:, 0].tolist() == [1, 1, 7]
        assert rows(one for _, one in spool.windows()) == rows([window(0, 1), window(7)])
        assert rows(one for _, one in spool.windows(first=1)) == rows([window(7)])
        assert [begin for begin, _ in spool.windows(first=1)] == [2]


def test_a_file_shorter_than_its_mark_is_refused(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(window(0, 1), np.ones((2, 3), dtype=np.float32))
        mark = spool.mark()
    (tmp_path / "embeddings.f32").write_bytes(b"short")
    with pytest.raises(ResumeError, match=r"embeddings\.f32: is shorter"):
        Spool(tmp_path, mark)


def test_rows_that_came_from_no_file_come_back_too() -> None:
    made = replace(window(0), examples=[Example.of("prompt", "é😀")])
    with Spool() as spool:
        spool.append(made, np.ones((1, 2), dtype=np.float32))
        ((_, found),) = spool.windows()
    assert found.examples == made.examples


def test_vectors_go_on_behind_those_that_were_kept(tmp_path: Path) -> None:
    with Vectors(tmp_path / "vectors") as vectors:
        vectors.append(np.arange(6, dtype=np.float32).reshape(3, 2))
        assert vectors.mark() == {"rows": 3, "size": 2}
    with Vectors(tmp_path / "vectors", rows=2, size=2) as vectors:
        vectors.append(np.full((1, 2), 9, dtype=np.float32))
        assert vectors.mapped().tolist() == [[0, 1], [2, 3], [9, 9]]


# A disk that takes no more


def test_embeddings_that_the_disk_does_not_take_are_an_output_error(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        spool.append(window(0), np.ones((1, 3), dtype=np.float32))
        with no_file_over(64), pytest.raises(OutputError, match=r"embeddings\.f32: File too large"):
            spool.append(window(1), np.ones((1, 100_000), dtype=np.float32))  # more than waits in memory


def test_rows_that_the_disk_does_not_take_are_an_output_error(tmp_path: Path) -> None:
    long = replace(window(0), examples=[Example.of("x" * 100_000, "y")])
    with (
        Spool(tmp_path) as spool,
        no_file_over(64),
        pytest.raises(OutputError, match=r"windows: File too large"),
    ):
        spool.append(long, np.ones((1, 3), dtype=np.float32))


@pytest.mark.parametrize(("size", "name"), [(1, "windows"), (100, "embeddings")])
def test_what_the_disk_does_not_take_in_the_end_is_an_output_error(tmp_path: Path, size: int, name: str) -> None:
    with Spool(tmp_path) as spool:
        spool.append(window(0), np.ones((1, size), dtype=np.float32))  # it waits in memory
        # Shorter by a byte than the embedding, and longer than the window.
        with no_file_over(0 if name == "windows" else 399), pytest.raises(OutputError, match=f"{name}.*File too large"):
            spool.embeddings()


def test_a_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="windows: No such file"):
        Spool(tmp_path / "gone")
