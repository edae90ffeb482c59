"""OpenAI's completions as evaluation harnesses use them: likelihoods of a text's tokens, and the likeliest next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Role
from instructmining.scorer.requests import Texts
from instructmining.tokenizing.truncation import Tokens
from instructmining_serving.http.prompts import ParameterError, Prompt, one_of, prompts_of, token_ids
from instructmining_serving.raw_texts import RawTokenizer
from instructmining_serving.rows import RowsRefusedError
from instructmining_serving.scheduling.work import Outputs
from instructmining_serving.service import NotServedError, ScoringService

OUTPUTS = ("nll", "best_token", "best_log_probability")
_LEAST = -9999.0  # JSON has no -inf; vLLM's value
_ANY = 0  # id of the token in the place of the one that is generated; no state that is used depends on it
# What changes nothing, and what must be absent, since one token is generated, the likeliest, in one answer.
_ONLY: Mapping[str, tuple[object, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "stream": (False,),
    "stream_options": (None,),
    "suffix": (None, ""),
    "stop": (None, []),
    "logit_bias": (None, {}),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "truncate_prompt_tokens": (None,),
}


@dataclass(frozen=True, slots=True)
class Completion:
    """A request for completions; ``user``, ``seed`` and what OpenAI does not know change nothing."""

    prompts: list[Prompt]
    echo: bool  # whether an answer begins with the prompt
    logprobs: int | None  # 0 for the tokens' own log probabilities, 1 for those of the likeliest ones too
    generated: int  # tokens after each prompt: 1, or 0 with ``echo``
    special: bool  # whether texts begin with the token that the model's tokenizer puts there

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> Completion:
        """Read a request.

        Raises:
            ParameterError: it asks for what the service does not do.
        """
        for param, allowed in _ONLY.items():
            one_of(body, param, *allowed, why="; one answer to a prompt, whole, without sampling")
        echo = one_of(body, "echo", False, True)
        if body.get("max_tokens") is None:
            raise ParameterError("max_tokens", "is missing, and OpenAI's default is 16; wanted 1, or 0 with echo")
        generated = one_of(body, "max_tokens", *((1, 0) if echo else (1,)), why="" if echo else ", or 0 with echo")
        sampled = "; the likeliest token is generated, none is sampled"
        one_of(body, "temperature", *((0,) if generated else (0, 1)), why=sampled)
        return cls(
            prompts=prompts_of(body, "prompt"),
            echo=echo,
            logprobs=one_of(body, "logprobs", None, 0, 1),
            generated=int(generated),
            special=one_of(body, "add_special_tokens", True, False),
        )


def not_computed(service: ScoringService) -> str | None:
    """Return why completions are not served though their model is open; None where they are, or it is not."""
    if "perplexity" not in service.roles:
        return None
    try:
        service.role("perplexity", OUTPUTS)
    except NotServedError as error:
        return f"/v1/completions is not served: {error}"
    return None


class Prompts:
    """The prompts of a request, tokenized."""

    def __init__(self, asked: Completion, role: Role, tokenizer: RawTokenizer) -> None:
        """Tokenize them.

        Raises:
            ParameterError: one is too long, or has ids that are no tokens.
        """
        self._asked = asked
        self._tokenizer = tokenizer
        self.ids = token_ids(
            asked.prompts,
            "prompt",
            tokenizer,
            lambda text: tokenizer.prompt(text, special=asked.special),
            generated=asked.generated,
            max_length=role.max_length,
        )
        texts = [self._text(ids) for ids in self.ids]
        self._scored = [len(text.scored) for text in texts]
        self.texts = Texts(role, OUTPUTS, [text for text in texts if len(text.scored)])

    def _text(self, ids: NDArray[np.int64]) -> Tokens:
        """Return a prompt with the positions to score: its tokens after the first, and the one after its last.

        What the graph says of a position depends on the tokens before it, so any token may be in the last place.
        """
        whole = np.concatenate([ids, np.full(self._asked.generated, _ANY, dtype=np.int64)])
        first = 1 if self._asked.echo and self._asked.logprobs is not None else len(ids)
        return Tokens(whole, np.arange(first, len(whole), dtype=np.int64))

    def answers(self, outputs: Outputs | None) -> tuple[list[dict[str, object]], dict[str, int]]:
        """Return OpenAI's choices, and its usage.

        Args:
            outputs: of the graph, for the scored positions of all texts; None where there are none.

        Raises:
            RowsRefusedError: an output is not a number.
        """
        ends = np.cumsum([0, *self._scored])
        found = [
            [] if outputs is None else [outputs[name][begin:end] for name in OUTPUTS] for begin, end in pairwise(ends)
        ]
        wrong = [row for row, values in enumerate(found) if any(np.isnan(value).any() for value in values)]
        if wrong:
            raise RowsRefusedError([(row, "the model's output is not a number") for row in wrong])
        choices = [self._choice(number, values) for number, values in enumerate(found)]
        prompt, completion = sum(map(len, self.ids)), self._asked.generated * len(self.ids)
        usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
        return choices, usage

    def _choice(self, number: int, values: Sequence[NDArray[Any]]) -> dict[str, object]:
        asked = self._asked
        nll, best, best_log = (value.tolist() for value in values) if values else ([], [], [])
        own: list[int] = self.ids[number].tolist() if asked.echo else []
        tokens = [*own, *best[len(best) - asked.generated :]]
        strings = [self._tokenizer.string(token) for token in tokens]
        given = asked.prompts[number]
        prompt = given if isinstance(given, str) else self._tokenizer.text(given)
        text = (prompt if asked.echo else "") + "".join(strings[len(own) :])
        logprobs = None
        if asked.logprobs is not None:
            logprobs = self._log_probabilities(tokens, strings, nll, best, best_log)
        return {"index": number, "text": text, "finish_reason": "length", "stop_reason": None, "logprobs": logprobs}

    def _log_probabilities(
        self, tokens: Sequence[int], strings: Sequence[str], nll: list[float], best: list[int], best_log: list[float]
    ) -> dict[str, object]:
        """Return OpenAI's form; a prompt's first token has no context, and null."""
        without = len(tokens) - len(nll)
        chosen: list[float | None] = [None] * without
        top: list[dict[str, float] | None] = [None] * without
        for at, (loss, likeliest, log) in enumerate(zip(nll, best, best_log, strict=True), start=without):
            most = max(log, _LEAST)
            # The very number of the likeliest, which clients compare it with.
            value = most if tokens[at] == likeliest else max(-loss, _LEAST)
            entries = {strings[at]: value}
            if self._asked.logprobs:
                name = self._tokenizer.string(likeliest)  # two tokens may have one text
                entries[name] = max(most, entries.get(name, _LEAST))
            chosen.append(value)
            top.append(entries)
        offsets = np.cumsum([0, *map(len, strings)])[:-1].tolist()
        return {"tokens": strings, "token_logprobs": chosen, "top_logprobs": top, "text_offset": offsets}
