"""What OpenAI's routes are asked for: texts or token ids, one or many, and the parameters beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import RowError
from instructmining_serving.http.bodies import BodyError
from instructmining_serving.raw_texts import RawTokenizer

Prompt: TypeAlias = str | list[int]
EMPTY = "empty"  # code of an error: there is no text


class ParameterError(BodyError):
    """A parameter of a request is wrong."""

    def __init__(self, param: str, message: str, code: str | None = None) -> None:
        """Take the parameter's name, what is wrong with it, and OpenAI's code for that."""
        super().__init__(400, f"{param!r}: {message}")
        self.param = param
        self.code = code


def prompts_of(body: Mapping[str, Any], param: str) -> list[Prompt]:
    """Return the texts of a request, each a text or its token ids.

    Raises:
        ParameterError: there are none, or they are of another type.
    """
    value = body.get(param)
    if isinstance(value, str) or _is_ids(value):
        value = [value]
    of_one_kind = isinstance(value, list) and (
        all(isinstance(each, str) for each in value) or all(_is_ids(each) for each in value)
    )
    if not of_one_kind or not value:
        raise ParameterError(param, "wanted a text, a list of texts, a list of token ids, or a list of such lists")
    if "" in value:
        raise ParameterError(param, f"{_at(value.index(''), value)}the text is empty", EMPTY)
    return list(value)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(each) is int for each in value)


def token_ids(
    prompts: list[Prompt],
    param: str,
    tokenizer: RawTokenizer,
    encode: Callable[[str], NDArray[np.int64]],
    *,
    generated: int,
    max_length: int,
) -> list[NDArray[np.int64]]:
    """Return the ids of each text, int64 (width,); ids that are given are complete.

    Args:
        prompts: texts or ids.
        param: where they come from.
        tokenizer: of the model.
        encode: its way to tokenize a text.
        generated: tokens that are generated after each.
        max_length: limit of the model, with those.

    Raises:
        ParameterError: a text is too long, or an id is not in the vocabulary.
    """
    found = []
    for number, prompt in enumerate(prompts):
        where = _at(number, prompts)
        if not isinstance(prompt, str) and not 0 <= min(prompt) <= max(prompt) < tokenizer.words:
            wrong = next(token for token in prompt if not 0 <= token < tokenizer.words)
            raise ParameterError(param, f"{where}no token has the id {wrong}; ids are below {tokenizer.words}")
        try:
            ids = encode(prompt) if isinstance(prompt, str) else np.array(prompt, dtype=np.int64)
        except RowError as error:
            raise ParameterError(param, f"{where}{error}", "context_length_exceeded") from error
        if len(ids) + generated > max_length:
            more = f" and {generated} to generate" if generated else ""
            raise ParameterError(
                param,
                f"{where}{len(ids):,} tokens{more}; this model's maximum context length is {max_length:,} tokens, "
                "and nothing is truncated: shorten the text",
                "context_length_exceeded",
            )
        if not len(ids):
            raise ParameterError(param, f"{where}the text has no tokens")
        found.append(ids)
    return found


def _at(number: int, prompts: list[Any]) -> str:
    return f"item {number}: " if len(prompts) > 1 else ""


def one_of(body: Mapping[str, Any], param: str, *allowed: object, why: str = "") -> Any:  # noqa: ANN401 - JSON
    """Return a parameter that may have few values; the first where it is absent or null.

    Raises:
        ParameterError: it has another value.
    """
    value = body.get(param)
    if value is None:
        return allowed[0]
    # True is 1 for Python, and 1.0 too; only the second for clients.
    if any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in allowed):
        return value
    names = " or ".join("null" if each is None else str(each).lower() for each in allowed)
    raise ParameterError(param, f"wanted {names}{why}")


def model_name(body: Mapping[str, Any], usual: str) -> str:
    """Return the name that an answer gives the model: whatever the request says.

    Raises:
        ParameterError: it is not a text.
    """
    name = body.get("model")
    if name is not None and not isinstance(name, str):
        raise ParameterError("model", "wanted a name")
    return usual if name is None else name
