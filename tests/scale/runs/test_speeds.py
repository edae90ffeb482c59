"""Speeds of runs are kept by bundle and device."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructmining import Bundle
from instructmining_scale.runs.speeds import Speed, keep_speed, last_speed


def test_speeds_are_kept_by_bundle_and_device(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path))
    bundle = Bundle.open(small_bundle)
    assert last_speed(bundle, "auto") is None
    busy = {"perplexity": 3.0, "embedding": 1.0}
    keep_speed(bundle, "auto", "cpu", tokens={"perplexity": 900, "embedding": 100}, busy_s=busy, elapsed_s=8.0)
    speed = last_speed(bundle, "auto")
    assert speed is not None
    assert speed.tokens_per_s == {"perplexity": 150.0, "embedding": 50.0}
    assert speed.expected_s({"perplexity": 300, "embedding": 100}) == 4.0
    assert speed.expected_s({"unieval": 1}) is None
    assert last_speed(bundle, "cuda") is None


def test_a_run_keeps_the_speeds_of_passes_that_it_did_not_compute(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path))
    bundle = Bundle.open(small_bundle)
    runs = [
        ("cpu (2 threads)", {"reward": 80, "embedding": 80}),
        ("cpu (1 thread)", {"reward": 40}),
        ("cuda", {"a": 8}),
    ]
    for device, tokens in runs[:2]:
        keep_speed(bundle, "auto", device, tokens=tokens, busy_s=dict.fromkeys(tokens, 1.0), elapsed_s=8.0)
    speed = last_speed(bundle, "auto")
    assert speed is not None
    assert (speed.device, speed.tokens_per_s) == ("cpu (1 thread)", {"reward": 5.0, "embedding": 20.0})
    keep_speed(bundle, "auto", runs[2][0], tokens=runs[2][1], busy_s={"a": 1.0}, elapsed_s=8.0)
    speed = last_speed(bundle, "auto")
    assert speed is not None
    assert speed.tokens_per_s == {"a": 1.0}  # those of another kind of device say nothing


def test_a_pass_of_several_roles_bounds_the_time_of_one_of_them() -> None:
    speed = Speed("cpu", "now", {"reward+perplexity": 10.0, "embedding": 5.0})
    assert speed.expected_s({"reward": 20, "embedding": 5}) == 3.0
    assert speed.at_most({"reward": 20})
    assert not speed.at_most({"reward+perplexity": 20})
    assert speed.expected_s({"embedding+reward": 1}) is None


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"device": "cpu", "at": "x", "tokens_per_s": {"a": "b"}}'])
def test_a_damaged_speed_is_none(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path))
    bundle = Bundle.open(small_bundle)
    keep_speed(bundle, "cpu", "cpu", tokens={"a": 1}, busy_s={"a": 1.0}, elapsed_s=9.0)
    (file,) = (tmp_path / "speeds").iterdir()
    file.write_bytes(content)
    assert last_speed(bundle, "cpu") is None


def test_a_short_run_and_a_cache_that_cannot_be_written_keep_nothing(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    bundle = Bundle.open(small_bundle)
    keep_speed(bundle, "cpu", "cpu", tokens={"a": 1}, busy_s={"a": 1.0}, elapsed_s=9.0)
    monkeypatch.setenv("INSTRUCTMINING_CACHE", str(tmp_path))
    keep_speed(bundle, "cpu", "cpu", tokens={"a": 1}, busy_s={"a": 1.0}, elapsed_s=1.0)
    assert last_speed(bundle, "cpu") is None
    assert Speed("cpu", "now", {}).expected_s({}) == 0.0
