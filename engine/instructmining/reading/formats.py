"""Row to Example: the shapes in which instruction data is published, detected on the first rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Literal, TypeAlias, get_args

from instructmining.errors import InputError, RowError
from instructmining.records import Example, SourceRow, Turn, TurnRole

FormatName: TypeAlias = Literal["alpaca", "sharegpt", "messages", "prompt_response"]
Fields: TypeAlias = Mapping[str, object]

FORMATS: tuple[FormatName, ...] = get_args(FormatName)

_ROLES: dict[str, TurnRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_PROMPTS = ("prompt", "question", "query", "instruction")
_RESPONSES = ("response", "completion", "answer", "output")


def format_name(name: str | None) -> FormatName | None:
    """The format of that name; None stays None.

    Raises:
        InputError: there is none.
    """
    if name is None:
        return None
    for known in FORMATS:
        if name == known:
            return known
    raise InputError(f"format {name!r}; known: {', '.join(FORMATS)}")


def detect(rows: Sequence[SourceRow]) -> FormatName:
    """The format of the first row that has the fields of one.

    Raises:
        InputError: none has; the message lists the fields found and the formats known.
    """
    for row in rows:
        fields = row.fields
        if "instruction" in fields and "output" in fields:
            return "alpaca"
        if "conversations" in fields:
            return "sharegpt"
        if "messages" in fields:
            return "messages"
        if _first(fields, _PROMPTS) and _first(fields, _RESPONSES):
            return "prompt_response"
    found = sorted(set(chain.from_iterable(row.fields for row in rows)))[:12]
    where = rows[0].source if rows else "input"
    raise InputError(
        f"{where}: no known format in the first {len(rows)} rows; fields found: {', '.join(found) or 'none'}; "
        "known: alpaca (instruction, input, output), sharegpt (conversations), messages (messages), "
        "prompt_response (prompt, response); rename the fields or give --format"
    )


def parse(row: SourceRow, name: FormatName) -> Example:
    """The example that a row holds.

    Raises:
        RowError: a field is missing, has a wrong type, or there is no response.
    """
    example = Example(tuple(_PARSERS[name](row.fields)), row)
    if not example.has_response:
        if any(turn.role == "assistant" for turn in example.turns):
            raise RowError("the response is empty")
        raise RowError(f"no response (format {name})")
    return example


def _alpaca(fields: Fields) -> list[Turn]:
    instruction = _text(fields, "instruction")
    more = _text(fields, "input", default="")
    turns = [Turn("system", system)] if (system := _text(fields, "system", default="")) else []
    for number, pair in enumerate(_list(fields, "history", default=())):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise RowError(f"field 'history'[{number}] is not a pair of texts")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    prompt = f"{instruction}\n{more}" if more else instruction
    return [*turns, Turn("user", prompt), Turn("assistant", _response(fields, "output"))]


def _sharegpt(fields: Fields) -> list[Turn]:
    turns = [Turn("system", system)] if (system := _text(fields, "system", default="")) else []
    return turns + _turns(fields, "conversations", ("from", "role"), ("value", "content"))


def _messages(fields: Fields) -> list[Turn]:
    return _turns(fields, "messages", ("role", "from"), ("content", "value"))


def _prompt_response(fields: Fields) -> list[Turn]:
    prompt, response = _first(fields, _PROMPTS), _first(fields, _RESPONSES)
    if prompt is None or response is None:
        wanted = "a prompt" if prompt is None else "a response"
        raise RowError(f"no field for {wanted} (format prompt_response)")
    return [Turn("user", _text(fields, prompt)), Turn("assistant", _response(fields, response))]


def _turns(fields: Fields, name: str, role_keys: tuple[str, ...], text_keys: tuple[str, ...]) -> list[Turn]:
    turns = []
    for number, item in enumerate(_list(fields, name)):
        where = f"'{name}'[{number}]"
        if not isinstance(item, dict):
            raise RowError(f"{where} is {_kind(item)}, wanted an object")
        role_key, text_key = _first(item, role_keys), _first(item, text_keys)
        if role_key is None:
            raise RowError(f"{where} has no field '{role_keys[0]}'")
        role = item[role_key]
        if not isinstance(role, str) or role not in _ROLES:
            raise RowError(f"{where} has the unknown role {role!r}; known: {', '.join(_ROLES)}")
        if text_key is None:
            raise RowError(f"{where} has no field '{text_keys[0]}'")
        turns.append(Turn(_ROLES[role], _content(item[text_key], where)))
    return turns


def _content(value: object, where: str) -> str:
    """A text, or a list of text parts as OpenAI and LLaMA-Factory write them."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowError(f"{where} holds {_kind(value)}, wanted text")
    texts = []
    for part in value:
        text = part.get("text", part.get("value")) if isinstance(part, dict) else part
        if not isinstance(text, str) or (isinstance(part, dict) and part.get("type", "text") != "text"):
            raise RowError(f"{where} holds a part that is not text")
        texts.append(text)
    return "".join(texts)


def _response(fields: Fields, name: str) -> str:
    if fields.get(name) is None:
        raise RowError(f"no response: field '{name}' is {'null' if name in fields else 'missing'}")
    return _text(fields, name)


def _text(fields: Fields, name: str, *, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if name not in fields:
        raise RowError(f"field '{name}' is missing")
    if not isinstance(value, str):
        raise RowError(f"field '{name}' is {_kind(value)}, wanted text")
    return value


def _list(fields: Fields, name: str, *, default: Sequence[object] | None = None) -> Sequence[object]:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if name not in fields:
        raise RowError(f"field '{name}' is missing")
    if not isinstance(value, list):
        raise RowError(f"field '{name}' is {_kind(value)}, wanted a list")
    return value


def _first(fields: Fields, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in fields), None)


def _kind(value: object) -> str:
    names: dict[type, str] = {
        list: "a list",
        dict: "an object",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")


_PARSERS: dict[FormatName, Callable[[Fields], list[Turn]]] = {
    "alpaca": _alpaca,
    "sharegpt": _sharegpt,
    "messages": _messages,
    "prompt_response": _prompt_response,
}
