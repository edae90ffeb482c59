from __future__ import annotations

import logging
import pickle
from pathlib import Path

import numpy as np
import pytest

from instructmining import Reject, Scorer
from instructmining.errors import InputError, RowError, SelectionError
from instructmining.rules import Rule
from instructmining_serving.training import RowFilter


def test_rows_are_kept_by_conditions_on_columns(
    scorer: Scorer, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    middle = sorted(scored["reward"])[2]
    keep = RowFilter(scorer, where=[f"reward<{middle!r}", "output_length>=3"])
    wanted = [
        value < middle and length >= 3 for value, length in zip(scored["reward"], scored["output_length"], strict=True)
    ]
    assert True in wanted
    assert keep({"instruction": prompts, "output": completions}) == wanted
    assert keep({"instruction": [], "output": []}) == []
    assert keep({"instruction": prompts, "output": completions, "number": np.arange(len(prompts))}) == wanted


def test_rows_are_kept_up_to_a_loss_that_a_rule_predicts(
    small_bundle: Path, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    rule = Rule("mine", 0.0, {"reward": -1.0})
    middle = sorted(scored["reward"])[2] - 1e-4
    keep = RowFilter(small_bundle, rule=rule, max_loss=-middle, device="cpu")
    found = keep({"prompt": prompts, "response": completions})
    assert found == [value > middle for value in scored["reward"]]
    assert found.count(True) == 2
    assert pickle.loads(pickle.dumps(keep))({"prompt": prompts, "response": completions}) == found


def test_a_pair_is_kept_by_its_margin(scorer: Scorer) -> None:
    pair = {"prompt": ["Name a colour."] * 2, "chosen": ["Green.", "A red one."], "rejected": ["A red one.", "Green."]}
    kept = RowFilter(scorer, where="margin.reward>0")(pair)
    assert sorted(kept) == [False, True]


def test_a_bad_row_raises_or_is_given_away_and_not_kept(scorer: Scorer) -> None:
    batch = {"instruction": ["Go.", "Go.", "Go."], "output": ["Yes, at once.", "", None]}
    with pytest.raises(RowError, match=r"row 1 of the batch: .*empty"):
        RowFilter(scorer, where="output_length>0")(batch)
    rejects: list[Reject] = []
    assert RowFilter(scorer, where="output_length>0", on_reject=rejects.append)(batch) == [True, False, False]
    assert [reject.line for reject in rejects] == [2, 3]


def test_text_that_is_not_read_is_named_once(scorer: Scorer, caplog: pytest.LogCaptureFixture) -> None:
    keep = RowFilter(scorer, where="output_length>0")
    before = pickle.dumps(keep)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            keep({"instruction": ["Go."], "output": ["Yes, at once."], "remark": ["of nobody"]})
    assert [record.getMessage() for record in caplog.records] == ["rows: text that is not read, in rows: remark (1)"]
    assert pickle.dumps(keep) == before


def test_wrong_use_is_refused(scorer: Scorer) -> None:
    with pytest.raises(SelectionError, match="give where, max_loss or both"):
        RowFilter(scorer)
    with pytest.raises(InputError, match="batched=True"):
        RowFilter(scorer, where="reward>0")({"instruction": "Go.", "output": "Yes."})
    with pytest.raises(InputError, match="no known format"):
        RowFilter(scorer, where="reward>0")({"question": ["Go."], "colour": ["Yes."]})
