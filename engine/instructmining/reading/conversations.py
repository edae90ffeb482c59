"""Converts values of fields to turns: texts, lists of turns in their common forms, tool calls, transcripts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from instructmining.errors import RowError
from instructmining.reading.values import dumps
from instructmining.types import Turn, TurnParts, TurnRole

SPEAKERS: Mapping[str, TurnRole] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "function_call": "assistant",
    "tool": "tool",
    "function": "tool",
    "observation": "tool",
}
_CALLS = ("tool_calls", "function_call")
_CALL_ROLE = "function_call"  # ShareGPT's role of a turn whose text is a call
_PAIR: tuple[tuple[str, TurnRole], ...] = (("input", "user"), ("output", "assistant"))
_PART_KEYS = ("text", "value")
_ALTERNATING: tuple[TurnRole, TurnRole] = ("user", "assistant")
# Anthropic's HH and sets in its form; OpenAssistant-Guanaco.
_TRANSCRIPTS = (
    re.compile(r"(?:\A|\n\n)(Human|Assistant):[ ]?"),
    re.compile(r"\n*### ?(Human|Assistant|System):[ ]?"),
)

# Marks that templates put around turns: Alpaca, ChatML, Llama 2 and 3, Gemma, Vicuna and plain names.
_TEMPLATES = re.compile(
    r"^### (?:Instruction|Response|Input|User|Assistant)\b:?|<\|im_start\|>|\[/?INST\]|<\|start_header_id\|>"
    r"|<start_of_turn>|<\|(?:user|assistant|prompter)\|>|^(?:USER|ASSISTANT|User|Assistant|Q|A|Question|Answer):",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class TurnKeys:
    """Key names of a turn that is an object; the first one present is used."""

    role: tuple[str, ...] = ("role", "from")
    content: tuple[str, ...] = ("content", "value")


class Unread(set[str]):
    """Names of fields that hold text and take no role, and keys inside turns as ``messages[].name``."""

    __slots__ = ()

    def look(self, name: str, value: object) -> None:
        """Add the name if the value holds text."""
        if holds_text(value):
            self.add(name)


def holds_text(value: object) -> bool:
    """Return whether a value holds anything but white space, at any depth."""
    if isinstance(value, str):
        return bool(value) and not value.isspace()
    if not isinstance(value, (list, dict)):
        return False
    waiting: list[object] = [value]
    while waiting:
        match waiting.pop():
            case str() as text:
                if text and not text.isspace():
                    return True
            case list() as values:
                waiting += values
            case dict() as fields:
                waiting += fields.values()
    return False


def kind_of(value: object) -> str:
    """Return a value's JSON type, for messages."""
    names: dict[type, str] = {
        list: "a list",
        dict: "an object",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(type(value), "a number")


def turn_list(value: object, field: str, keys: TurnKeys, unread: Unread) -> list[Turn]:
    """Convert a list to turns: objects with role and content, with ``input`` and ``output``, or alternating texts.

    Args:
        value: the list, or its JSON as text.
        field: name of the field that holds it.
        keys: key names of the objects.
        unread: collects the names of other keys that hold text.

    Raises:
        RowError: the value is no such list.
    """
    items = _from_json(value) if isinstance(value, str) else value
    if not isinstance(items, list):
        raise RowError(f"field '{field}' is {kind_of(value)}, wanted a list")
    if items and isinstance(items[0], str):
        return _alternating(items, field)
    turns: list[Turn] = []
    for number, item in enumerate(items):
        place = _Place(field, number)
        if not isinstance(item, dict):
            raise RowError(f"{place} is {kind_of(item)}, wanted an object")
        if _PAIR[0][0] in item and not is_turn(item, keys):
            turns += _pair(item, place, unread)
        else:
            turns.append(turn(item, place, keys, unread))
    return turns


def history(value: object, field: str, keys: TurnKeys, unread: Unread) -> list[Turn]:
    """Convert the turns before the prompt: pairs of texts, or a list of turns; perhaps as JSON text.

    Raises:
        RowError: the value is neither.
    """
    if isinstance(value, str):
        value = _from_json(value) if value.strip() else []
    if not isinstance(value, list):
        raise RowError(f"field '{field}' is {kind_of(value)}, wanted a list")
    if value and isinstance(value[0], dict):
        return turn_list(value, field, keys, unread)
    turns = []
    for number, pair in enumerate(value):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise RowError(f"field '{field}'[{number}] is not a pair of texts")
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return turns


def is_turn(value: object, keys: TurnKeys) -> bool:
    """Return whether a value is an object with a turn's role."""
    return isinstance(value, dict) and any(key in value for key in keys.role)


class _Place:
    """Where a turn stands; put into words only for a message."""

    __slots__ = ("field", "number")

    def __init__(self, field: str, number: int | None = None) -> None:
        self.field = field
        self.number = number

    def __str__(self) -> str:
        return f"'{self.field}'" if self.number is None else f"'{self.field}'[{self.number}]"


def one_turn(value: Mapping[str, object], field: str, keys: TurnKeys, unread: Unread) -> Turn:
    """Convert an object in a field to one turn.

    Raises:
        RowError: its role or content is missing, unknown or not text.
    """
    return turn(value, _Place(field), keys, unread)


def turn(item: Mapping[str, object], place: _Place, keys: TurnKeys, unread: Unread) -> Turn:
    """Convert one turn; an assistant's tool calls follow its content as compact JSON."""
    role_key, content_key = _first(item, keys.role), _first(item, keys.content)
    if role_key is None:
        raise RowError(f"{place} has no field '{keys.role[0]}'")
    role = item[role_key]
    name = role.strip().lower() if isinstance(role, str) else ""
    known = SPEAKERS.get(name)
    if known is None:
        raise RowError(f"{place} has the unknown role {role!r}; known: {', '.join(SPEAKERS)}")
    content = item[content_key] if content_key is not None else None
    is_call = name == _CALL_ROLE
    if len(item) == 2 and isinstance(content, str) and not is_call:
        return Turn(known, content)
    given = [item[key] for key in _CALLS if item.get(key)]
    calls = [_compact(value, place) for value in given]
    if content_key is None and not calls:
        raise RowError(f"{place} has no field '{keys.content[0]}'")
    text = "" if calls and content is None else _content(content, place, content_key or "", unread)
    others = {
        key: value for key, value in item.items() if key not in (role_key, content_key, *_CALLS) and value is not None
    }
    for key, value in others.items():
        unread.look(f"{place.field}[].{key}", value)
    parts = TurnParts(text, tuple(given), is_call, others) if given or is_call or others else None
    return Turn(known, "\n".join([text, *calls] if text else calls) if calls else text, parts)


def _compact(value: object, place: _Place) -> str:
    try:
        return dumps(value).decode()
    except TypeError as error:
        raise RowError(f"{place} holds calls of tools that are nested too deeply") from error


def template_in(text: str) -> str | None:
    """Return the mark that shows that a template made a text, such as ``### Response:``; None where there is none."""
    found = _TEMPLATES.search(text)
    return None if found is None else found.group().strip()


def transcript(text: str) -> list[Turn] | None:
    """Split a text that opens with ``Human:`` or ``### Human:`` into turns; None where it is no transcript."""
    for pattern in _TRANSCRIPTS:
        marks = list(pattern.finditer(text))
        speakers = {mark.group(1) for mark in marks}
        if not {"Human", "Assistant"} <= speakers or text[: marks[0].start()].strip():
            continue
        ends = [*(mark.start() for mark in marks[1:]), len(text)]
        return [
            Turn(SPEAKERS[mark.group(1).lower()], text[mark.end() : end]) for mark, end in zip(marks, ends, strict=True)
        ]
    return None


def _content(value: object, place: _Place, key: str, unread: Unread) -> str:
    """Return a text, or the joined text parts as OpenAI and LLaMA-Factory write them."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowError(f"{place} holds {kind_of(value)}, wanted text")
    texts = []
    for part in value:
        text_key = _first(part, _PART_KEYS) if isinstance(part, dict) else None
        text = part[text_key] if isinstance(part, dict) and text_key is not None else part
        if not isinstance(text, str) or (isinstance(part, dict) and part.get("type", "text") != "text"):
            kind = part.get("type") if isinstance(part, dict) else None
            raise RowError(f"{place} holds a part that is not text{f' ({kind})' if isinstance(kind, str) else ''}")
        texts.append(text)
        if isinstance(part, dict) and len(part) > 1:
            for other, more in part.items():
                if other not in {text_key, "type"}:
                    unread.look(f"{place.field}[].{key}[].{other}", more)
    return "".join(texts)


def _alternating(texts: Sequence[object], field: str) -> list[Turn]:
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise RowError(f"'{field}'[{number}] is {kind_of(text)}, wanted text")
    return [Turn(_ALTERNATING[number % 2], str(text)) for number, text in enumerate(texts)]


def _pair(item: Mapping[str, object], place: _Place, unread: Unread) -> list[Turn]:
    turns = []
    for key, role in _PAIR:
        if not isinstance(text := item.get(key), str):
            problem = f"holds {kind_of(text)} in '{key}', wanted text" if key in item else f"has no field '{key}'"
            raise RowError(f"{place} {problem}")
        turns.append(Turn(role, text))
    for key, value in item.items():
        if key not in dict(_PAIR):
            unread.look(f"{place.field}[].{key}", value)
    return turns


def _from_json(text: str, first: str = "[") -> object:
    """Parse a text that is JSON and begins like a list, or as given; return any other text as it is."""
    if text.lstrip()[:1] not in {*first}:
        return text
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return text


def json_turns(value: object, keys: TurnKeys) -> list[object] | None:
    """Parse a text that is the JSON of a list of turns, or of one; None for anything else."""
    items = _from_json(value, "[{") if isinstance(value, str) else None
    items = [items] if isinstance(items, dict) else items
    return items if isinstance(items, list) and items and all(_is_whole(item, keys) for item in items) else None


def _is_whole(item: object, keys: TurnKeys) -> bool:
    """Return whether a value is an object with a known role and a content."""
    if not isinstance(item, dict):
        return False
    role = _first(item, keys.role)
    return role is not None and str(item[role]).strip().lower() in SPEAKERS and _first(item, keys.content) is not None


def _first(fields: Mapping[str, object], names: Sequence[str]) -> str | None:
    """Return the first name that holds something, else the first that is present."""
    there = None
    for name in names:
        if name in fields:
            value = fields[name]
            if value is not None and value != "":
                return name
            there = there or name
    return there
