from __future__ import annotations

from pathlib import Path

import pytest

from instructmining import Example, Scorer
from instructmining.errors import RuleError


def test_rows_come_in_input_order_with_the_columns_asked_for(small_bundle: Path) -> None:
    examples = [Example.of(f"Say {word}.", word * count) for count, word in enumerate(["one ", "two ", "three "], 1)]
    with Scorer.open(small_bundle, indicators=["perplexity", "output_length"], device="cpu") as scorer:
        rows = list(scorer.score(examples))
    assert [row.example for row in rows] == examples
    assert [list(row.columns) for row in rows] == [["output_length", "perplexity"]] * 3


def test_an_unknown_indicator_is_named(small_bundle: Path) -> None:
    with pytest.raises(RuleError, match="unknown indicator fluency"):
        Scorer.open(small_bundle, indicators=["fluency"], device="cpu")
