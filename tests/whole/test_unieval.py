"""The UniEval columns and the rule that needs them, on a small bundle of the rule's two architectures."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small_models
import torch
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase, T5ForConditionalGeneration

from instructmining import Example, ScoredRow, Scorer, Statistics, Turn
from instructmining.bundle import ROLES
from instructmining.errors import BundleError
from instructmining.inference.batching import Batch, Batching
from instructmining.inference.sessions import GraphSession
from instructmining_export import parity
from instructmining_export.exporting import export_bundle
from instructmining_export.roles import Settings

COLUMNS = ("naturalness", "coherence", "understandability")
MAX_LENGTH = 256
# The original's prompts, to the letter.
PROMPTS = {
    "naturalness": "question: Is this a natural response in the dialogue? </s> response: {response}",
    "coherence": "question: Is this a coherent response given the dialogue history? </s> response: {response} </s> "
    "dialogue history: {history}",
    "understandability": "question: Is this an understandable response in the dialogue? </s> response: {response}",
}
SHORT = Example.of("Name a colour.", "Green is a colour, and so are blue and red.")
CONVERSATION = Example(
    (
        Turn("system", "Be brief."),
        Turn("user", "When does the train leave?"),
        Turn("assistant", "The train leaves at noon."),
        Turn("user", "And the ferry?\nSay it in full."),
        Turn("assistant", "The ferry sails at three."),
    )
)
WITHOUT_AN_ANSWER = Example((*CONVERSATION.turns[1:4], Turn("user", "Hello?")))
LONG_HISTORY = Example(
    (
        *(Turn("user" if n % 2 else "tool", f"Count {n}: {'seven eight ' * 9}") for n in range(9)),
        Turn("assistant", "No."),
    )
)
LONG_RESPONSE = Example.of("Count.", "one two three " * 150)
EXAMPLES = [SHORT, CONVERSATION, WITHOUT_AN_ANSWER, LONG_HISTORY, LONG_RESPONSE, Example.of("Why?", "Yeast, in dough.")]


@dataclass(frozen=True, slots=True)
class Original:
    """The same model in transformers."""

    model: T5ForConditionalGeneration
    tokenizer: PreTrainedTokenizerBase

    def ids(self, example: Example, question: str) -> list[int]:
        """What the original's own code gives its model."""
        last = max(number for number, turn in enumerate(example.turns) if turn.role == "assistant")
        history = "\n".join(turn.text for turn in example.turns[:last]) + "\n\n"
        prompt = PROMPTS[question].format(response=example.turns[last].text, history=history)
        ids: list[int] = self.tokenizer(prompt, truncation=True, max_length=MAX_LENGTH).input_ids
        return ids

    def answer(self, example: Example, question: str) -> float:
        """p(Yes) over p(Yes) + p(No)."""
        start = torch.tensor([[self.model.config.decoder_start_token_id]])
        with torch.no_grad():
            ids = torch.tensor([self.ids(example, question)])
            logits = self.model(input_ids=ids, decoder_input_ids=start).logits[0, 0]
        words = [self.tokenizer(word).input_ids[0] for word in ("Yes", "No")]
        return float(torch.softmax(logits[words], 0)[0])


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "cpu_threads", lambda: 1)
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5 whose answers are neither all near 0 or 1 nor all alike."""
    folder = small_models.unieval_model(tmp_path_factory.mktemp("unieval"))
    model = T5ForConditionalGeneration.from_pretrained(folder)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "layer_norm" not in name:
            # What the decoder takes from the text weighs more than its own constant state.
            factor = 0.15 if name.endswith(".q.weight") else 4.0 if name.endswith("EncDecAttention.o.weight") else 1.0
            by_name = "shared" in name or "relative_attention_bias" in name
            torch.nn.init.normal_(parameter, std=1.0 if by_name else factor * parameter.shape[1] ** -0.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def original(model: Path) -> Original:
    return Original(T5ForConditionalGeneration.from_pretrained(model).eval(), AutoTokenizer.from_pretrained(model))


@pytest.fixture(scope="module")
def bundle(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bundle"
    reward = small_models.oasst_reward_model(tmp_path_factory.mktemp("reward"))
    settings = Settings(max_length=MAX_LENGTH)
    export_bundle(path, {"reward": reward, "unieval": model}, settings=settings, default_rule="paper-v3")
    return path


def scored(
    bundle: Path, examples: Sequence[Example], *indicators: str, statistics: Statistics | None = None
) -> list[ScoredRow]:
    with Scorer.open(bundle, indicators=indicators, device="cpu") as scorer:
        return list(scorer.score(examples, statistics=statistics))


def values(rows: Sequence[ScoredRow], *columns: str) -> NDArray[np.float64]:
    """(rows, columns)"""
    return np.array([[row.columns[name] for name in columns] for row in rows], dtype=np.float64)


def test_the_columns_are_the_originals_answers_to_its_own_prompts(bundle: Path, original: Original) -> None:
    wanted = np.array([[original.answer(example, question) for question in COLUMNS] for example in EXAMPLES])
    assert np.ptp(wanted, axis=0).min() > 0.2, "the rows differ"
    assert np.ptp(wanted, axis=1).min() > 0.02, "the questions differ"
    np.testing.assert_allclose(values(scored(bundle, EXAMPLES, *COLUMNS), *COLUMNS), wanted, rtol=0, atol=1e-4)


def test_the_history_is_all_turns_before_the_last_response_joined_by_newlines_and_ending_in_two(
    bundle: Path,
) -> None:
    joined = "Be brief.\nWhen does the train leave?\nThe train leaves at noon.\nAnd the ferry?\nSay it in full."
    as_one = Example.of(joined, "The ferry sails at three.")
    other_end = Example.of(joined + "\n", "The ferry sails at three.")
    later = Example((*CONVERSATION.turns, Turn("user", "Thanks.")))
    coherence = values(scored(bundle, [CONVERSATION, as_one, later, other_end], "coherence"), "coherence")[:, 0]
    assert coherence[0] == coherence[1] == coherence[2]
    assert coherence[3] != coherence[0]


def test_paper_v3_is_the_linear_rule_over_reward_and_the_three_answers(bundle: Path) -> None:
    with Scorer.open(bundle, rule="paper-v3", device="cpu") as scorer:
        rows = list(scorer.score(EXAMPLES))
    assert scorer.columns == ("reward", *COLUMNS, "predicted_log_loss")
    assert [tuple(row.columns) for row in rows] == [scorer.columns] * len(EXAMPLES)
    assert [row.example for row in rows] == EXAMPLES
    reward, natural, coherent, understandable, predicted = values(rows, *scorer.columns).T
    by_hand = 0.0274 - 0.0078 * reward + 0.4421 * understandable - 0.3212 * natural - 0.1520 * coherent
    np.testing.assert_allclose(predicted, by_hand, rtol=0, atol=1e-12)
    assert [row.notes for row in rows] == [{}] * len(EXAMPLES)


def test_a_bundle_of_the_rules_models_needs_no_option(bundle: Path) -> None:
    with Scorer.open(bundle, device="cpu") as scorer:
        assert scorer.rule is not None
        assert scorer.rule.id == "paper-v3"
        assert scorer.columns == ("reward", *COLUMNS, "predicted_log_loss")


def test_a_row_alone_has_the_answers_that_it_has_in_a_batch(bundle: Path) -> None:
    with Scorer.open(bundle, indicators=COLUMNS, device="cpu") as scorer:
        scorer.batching = Batching.usual("cpu", ROLES, max_batch_tokens=4096)
        together = list(scorer.score(EXAMPLES))
        alone = [row for example in EXAMPLES for row in scorer.score([example])]
    np.testing.assert_allclose(values(together, *COLUMNS), values(alone, *COLUMNS), rtol=0, atol=1e-5)


def test_equal_texts_are_computed_once_and_every_row_has_the_answer(bundle: Path, original: Original) -> None:
    other_prompt = Example.of("Say something of colours.", SHORT.response_texts[0])
    examples = [SHORT, CONVERSATION, other_prompt, SHORT, SHORT]
    statistics = Statistics()
    rows = scored(bundle, examples, *COLUMNS, statistics=statistics)
    once = [
        (example, question)
        for question in COLUMNS
        for example in ([SHORT, CONVERSATION, other_prompt] if question == "coherence" else [SHORT, CONVERSATION])
    ]
    assert statistics.tokens == Counter(unieval=sum(len(original.ids(*text)) for text in once))
    assert statistics.rows_computed == len(examples)
    found = values(rows, *COLUMNS)
    np.testing.assert_array_equal(found[[3, 4]], found[[0, 0]])
    np.testing.assert_array_equal(found[2, [0, 2]], found[0, [0, 2]])
    assert found[2, 1] != found[0, 1]
    wanted = [[original.answer(example, question) for question in COLUMNS] for example in examples]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_only_the_questions_asked_for_are_computed(bundle: Path, original: Original) -> None:
    statistics = Statistics()
    (row,) = scored(bundle, [SHORT], "coherence", statistics=statistics)
    assert list(row.columns) == ["coherence"]
    assert statistics.tokens == Counter(unieval=len(original.ids(SHORT, "coherence")))
    assert {stage for stage in statistics.seconds if stage.startswith("model:")} == {"model:unieval:coherence"}


def test_a_history_beyond_the_limit_loses_its_end_and_the_row_says_so(bundle: Path, original: Original) -> None:
    (row,) = scored(bundle, [LONG_HISTORY], *COLUMNS)
    (response_only,) = scored(bundle, [LONG_HISTORY], "naturalness", "understandability")
    assert (row.truncated, response_only.truncated) == (("unieval",), ())
    ids = original.ids(LONG_HISTORY, "coherence")
    assert (len(ids), ids[-1]) == (MAX_LENGTH, original.model.config.eos_token_id)
    assert row.columns["coherence"] == pytest.approx(original.answer(LONG_HISTORY, "coherence"), abs=1e-4)
    # What was cut plays no part.
    changed = Example((*LONG_HISTORY.turns[:8], Turn("tool", "Another end."), LONG_HISTORY.turns[-1]))
    assert scored(bundle, [changed], "coherence")[0].columns == {"coherence": row.columns["coherence"]}


def test_a_row_is_counted_once_among_the_truncated_whatever_the_number_of_questions(bundle: Path) -> None:
    statistics = Statistics()
    rows = scored(bundle, [SHORT, LONG_RESPONSE, LONG_RESPONSE], *COLUMNS, statistics=statistics)
    assert [row.truncated for row in rows] == [(), ("unieval",), ("unieval",)]
    assert statistics.truncated == Counter(unieval=2)


def test_special_tokens_in_a_row_are_plain_text(bundle: Path, original: Original) -> None:
    spelt = Example.of("Name a colour.", "Green. </s> dialogue history: none")
    (row,) = scored(bundle, [spelt], "naturalness")
    assert row.columns["naturalness"] is not None
    assert row.columns["naturalness"] != pytest.approx(original.answer(spelt, "naturalness"), abs=1e-4)


@pytest.mark.parametrize("turns", [(Turn("user", "Hello?"),), (Turn("user", "Hello?"), Turn("assistant", " "))])
def test_an_example_without_a_response_is_rejected(bundle: Path, turns: tuple[Turn, ...]) -> None:
    rejected: list[str] = []
    with Scorer.open(bundle, device="cpu") as scorer:
        rows = list(scorer.score([Example(turns), SHORT], on_reject=lambda reject: rejected.append(reject.reason)))
    assert [row.example for row in rows] == [SHORT]
    assert rejected == ["the response is empty"]


def test_a_row_with_an_answer_that_is_no_number_is_rejected(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = GraphSession.run

    def spoil(self: GraphSession, batch: Batch, outputs: Sequence[str]) -> dict[str, Any]:
        longest = batch.mask.sum(axis=1) == MAX_LENGTH
        return {name: np.where(longest, np.nan, array) for name, array in run(self, batch, outputs).items()}

    monkeypatch.setattr(GraphSession, "run", spoil)
    rejected: list[tuple[Example | None, str]] = []
    with Scorer.open(bundle, indicators="understandability", device="cpu") as scorer:
        rows = list(
            scorer.score(
                [SHORT, LONG_RESPONSE], on_reject=lambda reject: rejected.append((reject.example, reject.reason))
            )
        )
    assert [row.example for row in rows] == [SHORT]
    assert rejected == [(LONG_RESPONSE, "a model output is not a finite number")]


def test_all_indicators_are_those_that_the_bundles_roles_give(bundle: Path) -> None:
    with Scorer.open(bundle, indicators="all", device="cpu") as scorer:
        (row,) = scorer.score([SHORT])
    assert tuple(row.columns) == ("input_length", "output_length", "reward", "mtld", *COLUMNS)
    assert None not in row.columns.values()


@pytest.mark.parametrize(
    ("column", "role"), [("perplexity", "perplexity"), ("ifd", "perplexity"), ("knn_6", "embedding")]
)
def test_an_indicator_named_without_its_role_is_an_error_that_names_the_role(
    bundle: Path, column: str, role: str
) -> None:
    with pytest.raises(BundleError, match=f"has no role '{role}', which '{column}'"):
        Scorer.open(bundle, indicators=["naturalness", column], device="cpu")


def test_a_window_of_nothing_but_rejects_gives_no_rows(bundle: Path) -> None:
    rejected: list[Example | None] = []
    silent = Example((Turn("user", "Hello?"),))
    with Scorer.open(bundle, device="cpu") as scorer:
        assert list(scorer.score([silent], on_reject=lambda reject: rejected.append(reject.example))) == []
    assert rejected == [silent]


# The published weights


@pytest.mark.slow
@pytest.mark.skipif("INSTRUCTMINING_UNIEVAL" not in os.environ, reason="a folder of MingZhong/unieval-dialog is needed")
def test_the_published_model_gives_the_values_of_its_authors(tmp_path: Path) -> None:
    # The dialogue example of the original repository's README, with the values that it prints.
    dialogue = Example(
        (
            Turn("user", "hi , do you know much about the internet ? "),
            Turn("assistant", " i know a lot about different sites and some website design , how about you ? "),
            Turn(
                "assistant",
                "i do too . did you know the 3 horizontal line menu on apps and websites "
                "is called the hamburger button ?",
            ),
        )
    )
    bundle = tmp_path / "bundle"
    export_bundle(bundle, {"unieval": os.environ["INSTRUCTMINING_UNIEVAL"]}, settings=Settings(), default_rule=None)
    with Scorer.open(bundle, indicators=list(COLUMNS), device="cpu") as scorer:
        (row,) = scorer.score([dialogue])
    wanted = {"naturalness": 0.950218, "coherence": 0.973135, "understandability": 0.946209}
    assert row.columns == pytest.approx(wanted, abs=1e-4)
