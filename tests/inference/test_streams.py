from __future__ import annotations

import contextlib
import itertools
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from windows_by_hand import (
    COHERENT,
    CONVERSATIONS,
    DOCUMENTS,
    EXAMPLE,
    NATURAL,
    RESPONSES,
    part,
    text,
)

from instructmining import Statistics
from instructmining.bundle import ROLES
from instructmining.errors import ResumeError
from instructmining.indicators.base import Measurements
from instructmining.inference.batching import Batch, Batching
from instructmining.inference.devices import Device
from instructmining.inference.executor import MOST_HELD, Done, Executor, Job
from instructmining.inference.streams import count, measure
from instructmining.tokenizing.windows import StreamTexts, TokenizedWindow
from instructmining.writing.journal import Journal


class SumSession:
    """A graph whose outputs are sums that can be checked by hand: padding would show in them."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, batch: Batch, outputs: Sequence[str]) -> Mapping[str, NDArray[np.float32]]:
        self.shapes.append(batch.ids.shape)
        totals = (batch.ids * batch.mask).sum(axis=1)
        values = {
            "nll": batch.ids[batch.scored[:, 0], batch.scored[:, 1]],
            "reward": totals,
            "embedding": np.stack([totals, batch.ids[:, 0]], axis=1),
            "yes": totals / 100,
        }
        return {name: values[name].astype(np.float32) for name in outputs}

    def jobs(self, jobs: Iterable[Job]) -> Iterator[Done]:
        for job in jobs:
            yield Done(job, self.run(job.batch, job.outputs), 0.5, Device("cpu"))


class SumExecutor:
    """Runs every graph as the sums of a session."""

    def __init__(self, session: SumSession) -> None:
        self.run = session.jobs
        self.devices = (Device("cpu"),)


def measured(
    rows: int, *parts: StreamTexts, max_batch_tokens: int = 16, statistics: Statistics | None = None
) -> tuple[Measurements, list[float], SumSession]:
    """The measurements, the share of the window at each report, and the session that ran."""
    counts = statistics if statistics is not None else Statistics()
    shares: list[float] = []
    session = SumSession()
    (found,) = measure(
        [TokenizedWindow([EXAMPLE] * rows, list(parts), None, None)],
        cast(Executor, SumExecutor(session)),
        Batching(512, dict.fromkeys(ROLES, max_batch_tokens)),
        statistics=counts,
        report=lambda: shares.append(counts.rows_computed / rows),
    )
    return found, shares, session


def test_values_come_back_to_their_rows_whatever_the_batches() -> None:
    texts = [text(1, 2, scored=[1]), text(3, 4, 5, 6, scored=[1, 3]), text(7)]
    for max_batch_tokens in (1, 4, 100):
        found, _, _ = measured(3, part(CONVERSATIONS, texts), max_batch_tokens=max_batch_tokens)
        assert found.conversation_nll is not None
        assert found.reward is not None
        assert found.conversation_nll.total.tolist() == [2, 10, 0]
        assert found.conversation_nll.tokens.tolist() == [1, 2, 0]
        assert found.reward.tolist() == [3, 18, 7]


def test_texts_of_one_row_are_summed_and_a_row_without_text_has_no_token() -> None:
    texts = [text(1, 2, scored=[1]), text(1, 5, 6, scored=[1, 2]), text(9, 9, scored=[1])]
    found, _, _ = measured(4, part(RESPONSES, texts, owners=[0, 0, 3]))
    assert found.response_nll is not None
    assert found.response_nll.total.tolist() == [13, 0, 0, 9]
    assert found.response_nll.tokens.tolist() == [3, 0, 0, 1]
    assert found.conversation_nll is None
    assert found.reward is None


def test_embeddings_come_back_to_their_rows() -> None:
    found, _, _ = measured(3, part(DOCUMENTS, [text(1, 2), text(3, 4, 5), text(6)]), max_batch_tokens=3)
    assert found.embedding is not None
    assert found.embedding.tolist() == [[3, 1], [12, 3], [6, 6]]
    assert found.embedding.dtype == np.float32


def test_answers_come_back_to_their_rows_by_question() -> None:
    texts = [text(1, 2), text(3, 4, 5), text(6)]
    found, _, _ = measured(3, part(NATURAL, texts), part(COHERENT, texts[::-1]), max_batch_tokens=3)
    assert list(found.answers) == ["naturalness", "coherence"]
    np.testing.assert_allclose(found.answers["naturalness"], [0.03, 0.12, 0.06], rtol=1e-6)
    np.testing.assert_allclose(found.answers["coherence"], [0.06, 0.12, 0.03], rtol=1e-6)
    assert found.answers["coherence"].dtype == np.float64


def test_of_equal_texts_one_is_computed_and_all_of_their_rows_have_its_values() -> None:
    statistics = Statistics()
    one, other = text(1, 2, 5, scored=[1, 2]), text(3, 4, scored=[1])
    found, shares, session = measured(
        4,
        part(CONVERSATIONS, [one, other, text(1, 2, 5, scored=[1, 2]), one]),
        part(RESPONSES, [other, other, one, other], owners=[0, 0, 2, 2]),
        part(DOCUMENTS, [other] * 4),
        part(NATURAL, [one, one, other, one]),
        max_batch_tokens=1,
        statistics=statistics,
    )
    assert found.conversation_nll is not None
    assert found.response_nll is not None
    assert found.reward is not None
    assert found.embedding is not None
    assert found.conversation_nll.total.tolist() == [7, 4, 7, 7]
    assert found.conversation_nll.tokens.tolist() == [2, 1, 2, 2]
    assert found.reward.tolist() == [8, 7, 8, 8]
    assert found.response_nll.total.tolist() == [8, 0, 11, 0]
    assert found.response_nll.tokens.tolist() == [2, 0, 3, 0]
    assert found.embedding.tolist() == [[7, 3]] * 4
    np.testing.assert_allclose(found.answers["naturalness"], [0.08, 0.08, 0.07, 0.08], rtol=1e-6)
    assert session.shapes == [(1, 3), (1, 2), (1, 3), (1, 2), (1, 2), (1, 3), (1, 2)]
    assert statistics.tokens == Counter({"perplexity+reward": 5, "perplexity": 5, "embedding": 2, "unieval": 5})
    assert statistics.padded.total() == 17
    assert shares[-1] == 1


def test_equal_tokens_of_which_others_are_scored_are_another_text() -> None:
    texts = [text(1, 2, 5, scored=[1]), text(1, 2, 5, scored=[1, 2]), text(1, 2, 5)]
    found, _, session = measured(3, part(CONVERSATIONS, texts), max_batch_tokens=1)
    assert found.conversation_nll is not None
    assert found.conversation_nll.total.tolist() == [2, 7, 0]
    assert len(session.shapes) == 3


def test_a_cut_text_that_is_equal_to_a_whole_one_is_said_of_its_own_row_alone() -> None:
    found, _, session = measured(3, part(DOCUMENTS, [text(1, 2), text(1, 2, truncated=True), text(1, 2)]))
    assert found.truncated == [[], ["embedding"], []]
    assert session.shapes == [(1, 2)]


def test_a_window_without_rows_has_no_values() -> None:
    found, shares, _ = measured(0, part(CONVERSATIONS, []), part(DOCUMENTS, []), part(NATURAL, []))
    assert found.reward is not None
    assert found.conversation_nll is not None
    assert found.reward.shape == found.answers["naturalness"].shape == found.conversation_nll.total.shape == (0,)
    assert found.embedding is None
    assert shares == []


def test_what_nobody_asked_for_is_absent_and_the_counts_are_the_windows() -> None:
    window = TokenizedWindow([EXAMPLE], [], np.array([3]), np.array([4]))
    found = count(window, Statistics())
    assert (found.conversation_nll, found.response_nll, found.reward, found.embedding) == (None, None, None, None)
    assert found.answers == {}
    assert found.prompt_tokens is window.prompt_tokens
    assert found.response_tokens is window.response_tokens
    assert found.truncated == [[]]


def test_tokens_and_padding_are_counted_by_role() -> None:
    statistics = Statistics()
    texts = [text(1, 2, scored=[1]), text(3, 4, 5, 6, scored=[1])]
    _, _, session = measured(2, part(CONVERSATIONS, texts), part(DOCUMENTS, [text(1), text(2)]), statistics=statistics)
    assert session.shapes == [(2, 4), (2, 1)]
    assert statistics.tokens == Counter({"perplexity+reward": 6, "embedding": 2})
    assert statistics.padded == Counter({"perplexity+reward": 8, "embedding": 2})
    assert statistics.scored == Counter({"perplexity+reward": 2, "embedding": 0})
    assert statistics.texts == Counter({"perplexity+reward": 2, "embedding": 2})
    assert statistics.busy == {"cpu (1 threads)": 1.0}
    assert statistics.padding_share == pytest.approx(0.2)
    assert set(statistics.seconds) == {"model:perplexity+reward:conversation", "model:embedding:document"}


def test_the_share_of_the_window_rises_to_the_whole_over_all_streams() -> None:
    texts = [text(1, 2, scored=[1]), text(3, 4, scored=[1])]
    _, shares, _ = measured(2, part(CONVERSATIONS, texts), part(DOCUMENTS, texts), max_batch_tokens=2)
    assert shares == [0.25, 0.5, 0.75, 1.0]


def test_a_row_is_truncated_once_for_each_role_of_which_any_text_was_cut() -> None:
    statistics = Statistics()
    cut = text(1, 2, scored=[1], truncated=True)
    whole = text(1, 2, scored=[1])
    found, _, _ = measured(
        3,
        part(CONVERSATIONS, [cut, whole, whole]),
        part(RESPONSES, [cut, cut, cut], owners=[0, 0, 1]),
        part(DOCUMENTS, [whole, whole, whole]),
        statistics=statistics,
    )
    assert found.truncated == [["perplexity", "reward"], ["perplexity"], []]
    assert statistics.truncated == Counter(perplexity=2, reward=1)


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 20), min_size=1, max_size=30),
    words=st.sampled_from([1, 2, 98]),  # few words make many equal texts
    max_batch_tokens=st.integers(1, 60),
    seed=st.integers(0, 1000),
)
def test_any_texts_under_any_budget_give_the_sums_of_each_row(
    lengths: list[int], words: int, max_batch_tokens: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    texts = [text(*rng.integers(1, 1 + words, size=n), scored=np.flatnonzero(rng.random(n) < 0.5)) for n in lengths]
    owners = rng.integers(0, 5, size=len(texts))
    statistics = Statistics()
    found, shares, _ = measured(
        5, part(RESPONSES, texts, owners.tolist()), max_batch_tokens=max_batch_tokens, statistics=statistics
    )
    assert found.response_nll is not None
    for row in range(5):
        mine = [one for one, owner in zip(texts, owners, strict=True) if owner == row]
        assert found.response_nll.total[row] == sum(int(one.ids[one.scored].sum()) for one in mine)
        assert found.response_nll.tokens[row] == sum(len(one.scored) for one in mine)
    distinct = {(tuple(one.ids), tuple(one.scored)) for one in texts}
    assert statistics.tokens == Counter(perplexity=sum(len(ids) for ids, _ in distinct))
    assert shares[-1] == 1


# Several windows, and a run that goes on


def of_windows(
    windows: Iterable[TokenizedWindow],
    session: SumSession,
    *,
    journal: Journal | None = None,
    report: Callable[[], None] = lambda: None,
) -> Generator[Measurements, None, None]:
    return measure(
        windows,
        cast(Executor, SumExecutor(session)),
        Batching(512, dict.fromkeys(ROLES, 2)),
        statistics=Statistics(),
        report=report,
        journal=journal,
    )


def window_of(*ids: int) -> TokenizedWindow:
    """A window of rows of two tokens each, which are a batch each."""
    texts = [text(1, number, scored=[1]) for number in ids]
    return TokenizedWindow([EXAMPLE] * len(ids), [part(CONVERSATIONS, texts)], None, None)


def rewards(found: Iterable[Measurements]) -> list[list[float]]:
    return [[] if one.reward is None else one.reward.tolist() for one in found]


def test_windows_without_a_text_keep_their_place_among_the_others() -> None:
    windows = [window_of(), window_of(1, 2), window_of(), window_of(), window_of(3), window_of()]
    assert rewards(of_windows(windows, SumSession())) == [[], [2, 3], [], [], [4], []]


@pytest.mark.parametrize("texts", [(), (1,)])
def test_a_window_without_a_text_comes_out_before_many_more_are_made(texts: tuple[int, ...]) -> None:
    made = taken = furthest = 0

    def windows() -> Iterator[TokenizedWindow]:
        nonlocal made, furthest
        for number in range(200):
            made += 1
            furthest = max(furthest, made - taken)
            yield window_of(*texts) if number == 100 else window_of()

    for _ in of_windows(windows(), SumSession()):
        taken += 1
        time.sleep(0.001)
    assert (made, taken) == (200, 200)
    assert furthest <= 5


def test_a_window_with_the_bytes_of_a_whole_one_comes_out_before_many_more_are_made() -> None:
    made = taken = furthest = 0

    def windows() -> Iterator[TokenizedWindow]:
        nonlocal made, furthest
        for number in range(30):
            made += 1
            furthest = max(furthest, made - taken)
            yield replace(window_of(number, number + 1), bytes=MOST_HELD)

    for _ in of_windows(windows(), SumSession()):
        taken += 1
        time.sleep(0.005)
    assert (made, taken) == (30, 30)
    assert furthest <= 4


class Killed(Exception):
    """In place of the end of a process."""


@settings(max_examples=100, deadline=None)
@given(
    texts=st.lists(st.integers(0, 3), max_size=8),
    commits=st.sets(st.integers(1, 8)),
    kills=st.lists(st.integers(0, 12), max_size=4),
)
def test_a_run_goes_on_wherever_it_is_killed_and_whichever_windows_have_no_text(
    texts: list[int], commits: set[int], kills: list[int]
) -> None:
    windows = [window_of(*range(10 * number, 10 * number + count)) for number, count in enumerate(texts)]
    whole = rewards(of_windows(windows, SumSession()))
    found: list[list[float]] = []
    with tempfile.TemporaryDirectory() as name:
        journal = Journal.begin(Path(name), {})
        for kill in [*kills, None]:
            left = itertools.count(kill, -1) if kill is not None else itertools.repeat(1)

            def work(left: Iterator[int] = left) -> None:
                if not next(left):
                    raise Killed

            begin = journal.marks.get("written", {}).get("windows", 0)
            del found[begin:]
            session = SumSession()
            with journal, contextlib.suppress(Killed):
                for one in of_windows(windows[begin:], session, journal=journal, report=work):
                    found += rewards([one])
                    work()
                    if len(found) in commits:
                        journal.commit("written", {"windows": len(found)})
            again = Journal.resume(Path(name))
            assert again is not None
            journal = again
        journal.close()
    assert found == whole


def test_batches_that_an_earlier_run_kept_are_not_computed_again(tmp_path: Path) -> None:
    windows = [window_of(1, 2), window_of(3, 4)]
    with Journal.begin(tmp_path, {}) as journal:
        first = of_windows(windows, SumSession(), journal=journal)
        whole = rewards(first)
    kept = (tmp_path / "batches.0").read_bytes()
    (tmp_path / "batches.0").write_bytes(kept[:-1])  # the last batch was not written whole
    session = SumSession()
    journal = Journal.resume(tmp_path)
    assert journal is not None
    with journal:
        assert rewards(of_windows(windows, session, journal=journal)) == whole
    assert session.shapes == [(1, 2)]
    assert (tmp_path / "batches.0").read_bytes() == kept


def test_batches_that_were_kept_of_other_rows_are_refused(tmp_path: Path) -> None:
    with Journal.begin(tmp_path, {}) as journal:
        list(of_windows([window_of(1, 2)], SumSession(), journal=journal))
    again = Journal.resume(tmp_path)
    assert again is not None
    with again, pytest.raises(ResumeError, match="results of other rows"):
        list(of_windows([window_of(1, 3)], SumSession(), journal=again))


def test_batches_kept_before_a_commit_are_kept_again_behind_it(tmp_path: Path) -> None:
    windows = [window_of(1, 2), window_of(3, 4)]
    with Journal.begin(tmp_path, {}) as journal:
        whole = rewards(of_windows(windows, SumSession(), journal=journal))
    again = Journal.resume(tmp_path)
    assert again is not None
    with again:
        found = of_windows(windows, SumSession(), journal=again)
        next(found)
        again.commit("written", {"windows": 1})  # the log of the second window goes with that of the first
        list(found)
    last, session = Journal.resume(tmp_path), SumSession()
    assert last is not None
    with last:
        assert rewards(of_windows(windows[1:], session, journal=last)) == whole[1:]
    assert session.shapes == []
