"""The plan of a run in shards: kept once, and read back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from instructmining.errors import OutputError
from instructmining.reading.blocks import Cut
from instructmining_scale import plan as plans
from instructmining_scale.plan import Plan, PlanError


def _plan(mark: int = 0) -> Plan:
    return Plan(
        3,
        ".jsonl",
        [("a.jsonl", 10), ("b.jsonl", 20)],
        [Cut(0, 8), Cut(1, 0)],
        {"mark": mark, "limit": None},
        {"id": "r"},
    )


def test_a_plan_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    assert Plan.load(folder) is None
    kept = _plan().kept_in(folder)
    assert kept == Plan.load(folder) == _plan()
    assert kept.digest == _plan().digest != _plan(1).digest
    assert [kept.bounds(shard) for shard in (1, 2, 3)] == [
        (None, Cut(0, 8)),
        (Cut(0, 8), Cut(1, 0)),
        (Cut(1, 0), None),
    ]
    assert kept.part(2, spooled=False) == "part-00002-of-00003.jsonl"
    assert kept.part(2, spooled=True) == "part-00002-of-00003.windows"


def test_of_many_that_plan_at_once_one_is_first_and_the_others_follow(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda mark: _plan(mark).kept_in(tmp_path), range(64)))
    assert len({plan.digest for plan in kept}) == 1
    assert [path.name for path in tmp_path.iterdir()] == [plans.NAME]


def test_a_plan_is_kept_where_the_file_system_has_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(plans.os, "link", link)
    assert _plan().kept_in(tmp_path) == _plan()
    assert _plan(1).kept_in(tmp_path) == _plan()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 1}', b'{"format": 1, "shards": 1, "cuts": [[1]]}'])
def test_a_damaged_plan_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / plans.NAME).write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json: is no plan of a run in shards, or is damaged"):
        Plan.load(tmp_path)


def test_a_plan_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / plans.NAME).write_bytes(b'{"format": 2}')
    with pytest.raises(PlanError, match="is of format 2; wanted 1"):
        Plan.load(tmp_path)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=r"plan\.json: "):
        _plan().kept_in(tmp_path / "file")
