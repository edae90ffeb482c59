from __future__ import annotations

import pytest

from instructmining import InstructMiningError, ReadOptions


@pytest.mark.parametrize("tab", ["tab", "\\t", "\t"])
def test_a_tab_may_be_written_in_three_ways(tab: str) -> None:
    assert ReadOptions(delimiter=tab).delimiter == "\t"


@pytest.mark.parametrize("delimiter", ["", ";;", '"', "\n"])
def test_a_delimiter_is_one_character(delimiter: str) -> None:
    with pytest.raises(InstructMiningError, match=r"delimiter .*: wanted one character"):
        ReadOptions(delimiter=delimiter)


@pytest.mark.parametrize("encoding", ["latin1", "cp1252", "UTF-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "gbk"])
def test_encodings_that_are_read_are_taken(encoding: str) -> None:
    assert ReadOptions(encoding=encoding).encoding == encoding


@pytest.mark.parametrize(
    ("encoding", "problem"), [("latin-99", "is not known"), ("rot13", "is not known"), ("cp037", "is not read")]
)
def test_other_encodings_are_refused_by_name(encoding: str, problem: str) -> None:
    with pytest.raises(InstructMiningError, match=f"encoding '{encoding}' {problem}"):
        ReadOptions(encoding=encoding)
