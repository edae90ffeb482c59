"""From file to file with models that give zeros: what is left is the host's work."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks import zeros
from instructmining import Scorer, Statistics, read_examples
from instructmining.writing.run_writer import RunWriter

INDICATORS = "perplexity,reward,output_length,mtld"
ROUNDS = 5


@pytest.mark.benchmark(group="path")
@pytest.mark.parametrize(
    ("rows", "suffix", "resumable"),
    [
        pytest.param(500, ".jsonl", True, id="500 rows"),
        pytest.param(2_000, ".jsonl", True, id="2000 rows"),
        pytest.param(2_000, ".jsonl", False, id="2000 rows, not resumable"),
        pytest.param(2_000, ".jsonl.zst", True, id="2000 rows, zst"),
        pytest.param(2_000, ".parquet", True, id="2000 rows, parquet"),
    ],
)
def test_score_a_file(  # noqa: PLR0917
    benchmark: BenchmarkFixture,
    bundle: Path,
    rows_file: Path,
    tmp_path: Path,
    rows: int,
    suffix: str,
    resumable: bool,
) -> None:
    given, out = tmp_path / "rows.jsonl", str(tmp_path / f"scored{suffix}")
    with rows_file.open("rb") as lines:
        given.write_bytes(b"".join(islice(lines, rows)))

    def score() -> int:
        counts = Statistics()
        with RunWriter(out, overwrite=True) as writer:
            writer.begin()
            journal = writer.journal if resumable else None
            windows = read_examples(given).windows(scorer.batching.window_rows)
            for window in scorer.score_windows(windows, statistics=counts, journal=journal):
                writer.write(scorer.rows(window), window.rejects)
                if journal is not None and journal.due:
                    writer.commit({"statistics": counts.as_json()})
            writer.finish({})
        return counts.rows_scored

    with Scorer.open(zeros.make(bundle, tmp_path / "zeros"), indicators=INDICATORS, device="cpu") as scorer:
        assert benchmark.pedantic(score, rounds=ROUNDS, warmup_rounds=1) == rows
