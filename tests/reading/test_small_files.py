from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining import Rule
from instructmining.errors import RuleError
from instructmining.reading.small_files import read_small


def test_a_file_is_read_up_to_its_limit_and_refused_beyond(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1234")
    assert read_small(file, most=4) == b"1234"
    with pytest.raises(OSError, match="is larger than") as found:
        read_small(file, most=3)
    assert found.value.strerror is not None


def test_a_name_that_can_be_none_is_an_error_of_the_system() -> None:
    with pytest.raises(OSError, match="null byte"):
        read_small("a\0b")


def test_an_endless_file_is_no_rule(run: Callable[..., int], tmp_path: Path) -> None:
    with pytest.raises(RuleError, match="is larger than 64 MiB"):
        Rule.load("/dev/zero")
    assert run("fit", "/dev/zero", "-o", tmp_path / "rule.json") == 1


@pytest.mark.parametrize("field", ["terms", "provenance"])
def test_a_rule_full_of_words_does_not_flood_the_terminal(
    run: Callable[..., int], write_rows: Callable[..., Path], capsys: pytest.CaptureFixture[str], field: str
) -> None:
    rule = write_rows({"id": "r", "intercept": 0, "terms": {"mtld": 1}} | {field: 1_000_000 * "x"}, name="rule.json")
    assert run("rescore", write_rows({"mtld": 1}), "-o", rule.with_name("out.jsonl"), "--rule", rule) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said) < 5000
