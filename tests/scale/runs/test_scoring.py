"""A run of files without a command line: what its host is told, and what it says where there is none."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
from cut_runs import write_rows

from instructmining.errors import BundleError, MissingRoleError
from instructmining.knn.options import KnnOptions
from instructmining.reading.formats import FieldOptions
from instructmining.reading.options import ReadOptions
from instructmining.writing.statistics import Statistics
from instructmining_scale.runs.host import Host, View
from instructmining_scale.runs.scoring import ScoreRequest, score_files
from instructmining_scale.runs.scoring_run import Run

IN_VAIN = "caution: the neighbour options have no effect: no knn column is computed"


class Told(Host, View):
    """Remembers all that a run tells it."""

    def __init__(self, bundle: Path | None = None) -> None:
        self.lines: list[str] = []
        self.notes: list[str | None] = []
        self.shown: list[str] = []
        self._bundle = bundle

    def say(self, text: str) -> None:
        self.lines.append(text)

    def warn(self, text: str) -> None:
        self.lines.append(text)

    def noting(self, note: Callable[[], str | None], *, on_error: bool = True) -> AbstractContextManager[None]:
        self.notes += [note()] if on_error else []
        return nullcontext()

    def view(self, run: Run) -> View:
        self.shown.append(run.out)
        return self

    def progress(self, statistics: Statistics) -> None:  # noqa: ARG002
        self.shown.append("progress")

    def say_room(self) -> None:
        self.shown.append("room")

    def say_result(self) -> None:
        self.shown.append("result")

    def default_bundle(self) -> Path:
        return self._bundle or super().default_bundle()


@pytest.fixture
def request_of(small_bundle: Path, tmp_path: Path) -> ScoreRequest:
    write_rows(tmp_path / "rows.jsonl", 20)
    return ScoreRequest(
        [str(tmp_path / "rows.jsonl")],
        str(tmp_path / "out.jsonl"),
        FieldOptions(),
        ReadOptions(),
        bundle=str(small_bundle),
        indicators="perplexity",
        device="cpu",
    )


def test_a_run_without_a_host_writes_its_files_and_logs_cautions_alone(
    request_of: ScoreRequest, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    run = score_files(replace(request_of, knn=KnnOptions("exact", "cosine")))
    assert (run.rows_written, run.rejected) == (18, 2)
    assert len(Path(run.out).read_bytes().splitlines()) == 18
    assert [(record.levelno, record.getMessage()) for record in caplog.records] == [(logging.WARNING, IN_VAIN)]
    assert capfd.readouterr() == ("", "")


def test_a_host_is_shown_a_run_and_told_that_it_had_finished(request_of: ScoreRequest) -> None:
    host = Told()
    out = score_files(request_of, host=host).out
    assert host.shown[:2] == [out, "room"]
    assert host.shown[-1] == "result"
    assert set(host.shown[2:-1]) == {"progress"}
    assert host.lines == []
    assert host.notes == [None]  # nothing is kept yet
    again = Told()
    assert score_files(replace(request_of, resume=True), host=again).was_finished
    assert again.lines == [f"{out}: the run is already finished"]
    assert again.shown == []


def test_the_bundle_of_a_run_that_names_none_is_the_hosts(request_of: ScoreRequest, small_bundle: Path) -> None:
    unnamed = replace(request_of, bundle=None)
    with pytest.raises(BundleError, match="no bundle is given, and there is none by default; name the folder of one"):
        score_files(unnamed)
    assert not Path(unnamed.out).exists()
    assert score_files(unnamed, host=Told(small_bundle)).rows_written == 18


def test_a_role_that_the_bundle_lacks_is_an_error_that_names_it(request_of: ScoreRequest) -> None:
    with pytest.raises(MissingRoleError, match="has no role 'unieval'") as raised:
        score_files(replace(request_of, indicators="coherence"))
    assert raised.value.role == "unieval"
    assert not Path(request_of.out).exists()
