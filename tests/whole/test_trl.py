"""Rewards and filters in TRL's own trainers and in ``datasets``: make test-trl."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pytest
from paths import ROOT
from small_bundle import small_tokenizer

from instructmining import Scorer
from instructmining_serving.training import RewardFunction, RowFilter

pytestmark = [pytest.mark.peer, pytest.mark.filterwarnings("ignore")]
QUESTIONS = ["Name a colour.", "Count from one to ten.", "When does the train leave?", "Why does bread rise?"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def tokenizer() -> Any:  # noqa: ANN401 - transformers'
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415 - in its own environment

    return PreTrainedTokenizerFast(
        tokenizer_object=small_tokenizer(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=TEMPLATE,
        padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )


def config() -> Any:  # noqa: ANN401
    from transformers import LlamaConfig  # noqa: PLC0415

    return LlamaConfig(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=256,
        num_labels=1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )


def policy() -> Any:  # noqa: ANN401
    import torch  # noqa: PLC0415
    from transformers import LlamaForCausalLM  # noqa: PLC0415

    torch.manual_seed(0)
    return LlamaForCausalLM(config())


class Recorder:
    """A second reward function, which has no opinion."""

    __name__ = "recorder"

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def __call__(self, **given: object) -> list[None]:
        self.seen.append(given)
        prompts = given["prompts"]
        assert isinstance(prompts, list)
        return [None] * len(prompts)


def expected(bundle: Path, prompts: Sequence[object], completions: Sequence[object], column: str) -> list[float | None]:
    rows: list[Mapping[str, object]] = [
        {"prompt": prompt, "completion": text} for prompt, text in zip(prompts, completions, strict=True)
    ]
    with Scorer.open(bundle, indicators=[column], device="cpu") as scorer:
        found = []
        for row in rows:
            rejects: list[object] = []
            scored = list(scorer.score([row], on_reject=rejects.append))
            value = scored[0].columns[column] if scored else None
            found.append(None if value is None else float(value))
        return found


@pytest.mark.skipif(not installed("trl"), reason="TRL is not installed: make test-trl")
@pytest.mark.skipif(installed("trl") == "1.12.0", reason="the environment of PPO")
@pytest.mark.parametrize("conversational", [False, True], ids=["texts", "messages"])
@pytest.mark.parametrize("trainer", ["GRPO", "RLOO"])
def test_trl_trains_two_steps_on_the_rewards_that_score_gives(
    small_bundle: Path, tmp_path: Path, trainer: str, conversational: bool
) -> None:
    import trl  # noqa: PLC0415
    from datasets import Dataset  # noqa: PLC0415

    prompts = [[{"role": "user", "content": text}] if conversational else text for text in QUESTIONS]
    reward, recorder = RewardFunction(small_bundle, device="cpu"), Recorder()
    arguments = getattr(trl, f"{trainer}Config")(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4,
        num_generations=2,
        max_completion_length=8,
        max_steps=2,
        beta=0.0,  # no reference model, which RLOO would load anew
        logging_steps=1,
        use_cpu=True,
        bf16=False,
        report_to="none",
        gradient_checkpointing=False,
        save_strategy="no",
    )
    training = getattr(trl, f"{trainer}Trainer")(
        model=policy(),
        args=arguments,
        reward_funcs=[reward, recorder],
        train_dataset=Dataset.from_dict({"prompt": prompts, "topic": ["a", "b", "c", "d"]}),
        processing_class=tokenizer(),
    )
    training.train()
    reward.scorer.close()
    assert training.state.global_step == 2
    assert len(recorder.seen) == 2
    assert set(recorder.seen[0]) >= {"prompts", "completions", "completion_ids", "topic", "trainer_state"}
    logged = [entry for entry in training.state.log_history if "rewards/instructmining_reward/mean" in entry]
    for entry, given in zip(logged, recorder.seen, strict=True):
        assert isinstance(given["prompts"][0], list) == conversational
        found = expected(small_bundle, given["prompts"], given["completions"], "reward")
        values = [value for value in found if value is not None]
        assert len(values) >= 2
        mean = sum(values) / len(values)
        assert entry["rewards/instructmining_reward/mean"] == pytest.approx(mean, abs=1e-4)


@pytest.mark.skipif(not installed("trl"), reason="TRL is not installed: make test-trl")
@pytest.mark.skipif(installed("trl") == "1.12.0", reason="the environment of PPO")
def test_the_pages_example_runs_as_printed(small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    (code,) = (code for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "GRPOTrainer" in code)
    (tmp_path / "my-bundle").symlink_to(small_bundle)
    policy().save_pretrained(tmp_path / "my-model")
    tokenizer().save_pretrained(tmp_path / "my-model")
    rows = [{"instruction": text, "output": answer} for text in QUESTIONS for answer in ("Green is a colour.", "No")]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    ran: dict[str, Any] = {}
    exec(code, ran)
    assert ran["prompts"]["prompt"] == QUESTIONS
    assert ran["trainer"].state.global_step == 2
    ran["reward"].scorer.close()


@pytest.mark.skipif(installed("trl") != "1.12.0", reason="PPO is in TRL up to 1.12: make test-trl")
def test_ppo_trains_two_steps_on_the_rewards_that_score_gives(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Dataset  # noqa: PLC0415
    from transformers import LlamaForSequenceClassification  # noqa: PLC0415
    from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer  # noqa: PLC0415

    from instructmining_serving.training.ppo import RewardModel  # noqa: PLC0415 - needs PyTorch

    tokens = tokenizer()
    asked = [
        tokens.apply_chat_template(
            [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
        )
        for text in QUESTIONS
    ]
    reward = RewardFunction(small_bundle, device="cpu", unscored=-20.0)
    model = RewardModel(reward, tokens, prompt_ids=asked, prompts=QUESTIONS)
    scores: list[tuple[Any, Any]] = []
    own = ppo_trainer.get_reward

    def noted(of: object, query_responses: Any, *rest: int) -> Any:  # noqa: ANN401 - TRL's
        found = own(of, query_responses, *rest)
        if of is model:
            scores.append((query_responses, found[1]))
        return found

    monkeypatch.setattr(ppo_trainer, "get_reward", noted)
    training = PPOTrainer(
        args=PPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=1,
            num_mini_batches=1,
            num_ppo_epochs=1,
            local_rollout_forward_batch_size=2,
            total_episodes=4,
            response_length=8,
            stop_token="eos",
            use_cpu=True,
            bf16=False,
            report_to="none",
            num_sample_generations=0,
            save_strategy="no",
        ),
        processing_class=tokens,
        model=policy(),
        ref_model=None,
        reward_model=model,
        value_model=LlamaForSequenceClassification(config()),
        train_dataset=Dataset.from_dict({"input_ids": asked}),
        eval_dataset=Dataset.from_dict({"input_ids": asked}),
    )
    training.train()
    reward.scorer.close()
    assert training.state.global_step == 2
    found = [(ids, float(score)) for rows, values in scores for ids, score in zip(rows.tolist(), values, strict=True)]
    assert len(found) == 4
    for ids, score in found:
        kept = [token for token in ids if token != tokens.pad_token_id]
        (number,) = (number for number, prompt in enumerate(asked) if kept[: len(prompt)] == prompt)
        text = tokens.decode(kept[len(asked[number]) :], skip_special_tokens=True)
        (wanted,) = expected(small_bundle, [QUESTIONS[number]], [text], "reward")
        assert score == pytest.approx(-20.0 if wanted is None else wanted, abs=1e-4)


@pytest.mark.skipif(not installed("datasets"), reason="datasets is not installed: make test-trl")
@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_are_filtered_by_a_column(small_bundle: Path, streaming: bool) -> None:
    from datasets import Dataset  # noqa: PLC0415
    from datasets.fingerprint import Hasher  # noqa: PLC0415

    answers = ["Green is a colour.", "one two three four", "At noon.", "Yeast gives off gas in the dough."]
    rewards = [value or 0.0 for value in expected(small_bundle, QUESTIONS, answers, "reward")]
    least = sorted(rewards)[1] + 1e-3
    keep = RowFilter(small_bundle, where=f"reward>{least!r}", device="cpu")
    digest = Hasher.hash(keep)
    dataset = Dataset.from_dict({"instruction": QUESTIONS, "output": answers})
    given = dataset.to_iterable_dataset() if streaming else dataset
    kept = [row["output"] for row in given.filter(keep, batched=True, batch_size=3)]
    assert kept == [answer for answer, value in zip(answers, rewards, strict=True) if value > least]
    assert Hasher.hash(keep) == digest
    keep.scorer.close()


@pytest.mark.skipif(not installed("datasets"), reason="datasets is not installed: make test-trl")
def test_a_filter_runs_in_several_processes(small_bundle: Path) -> None:
    from datasets import Dataset  # noqa: PLC0415

    answers = ["Green is a colour.", "one two three four", "At noon.", "Yeast gives off gas in the dough."]
    keep = RowFilter(small_bundle, where="output_length>=1", device="cpu")
    keep({"instruction": ["Go."], "output": ["Yes, at once."]})  # open here, and anew in each process
    dataset = Dataset.from_dict({"instruction": QUESTIONS, "output": answers})
    assert len(dataset.filter(keep, batched=True, batch_size=2, num_proc=2)) == len(answers)
    keep.scorer.close()
