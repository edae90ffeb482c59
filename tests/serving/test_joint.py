from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from instructmining import Scorer
from instructmining.errors import DeviceError
from instructmining.inference.executor import Job
from instructmining.reading.examples import read_examples
from instructmining.types import InputWindow
from instructmining_serving.joint import JointScoring, Outputs

REQUESTS = [
    [{"prompt": "Name a colour.", "response": "Green."}, {"prompt": "Go.", "response": ""}],
    [],
    [{"prompt": f"Count to {n}.", "response": "one two three four " * n} for n in range(1, 20)],
    [{"prompt": "Name a colour.", "response": "Green."}, {"prompt": "Say hello.", "response": "Hello there."}],
]


def windows() -> list[InputWindow]:
    return [next(read_examples(rows).windows(100)) if rows else InputWindow([]) for rows in REQUESTS]


@pytest.fixture(scope="module")
def scorer(small_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(small_bundle, indicators="reward,perplexity,ifd,mtld,input_length", device="cpu") as opened:
        yield opened


def test_requests_share_batches_and_each_gets_the_numbers_of_score(scorer: Scorer) -> None:
    requests = scorer.requests()
    jobs: list[Job] = []

    def compute(given: Sequence[Job]) -> Iterator[Outputs]:
        jobs.extend(given)
        return (done.outputs for done in requests.executor.run(given))

    found = JointScoring(requests, compute).score(windows())
    for rows, window in zip(REQUESTS, found, strict=True):
        assert not isinstance(window, DeviceError)
        good = [row for row in rows if row["response"]]
        assert len(window.rejects) == len(rows) - len(good)
        for row, one in zip(good, scorer.rows(window), strict=True):
            (alone,) = scorer.score([row])
            assert one.columns == pytest.approx(alone.columns, rel=1e-5, abs=1e-5)
            assert one.notes == alone.notes
    assert all(job.batch.ids.size <= 512 for job in jobs)
    texts = sum(len(stream.texts) for window in windows() for stream in requests.prepare(window).parts)
    assert sum(len(job.batch.members) for job in jobs) == texts
    assert len(jobs) < texts / 2


def test_a_batch_that_fails_fails_the_requests_in_it_alone(scorer: Scorer) -> None:
    requests = scorer.requests()

    def compute(given: Sequence[Job]) -> Iterator[Outputs | DeviceError]:
        for job in given:
            if job.batch.ids.shape[1] > 60:
                yield DeviceError("too wide")
            else:
                (done,) = requests.executor.run([job])
                yield done.outputs

    found = JointScoring(requests, compute).score(windows())
    assert [isinstance(window, DeviceError) for window in found] == [False, False, True, False]
