from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import altered_bundle
import pytest
from paths import EXAMPLES

from instructmining import Bundle, Scorer
from instructmining.bundle import PrecisionName
from instructmining.errors import BundleError, InputError
from instructmining.inference.devices import Device
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.writing.statistics import Statistics
from instructmining_cli.machine import throughput
from instructmining_cli.machine.peaks import Peak
from instructmining_cli.machine.throughput import Latency, Round, Throughput, measure_throughput

CPU = Device("cpu", threads=2)
COUNTS = {"token": 1000, "scored": 400, "row": 10}
INDICATORS = "perplexity,reward,mtld"


@pytest.fixture
def counted(small_bundle: Path, tmp_path: Path) -> Path:
    """The small bundle with products counted."""
    path = altered_bundle.copy(small_bundle, tmp_path)
    return altered_bundle.edit(
        path, lambda manifest: [role.update(multiply_adds=COUNTS) for role in manifest["roles"].values()]
    )


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peak that is known, and few calls."""
    monkeypatch.setattr(throughput, "product_peak", lambda *_: Peak(1e9, 512, 2048))
    monkeypatch.setattr(throughput, "_LATENCY_S", 0.0)


def reader(name: str = "alpaca.json", **options: object) -> Callable[[], ExampleReader]:
    return lambda: read_examples(EXAMPLES / name, on_reject=lambda _: None, **options)  # type: ignore[arg-type]


def measured(
    bundle: Path, of: tuple[Round, ...], devices: int = 1, peaks: dict[PrecisionName, Peak] | None = None
) -> Throughput:
    found = peaks or {"fp32": Peak(1e9, 1, 1)}
    return Throughput(Bundle.open(bundle), (CPU,) * devices, of, {}, found, found, process_peak_bytes=1)


def one_round(seconds: float = 10.0) -> Round:
    """Two passes of the roles that share a graph, and one of another; the devices computed for five seconds."""
    return Round(
        seconds,
        Statistics(
            texts=Counter({"reward+perplexity": 5, "perplexity": 4, "embedding": 5}),
            tokens=Counter({"reward+perplexity": 900, "perplexity": 200, "embedding": 300}),
            padded=Counter({"reward+perplexity": 1000, "perplexity": 250, "embedding": 400}),
            scored=Counter({"reward+perplexity": 500, "perplexity": 100}),
            seconds=defaultdict(
                float,
                {
                    "read": 1.0,
                    "model:reward+perplexity:conversation": 0.003,
                    "model:perplexity:responses": 0.001,
                    "model:embedding:document": 0.002,
                },
            ),
            busy=defaultdict(float, {str(CPU): 5.0}),
        ),
        rows=20,
        rejected=3,
    )


def test_the_share_of_the_peak_is_the_time_of_the_products_at_the_peak_over_the_time_taken(counted: Path) -> None:
    found = measured(counted, (one_round(),))
    both = 1000 * 1000 + 500 * 400 + 5 * 10
    alone = 250 * 1000 + 100 * 400 + 4 * 10
    embedding = 400 * 1000 + 5 * 10
    assert found.share_of_peak(["reward+perplexity"]) == pytest.approx(both / 1e9 / 0.003)
    assert found.share_of_peak(["perplexity"]) == pytest.approx(alone / 1e9 / 0.001)
    every = found.share_of_peak(found.typical.statistics.tokens)
    assert every == pytest.approx((both + alone + embedding) / 1e9 / 0.006)


def test_each_role_is_held_against_the_peak_of_its_own_precision(counted: Path) -> None:
    altered_bundle.edit(counted, lambda manifest: manifest["roles"]["embedding"].update(precision="int8"))
    found = measured(counted, (one_round(),), peaks={"fp32": Peak(1e9, 1, 1), "int8": Peak(4e9, 1, 1)})
    assert found.share_of_peak(["embedding"]) == pytest.approx((400 * 1000 + 5 * 10) / 4e9 / 0.002)


def test_in_an_older_bundle_the_share_is_not_known(small_bundle: Path) -> None:
    assert measured(small_bundle, (one_round(),)).share_of_peak(["perplexity"]) is None


@pytest.mark.parametrize("value", [{"token": 1, "scored": 2}, {"token": 1, "scored": 2, "row": -1}, [1], {"row": True}])
def test_counts_of_products_that_make_no_sense_are_a_bundle_error(counted: Path, value: object) -> None:
    altered_bundle.edit(counted, lambda manifest: manifest["roles"]["reward"].update(multiply_adds=value))
    with pytest.raises(BundleError, match=r"multiply_adds is .* wanted a count for token, scored, row"):
        Bundle.open(counted)


def test_the_typical_round_is_the_median_one_and_of_two_the_slower(small_bundle: Path) -> None:
    rounds = tuple(one_round(seconds) for seconds in (9.0, 5.0, 7.0))
    assert measured(small_bundle, rounds).typical.seconds == 7.0
    assert measured(small_bundle, rounds[:2]).typical.seconds == 9.0


def test_speeds_are_those_of_the_whole_round_and_the_busy_share_of_all_devices(small_bundle: Path) -> None:
    found = measured(small_bundle, (one_round(),), devices=2)
    assert found.typical.rows_per_s == 2.0
    assert found.typical.tokens_per_s == 140.0
    assert found.busy_share == pytest.approx(0.25)


def test_a_percentile_is_one_of_the_calls() -> None:
    latency = Latency(tuple(float(number) for number in range(1, 21)))
    assert (latency.percentile(0.5), latency.percentile(0.95)) == (10.0, 19.0)
    assert Latency((3.0, 9.0)).percentile(0.95) == 9.0


def test_every_round_scores_all_rows_anew(counted: Path) -> None:
    said: list[str] = []
    with Scorer.open(counted, indicators=INDICATORS, device="cpu") as scorer:
        found = measure_throughput(scorer, reader(), rounds=2, say=said.append)
    assert [(of.rows, of.rejected) for of in found.rounds] == [(8, 0), (8, 0)]
    assert found.rounds[0].statistics.tokens == found.rounds[1].statistics.tokens
    assert {rows: len(latency.seconds) for rows, latency in found.latency.items()} == {1: 3, 8: 3}
    assert list(found.peaks) == ["fp32"]
    assert found.process_peak_bytes
    assert found.process_peak_bytes > 1e7
    assert said == [
        "warming up on 8 rows",
        f"measuring the peak of {found.devices[0]}",
        "round 1 of 2",
        "round 2 of 2",
        "timing calls of 1 and 8 rows",
        f"measuring the peak of {found.devices[0]} again",
    ]
    assert found.slower_peaks["fp32"].multiply_adds_per_s <= found.peaks["fp32"].multiply_adds_per_s


@pytest.mark.parametrize(("each_s", "rounds"), [(1.0, 3), (9.0, 2), (11.0, 1), (100.0, 1)])
def test_without_a_number_the_rounds_are_three_or_as_many_as_the_time_allows(
    small_bundle: Path, each_s: float, rounds: int
) -> None:
    ticks = clock(each_s)
    with Scorer.open(small_bundle, indicators="mtld", device="cpu") as scorer:
        found = measure_throughput(scorer, reader(), clock=lambda: next(ticks))
    assert len(found.rounds) == rounds
    assert found.typical.seconds == each_s


def clock(each_s: float) -> Iterator[float]:
    now = 0.0
    while True:
        yield now
        now += each_s


def test_bad_rows_are_counted_by_round(counted: Path) -> None:
    with Scorer.open(counted, indicators=INDICATORS, device="cpu") as scorer:
        found = measure_throughput(scorer, reader("bad_rows.jsonl"), rounds=1)
    assert (found.typical.rows, found.typical.rejected) == (5, 6)


def test_without_a_row_that_can_be_scored_there_is_nothing_to_measure(counted: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Say nothing.", "output": " "}\n')
    with (
        Scorer.open(counted, indicators=INDICATORS, device="cpu") as scorer,
        pytest.raises(InputError, match="no row that can be scored; bench needs at least one"),
    ):
        measure_throughput(scorer, lambda: read_examples(tmp_path / "rows.jsonl", on_reject=lambda _: None))
