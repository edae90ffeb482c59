from __future__ import annotations

import json
from pathlib import Path

import pytest
from small_experiment import write_experiment
from small_models import causal_model
from tokenizers import Tokenizer

from instructmining.bundle import Role
from instructmining.errors import ExportError, InputError
from instructmining.inference.references import References
from instructmining.types import Example, Turn
from instructmining_experiments.state.pool import Pool
from instructmining_experiments.training.evaluation import export_base
from instructmining_experiments.training.texts import tokens_of
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.parity import parity_examples


@pytest.fixture(scope="module")
def role(tmp_path_factory: pytest.TempPathFactory) -> Role:
    folder = tmp_path_factory.mktemp("experiment")
    model = Checkpoint(causal_model("llama", folder / "llama"), {"id": "a/b"})
    return export_base(folder, model, template="auto", max_length=128, report=lambda _: None)


def test_the_tokens_to_learn_are_those_that_the_role_perplexity_scores(role: Role) -> None:
    examples = parity_examples()
    assert role.references is not None
    checked = References.load(role.references).texts
    found = tokens_of(examples, range(len(examples)), role)
    assert len(checked) == len(found)
    for text, wanted in zip(found.values(), checked, strict=True):
        assert text.ids.tolist() == wanted.ids.tolist()
        assert text.scored.tolist() == wanted.scored.tolist()
        assert len(text.ids) <= 128


def test_the_model_sees_its_own_chat_template(role: Role, tmp_path: Path) -> None:
    small = write_experiment(tmp_path / "dir")
    pool = Pool.of_plan(small.folder, small.plan)
    found = tokens_of(pool.examples, [3, 3, 1], role)
    assert list(found) == [1, 3]
    text = Tokenizer.from_file(str(role.tokenizer)).decode(found[3].ids.tolist(), skip_special_tokens=False)
    row = json.loads((small.folder / "scored.jsonl").read_text(encoding="utf-8").splitlines()[3])
    wanted = f"<|im_start|>user\n{row['instruction']}<|im_end|>\n<|im_start|>assistant\n{row['output']}<|im_end|>\n"
    assert text == wanted


@pytest.mark.parametrize(
    ("example", "message"),
    [
        (Example((Turn("user", "a"), Turn("assistant", ""))), "row 0 of the pool: has no response token to learn"),
        (Example((Turn("user", "a"),)), "row 0 of the pool: has no response token to learn"),
    ],
)
def test_a_row_that_nothing_can_be_learnt_from_is_one_clear_error(role: Role, example: Example, message: str) -> None:
    with pytest.raises(InputError, match=message):
        tokens_of([example], [0], role)


def test_a_model_without_a_tokenizer_is_one_clear_error(tmp_path: Path) -> None:
    model = causal_model("llama", tmp_path / "llama")
    for file in model.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ExportError, match=r"has no tokenizer; wanted tokenizer\.json"):
        export_base(tmp_path, Checkpoint(model), template="auto", max_length=None, report=lambda _: None)
