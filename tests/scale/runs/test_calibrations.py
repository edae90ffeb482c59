"""Measured batch sizes are kept by bundle and device, and found only where it is worth it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from instructmining import ReadOptions, Scorer
from instructmining.reading.formats import FieldOptions
from instructmining_scale.runs import calibrations


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "budgets"


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": f"Name colour {number}.", "response": "Green " * (1 + number % 40)} for number in range(60)]
    path.write_bytes(b"\n".join(orjson.dumps(line) for line in lines) + b"\nnot a row\n")
    return path


def calibrated(bundle: Path, rows: Path, *, limit: int | None = None) -> tuple[dict[str, int], list[str]]:
    said: list[str] = []
    with Scorer.open(bundle, indicators=["perplexity", "knn_6"], device="cpu") as scorer:
        fields, options = FieldOptions(), ReadOptions()
        inputs = [str(rows)]
        calibrations.choose_budgets(scorer, inputs, fields, given=None, limit=limit, options=options, say=said.append)
        return dict(scorer.batching.max_batch_tokens), said


def test_a_long_input_is_measured_once_and_the_result_kept(
    small_bundle: Path, rows: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrations, "_CALIBRATE_FROM_BYTES", 1)
    found, said = calibrated(small_bundle, rows)
    assert found.keys() == {"perplexity", "embedding"}
    assert set(found.values()) <= {256, 512, 1024}
    assert len(said) == 1
    (kept,) = cache.iterdir()
    kept.write_bytes(orjson.dumps({"perplexity": 77, "embedding": 88}))
    assert calibrated(small_bundle, rows) == ({"perplexity": 77, "embedding": 88}, [])


def test_a_short_input_or_a_limit_is_scored_at_once(small_bundle: Path, rows: Path, cache: Path) -> None:
    assert calibrated(small_bundle, rows) == ({"perplexity": 512, "embedding": 512}, [])
    assert calibrated(small_bundle, rows, limit=5)[1] == []
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_costs_only_that_it_is_measured_again(
    small_bundle: Path, rows: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrations, "_CALIBRATE_FROM_BYTES", 1)
    cache.parent.write_text("no folder")
    for _ in range(2):
        found, said = calibrated(small_bundle, rows)
        assert found.keys() == {"perplexity", "embedding"}
        assert len(said) == 1


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"perplexity": 77}', b'{"perplexity": 0, "embedding": "x"}'])
def test_a_damaged_file_is_measured_again(
    content: bytes, small_bundle: Path, rows: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrations, "_CALIBRATE_FROM_BYTES", 1)
    calibrated(small_bundle, rows)
    (kept,) = cache.iterdir()
    kept.write_bytes(content)
    found, said = calibrated(small_bundle, rows)
    assert set(found.values()) <= {256, 512, 1024}
    assert len(said) == 1
