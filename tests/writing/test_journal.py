from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

import numpy as np
import orjson
import pytest
from file_limits import no_file_over
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import OutputError, ResumeError
from instructmining.inference.batching import Batch, batches
from instructmining.tokenizing.truncation import Tokens
from instructmining.writing import journal
from instructmining.writing.atomic import is_unfinished
from instructmining.writing.journal import BatchLog, Journal, Outputs


def batch(*lengths: int, seed: int = 0) -> Batch:
    rng = np.random.default_rng(seed)
    texts = [Tokens(rng.integers(1, 1000, size=length), np.arange(1, length)) for length in lengths]
    (made,) = batches(texts, max_batch_tokens=10_000)
    return made


def outputs_of(batch: Batch) -> dict[str, np.ndarray]:
    return {
        "nll": batch.ids[batch.scored[:, 0], batch.scored[:, 1]].astype(np.float32),
        "embedding": batch.ids[:, :2].astype(np.float32) / 3,
    }


def fill(folder: Path, batches_of: list[Batch]) -> Path:
    with Journal.begin(folder, {"a": 1}) as made:
        for one in batches_of:
            made.batches.add(one, outputs_of(one))
    return folder / "batches.0"


def resumed(folder: Path) -> Journal:
    found = Journal.resume(folder)
    assert found is not None
    return found


def outputs_left(log: BatchLog) -> list[Outputs]:
    """What an earlier run left, in its order."""
    return [outputs for _, outputs in log.matched(iter(range(len(log))))]


def assert_holds(found: Journal, wanted: list[Batch]) -> None:
    assert len(found.batches) == len(wanted)
    for kept, one in zip(outputs_left(found.batches), wanted, strict=True):
        kept.check(one)
        for name, values in outputs_of(one).items():
            np.testing.assert_array_equal(kept.arrays[name], values)
            assert kept.arrays[name].dtype == np.float32


BATCHES = [batch(3, 5, 2, seed=1), batch(9, seed=2), batch(4, 4, seed=3)]


# Batches


def test_what_batches_gave_comes_back_once_in_order(tmp_path: Path) -> None:
    fill(tmp_path, BATCHES)
    with resumed(tmp_path) as found:
        assert_holds(found, BATCHES)
        assert outputs_left(found.batches) == []


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_log_cut_at_any_byte_gives_the_batches_before_the_cut_and_takes_more(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("log")
    path = fill(folder, BATCHES)
    content = path.read_bytes()
    ends = [0, *(fill_size(BATCHES[:number]) for number in range(1, len(BATCHES) + 1))]
    assert ends[-1] == len(content)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = sum(end <= cut for end in ends) - 1
    with resumed(folder) as found:
        assert_holds(found, BATCHES[:whole])
        found.batches.add(BATCHES[0], outputs_of(BATCHES[0]))
    with resumed(folder) as again:
        assert_holds(again, [*BATCHES[:whole], BATCHES[0]])


def fill_size(logged: list[Batch]) -> int:
    """Bytes of a log of these batches."""
    import tempfile  # noqa: PLC0415 - here alone

    with tempfile.TemporaryDirectory() as folder:
        return fill(Path(folder), logged).stat().st_size


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_a_changed_byte_ends_the_log_before_it(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("log")
    path = fill(folder, BATCHES)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    sound = sum(fill_size(BATCHES[:number]) <= place for number in range(1, len(BATCHES) + 1))
    with resumed(folder) as found:
        assert_holds(found, BATCHES[:sound])


def test_results_of_other_rows_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, BATCHES)
    with resumed(tmp_path) as found:
        everything = outputs_left(found.batches)
    for kept, own in zip(everything, BATCHES, strict=True):
        for other in (*BATCHES, batch(3, 5, 2, seed=9)):
            if other is not own:
                with pytest.raises(ResumeError, match=r"^the interrupted run holds results of other rows"):
                    kept.check(other)


def test_outputs_of_any_float_are_kept_in_single_precision(tmp_path: Path) -> None:
    given = {"half": np.array([[1.5], [2.5]], dtype=np.float16), "double": np.arange(6.0).reshape(2, 3)[:, ::2]}
    with Journal.begin(tmp_path, {}) as made:
        made.batches.add(BATCHES[0], given)  # type: ignore[arg-type]
    with resumed(tmp_path) as found:
        (kept,) = outputs_left(found.batches)
    assert {name: values.tolist() for name, values in kept.arrays.items()} == {
        "half": [[1.5], [2.5]],
        "double": [[0.0, 2.0], [3.0, 5.0]],
    }


def test_results_of_the_same_tokens_in_other_rows_are_refused(tmp_path: Path) -> None:
    nothing = np.array([], dtype=np.int64)
    two, three = (
        [Tokens(ids, nothing) for ids in np.arange(1, 7, dtype=np.int64).reshape(rows, -1)] for rows in (2, 3)
    )
    (wide,), (narrow,) = (list(batches(texts, max_batch_tokens=100)) for texts in (two, three))
    with Journal.begin(tmp_path, {}) as made:
        made.batches.add(wide, {})
    with resumed(tmp_path) as found:
        (kept,) = outputs_left(found.batches)
    kept.check(wide)
    with pytest.raises(ResumeError, match="results of other rows"):
        kept.check(narrow)


class Clock:
    """Seconds as they are set."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_batches_are_synced_to_the_disk_every_five_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    synced: list[float] = []
    monkeypatch.setattr(journal.os, "fsync", lambda _: synced.append(clock.now))
    log = BatchLog(tmp_path / "log", clock)
    for clock.now in (0.0, 1.0, 4.9, 5.0, 9.9, 12.0, 16.9, 17.0):
        log.add(BATCHES[0], outputs_of(BATCHES[0]))
    log.close()
    assert synced == [5.0, 12.0, 17.0]


# Commits


def test_a_commit_is_found_again_and_makes_the_batches_before_it_superfluous(tmp_path: Path) -> None:
    data = (tmp_path / "data").open("wb")
    with Journal.begin(tmp_path, MappingProxyType({"rows": [1, 2]})) as made:
        assert made.empty
        made.batches.add(BATCHES[0], outputs_of(BATCHES[0]))
        assert not made.empty
        data.write(b"abc")
        made.commit("written", {"bytes": 3}, [data])
        assert not made.empty  # a later run would take over the mark
        made.batches.add(BATCHES[1], outputs_of(BATCHES[1]))
    with resumed(tmp_path) as found:
        assert found.identity == {"rows": [1, 2]}
        assert found.marks == {"written": {"bytes": 3}}
        assert (tmp_path / "data").read_bytes() == b"abc"
        assert_holds(found, BATCHES[1:2])
    data.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batches.1", "data", "state.json"]


def test_marks_of_several_names_stay_beside_each_other_and_the_later_of_one_name_counts(tmp_path: Path) -> None:
    with Journal.begin(tmp_path, {}) as made:
        for number, name in enumerate(["spooled", "written", "spooled"]):
            made.commit(name, {"number": number})
    with resumed(tmp_path) as found:
        assert found.marks == {"spooled": {"number": 2}, "written": {"number": 1}}


def test_a_state_that_was_not_replaced_whole_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path, BATCHES)
    (tmp_path / ".state.json.0123abcd.instructmining").write_bytes(b'{"version"')
    with resumed(tmp_path) as found:
        assert_holds(found, BATCHES)


def test_a_commit_is_due_every_five_seconds(tmp_path: Path) -> None:
    clock = Clock()
    with Journal.begin(tmp_path, {}, clock) as made:
        for clock.now, due in ((0.0, False), (4.9, False), (5.0, True), (7.0, True)):
            assert made.due == due
        made.commit("written", {})
        for clock.now, due in ((7.0, False), (11.9, False), (12.0, True)):
            assert made.due == due
    again = Journal.resume(tmp_path, clock)
    assert again is not None
    with again:
        for clock.now, due in ((16.9, False), (17.0, True)):
            assert again.due == due


def test_where_no_run_was_begun_there_is_none_to_go_on_with(tmp_path: Path) -> None:
    assert Journal.resume(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b'{"version": 2}', b"null", b"\xff"])
def test_a_damaged_state_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ResumeError, match=r"state\.json: is damaged; give --overwrite"):
        Journal.resume(tmp_path)


@pytest.mark.parametrize("version", [1, 3])
def test_a_state_of_another_version_is_refused(tmp_path: Path, version: int) -> None:
    state = f'{{"version": {version}, "identity": {{}}, "marks": {{}}, "generation": 0}}'
    (tmp_path / "state.json").write_text(state, encoding="utf-8")
    with pytest.raises(ResumeError, match=rf"state\.json: is of version {version}; give --overwrite to start over$"):
        Journal.resume(tmp_path)


def test_a_state_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state.json").mkdir()
    with pytest.raises(ResumeError, match=r"state\.json: Is a directory"):
        Journal.resume(tmp_path)


# What the disk must have, in order


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files and folders that were waited for."""
    names: list[str] = []
    monkeypatch.setattr(journal.os, "fsync", lambda file: names.append(Path(f"/proc/self/fd/{file}").readlink().name))
    return names


def test_what_a_mark_speaks_of_is_on_the_disk_before_the_mark(tmp_path: Path, synced: list[str]) -> None:
    with Journal.begin(tmp_path, {}) as made, (tmp_path / "data").open("wb") as data:
        data.write(b"abc")
        synced.clear()
        made.commit("written", {"bytes": 3}, [data])
    assert [is_unfinished(name, "state.json") or name for name in synced] == ["data", True, tmp_path.name]


def test_what_is_waited_for_was_given_to_the_system_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, int] = {}

    def fsync(file: int) -> None:
        sizes[Path(f"/proc/self/fd/{file}").readlink().name] = os.fstat(file).st_size

    monkeypatch.setattr(journal.os, "fsync", fsync)
    with Journal.begin(tmp_path, {}) as made, (tmp_path / "data").open("wb") as data:
        data.write(b"abcd")
        made.commit("written", {}, [data])
    assert sizes["data"] == 4
    assert all(size > 2 for name, size in sizes.items() if name != tmp_path.name)


def test_a_mark_is_not_written_where_the_disk_lacks_what_it_speaks_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal.begin(tmp_path, {}) as made, (tmp_path / "data").open("wb") as data:

        def fsync(file: int) -> None:
            if file == data.fileno():
                raise OSError(5, "Input/output error")

        monkeypatch.setattr(journal.os, "fsync", fsync)
        with pytest.raises(OutputError, match=f"^{tmp_path}: Input/output error"):
            made.commit("written", {"bytes": 3}, [data])
    with resumed(tmp_path) as found:
        assert found.marks == {}


def test_the_batches_of_a_journal_are_synced_by_its_clock_also_behind_a_commit(
    tmp_path: Path, synced: list[str]
) -> None:
    clock = Clock()
    with Journal.begin(tmp_path, {}, clock) as made:
        synced.clear()
        for clock.now in (4.0, 5.0):
            made.batches.add(BATCHES[0], outputs_of(BATCHES[0]))
        assert synced == ["batches.0"]
        made.commit("written", {})
        synced.clear()
        for clock.now in (9.0, 10.0):
            made.batches.add(BATCHES[0], outputs_of(BATCHES[0]))
        assert synced == ["batches.1"]


# A disk that takes no more


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal.os, "fsync", fsync)
    return iter(())


@pytest.mark.usefixtures("full_disk")
def test_a_disk_that_takes_no_commit_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left on device"):
        Journal.begin(tmp_path, {})
    with (tmp_path / "data").open("wb") as data, Journal(tmp_path, {}, {}, 0) as made:
        for files in ([data], []):
            with pytest.raises(OutputError, match="No space left on device"):
                made.commit("written", {}, files)


def test_results_that_the_disk_does_not_take_are_an_output_error_and_closing_says_no_more(tmp_path: Path) -> None:
    log = BatchLog(tmp_path / "log")
    with no_file_over(64):
        for _ in range(2):
            with pytest.raises(OutputError, match="log: File too large"):
                log.add(BATCHES[0], outputs_of(BATCHES[0]))
        log.close()
    again = BatchLog(tmp_path / "log")
    assert len(again) == 0  # what was written of it is no whole record
    again.close()


def test_a_log_where_none_can_be_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="log: No such file"):
        BatchLog(tmp_path / "gone" / "log")


@pytest.mark.parametrize(
    "altered", [{"marks": []}, {"marks": {"finished": {}}}, {"generation": "../x"}, {"identity": None}, {"crc": 0}]
)
def test_a_state_that_was_altered_is_refused(tmp_path: Path, altered: dict[str, object]) -> None:
    with Journal.begin(tmp_path, {"a": 0.1, "b": [None, "é"]}) as found:
        found.commit("written", {"rows": 3, "share": 1 / 3})
    with resumed(tmp_path) as found:
        assert found.marks["written"] == {"rows": 3, "share": 1 / 3}
    path = tmp_path / "state.json"
    path.write_bytes(orjson.dumps(orjson.loads(path.read_bytes()) | altered))
    with pytest.raises(ResumeError, match=r"state\.json: is damaged; give --overwrite to start over"):
        Journal.resume(tmp_path)
