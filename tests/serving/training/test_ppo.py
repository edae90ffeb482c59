"""The interface that TRL 1.12's ``get_reward`` reads; its trainer is in tests/whole/test_trl.py."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_bundle import small_tokenizer

from instructmining import Scorer
from instructmining.errors import InputError, RowError
from instructmining_serving.training import RewardFunction
from instructmining_serving.training.ppo import RewardModel

PAD = 0


class Policy:
    """The tokenizer of a policy."""

    pad_token_id = PAD

    def __init__(self) -> None:
        self._tokenizer = small_tokenizer()

    def ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text).ids)

    def decode(self, token_ids: list[int], /, *, skip_special_tokens: bool) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens))


def model_of(reward: RewardFunction, prompts: list[str]) -> tuple[RewardModel, Policy]:
    policy = Policy()
    asked = [policy.ids(f"<|im_start|>user\n{prompt}<|im_end|>") for prompt in prompts]
    return RewardModel(reward, policy, prompt_ids=asked, prompts=prompts), policy


def rewarded(model: RewardModel, policy: Policy, prompts: list[str], completions: list[str]) -> torch.Tensor:
    """As get_reward asks: prompts padded on the left, completions on the right, all padding as 0 without mask."""
    before = [policy.ids(f"<|im_start|>user\n{prompt}<|im_end|>") for prompt in prompts]
    after = [policy.ids(f"{text}<|im_end|>" if text else "") for text in completions]
    left, right = (max(map(len, part)) for part in (before, after))
    rows = [[PAD] * (left - len(a)) + a + b + [PAD] * (right - len(b)) for a, b in zip(before, after, strict=True)]
    ids = torch.tensor(rows)
    mask = ids != PAD
    output = model.scorer(
        input_ids=ids,
        attention_mask=mask,
        position_ids=mask.cumsum(1),
        return_dict=True,
        output_hidden_states=True,
        use_cache=False,
    )
    logits: torch.Tensor = model.score(output.hidden_states[-1])
    assert logits.shape == (*ids.shape, 1)
    assert torch.equal(output.last_hidden_state, logits)
    assert (logits == logits[:, :1]).all()
    return logits[:, 0, 0]


def test_rewards_of_ids_are_those_of_the_prompts_and_the_decoded_completions(
    scorer: Scorer, prompts: list[str], completions: list[str], scored: dict[str, list[float]]
) -> None:
    model, policy = model_of(RewardFunction(scorer), prompts)
    assert getattr(model, model.base_model_prefix) is model.scorer
    assert list(model.parameters()) == []
    found = rewarded(model.to("cpu").eval(), policy, prompts, completions)
    assert found.tolist() == pytest.approx(scored["reward"], abs=1e-5)


def test_of_two_prompts_that_begin_alike_the_longer_is_taken(scorer: Scorer) -> None:
    policy = Policy()
    short, long = [11, 12], [11, 12, 13]
    seen: list[object] = []

    class Spy(RewardFunction):
        def __call__(self, prompts: object, *_: object, **__: object) -> list[float | None]:
            seen.append(prompts)
            return [0.0]

    model = RewardModel(Spy(scorer), policy, prompt_ids=[short, long], prompts=["short", "long"])
    for ids in ([*long, 40], [*short, 40]):
        given = torch.tensor([ids])
        model.scorer(input_ids=given, attention_mask=torch.ones_like(given))
    assert seen == [["long"], ["short"]]


def test_an_empty_completion_needs_a_reward_of_its_own(scorer: Scorer, prompts: list[str]) -> None:
    model, policy = model_of(RewardFunction(scorer), prompts)
    with pytest.raises(RowError, match=r"row 1 of the batch.*unscored=NUMBER"):
        rewarded(model, policy, prompts[:2], ["Green is a colour.", ""])
    model, policy = model_of(RewardFunction(scorer, unscored=-2.0), prompts)
    assert rewarded(model, policy, prompts[:2], ["Green is a colour.", ""])[1] == -2.0


def test_an_unknown_prompt_is_refused(small_bundle: Path, scorer: Scorer, prompts: list[str]) -> None:
    model, policy = model_of(RewardFunction(scorer), prompts)
    with pytest.raises(InputError, match="row 0 of the batch begins with none of the prompts"):
        rewarded(model, policy, ["Another."], ["Green."])
    with pytest.raises(InputError, match="differ in number"):
        RewardModel(RewardFunction(small_bundle), policy, prompt_ids=[[1]], prompts=[])
