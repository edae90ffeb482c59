from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from instructmining.errors import InputError
from instructmining_experiments.state.pool import Pool


def scored(prompt: str, **columns: float | None) -> dict[str, object]:
    return {"instruction": prompt, "output": "Yes.", **columns, "truncated": [], "score_notes": {}}


def test_the_columns_of_a_scored_file_are_read_with_nan_for_null(write_rows: Callable[..., Path]) -> None:
    file = write_rows(
        scored("a", input_length=3, output_length=4, mtld=None), scored("b", input_length=1, output_length=1, mtld=2.5)
    )
    pool = Pool.read(file, ["mtld"])
    assert [example.prompt_texts for example in pool.examples] == [["a"], ["b"]]
    assert pool.tokens.tolist() == [7, 2]
    assert math.isnan(pool.columns["mtld"][0])
    assert pool.columns["mtld"][1] == 2.5


def test_a_column_that_was_not_scored_is_an_error(write_rows: Callable[..., Path]) -> None:
    file = write_rows(json.loads(json.dumps(scored("a", input_length=3, output_length=4))))
    with pytest.raises(InputError, match="has no column 'mtld'"):
        Pool.read(file, ["mtld"])
