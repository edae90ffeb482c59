from __future__ import annotations

import numpy as np

from instructmining.scored.few_tokens import rows_on_few_tokens

LENGTHS = np.array([1.0, 2, 3, 4, 1])
VALUES = np.array([9.0, 8, 7, 6, np.nan])


def test_rows_are_counted_whose_value_rests_on_fewer_than_three_tokens() -> None:
    found = rows_on_few_tokens({"output_length": LENGTHS, "perplexity": VALUES, "ifd": VALUES, "mtld": VALUES})
    assert found == {"perplexity": 2, "ifd": 3}  # ifd leaves the first token out


def test_each_side_of_a_pair_has_its_own_length() -> None:
    columns = {"chosen.output_length": LENGTHS, "chosen.perplexity": VALUES, "rejected.output_length": LENGTHS + 9}
    assert rows_on_few_tokens(columns | {"rejected.perplexity": VALUES}) == {"chosen.perplexity": 2}


def test_without_lengths_nothing_is_counted() -> None:
    assert rows_on_few_tokens({"perplexity": VALUES}) == {}
