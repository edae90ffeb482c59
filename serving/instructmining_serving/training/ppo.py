"""A column as the reward model of TRL's ``PPOTrainer``; needs PyTorch, and is imported apart for that."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from instructmining.errors import InputError, RowError
from instructmining_serving.training.rewards import RewardFunction


class Tokenizer(Protocol):
    """What of the policy's tokenizer is used."""

    pad_token_id: int | None

    def decode(self, token_ids: list[int], /, *, skip_special_tokens: bool) -> str:
        """Return the text of ids."""


@dataclass(frozen=True, slots=True)
class _Output:
    """What the trainer reads of a language model's output."""

    hidden_states: tuple[Tensor]  # of one layer, (rows, width, 1)

    @property
    def last_hidden_state(self) -> Tensor:
        """The same, as earlier trainers read it."""
        return self.hidden_states[0]


class RewardModel(nn.Module):
    """A reward function in the place of ``reward_model`` of ``trl.experimental.ppo.PPOTrainer``, last in TRL 1.12.

    The trainer gives token ids of the policy: the prompt is found by its ids, and the rest, decoded, is the completion.
    So a reward is the number that ``score`` gives for the prompt, as it was before any template, and the completion.
    """

    base_model_prefix = "scorer"

    def __init__(
        self,
        reward: RewardFunction,
        tokenizer: Tokenizer,
        *,
        prompt_ids: Iterable[Sequence[int]],
        prompts: Iterable[object],
    ) -> None:
        """Take the prompts of all datasets that the trainer is given.

        Args:
            reward: must have ``unscored``: PPO needs a number for every completion, an empty one too.
            tokenizer: of the policy.
            prompt_ids: ids of each prompt: ``dataset["input_ids"]``.
            prompts: each prompt, a text or a list of messages.

        Raises:
            InputError: there are not as many prompts as ids.
        """
        super().__init__()
        self.scorer = _Scored(reward, tokenizer, prompt_ids, prompts)
        self.score = nn.Identity()  # of the hidden states, which are the rewards


class _Scored(nn.Module):
    """Stands for a language model whose hidden state is the reward, at every token."""

    def __init__(
        self,
        reward: RewardFunction,
        tokenizer: Tokenizer,
        prompt_ids: Iterable[Sequence[int]],
        prompts: Iterable[object],
    ) -> None:
        super().__init__()
        self._reward, self._tokenizer = reward, tokenizer
        self._prompts: dict[bytes, object] = {}
        lengths: set[int] = set()
        try:
            for ids, prompt in zip(prompt_ids, prompts, strict=True):
                key = np.array([token for token in ids if token != tokenizer.pad_token_id], dtype=np.int64)
                self._prompts[key.tobytes()] = prompt
                lengths.add(len(key))
        except ValueError as error:
            raise InputError("prompt_ids and prompts differ in number; wanted the ids of each prompt") from error
        self._lengths = sorted(lengths, reverse=True)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: object) -> _Output:
        """Score texts.

        Args:
            input_ids: (rows, width) prompt and completion.
            attention_mask: (rows, width) true where there is a token.
            _: all else that the trainer gives, which is not read.

        Raises:
            InputError: a text begins with none of the prompts.
            RowError: a completion has no reward.
        """
        found = [
            self._split(row, ids[mask])
            for row, (ids, mask) in enumerate(zip(_host(input_ids), _host(attention_mask.bool()), strict=True))
        ]
        rewards = self._reward([prompt for prompt, _ in found], [completion for _, completion in found])
        if None in rewards:
            raise RowError(
                f"row {rewards.index(None)} of the batch: the completion has no reward, and PPO needs a number; give "
                "RewardFunction(…, unscored=NUMBER), and no where"
            )
        values = torch.tensor(rewards, dtype=torch.float32, device=input_ids.device)
        return _Output((values[:, None, None].expand(*input_ids.shape, 1),))

    def _split(self, row: int, ids: NDArray[np.int64]) -> tuple[object, str]:
        """Return the longest prompt that a text begins with, and the rest."""
        for length in self._lengths:
            prompt = self._prompts.get(ids[:length].tobytes()) if length <= len(ids) else None
            if prompt is not None:
                return prompt, self._tokenizer.decode(ids[length:].tolist(), skip_special_tokens=True)
        raise InputError(f"row {row} of the batch begins with none of the prompts; give those of all datasets")


def _host(values: Tensor) -> NDArray[np.int64]:
    array: NDArray[np.int64] = values.cpu().numpy()
    return array
