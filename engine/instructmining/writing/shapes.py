"""Writes examples in the shapes that trainers read: TRL, Axolotl and LLaMA-Factory.

What a shape cannot hold is an error, or, where it is a key beside the texts, named as lost. docs/outputs.md says which
trainer reads which shape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import orjson

from instructmining.errors import OutputError, RowError
from instructmining.errors.names import no_such
from instructmining.reading.values import dumps, loads
from instructmining.types import Example, Turn, TurnParts, TurnRole

TargetName: TypeAlias = Literal["messages", "alpaca", "sharegpt", "preference"]
TARGETS: tuple[TargetName, ...] = get_args(TargetName)
_SPEAKERS: Mapping[TurnRole, str] = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
_CALL = "function_call"
_OF_CALL = frozenset({"type", "function"})


@dataclass(frozen=True, slots=True)
class GivenPrompt:
    """The prompt and its context, where the row has a field for each."""

    prompt: str
    context: str


@dataclass(slots=True)
class Written:
    """An example in the fields of a shape.

    Attributes:
        fields: the fields in order.
        lost: keys of turns and of calls that the shape has no place for, ``messages[].name`` for a key of a turn.
    """

    fields: dict[str, object] = field(default_factory=dict)
    lost: set[str] = field(default_factory=set)


def target_name(name: str) -> TargetName:
    """Check the name of a shape.

    Raises:
        OutputError: there is no such shape.
    """
    for known in TARGETS:
        if name == known:
            return known
    raise OutputError(no_such("shape", name, TARGETS))


def written_as(
    target: TargetName, example: Example, *, tools: object = None, given: GivenPrompt | None = None
) -> Written:
    """Return an example in the fields of a shape.

    Args:
        target: name of the shape.
        example: as it was read from its row; texts alone, if it came from none.
        tools: the row's tools: a list, or its JSON as text.
        given: the row's prompt and context, which the last prompt joins.

    Raises:
        RowError: the shape cannot hold the example; the message says why, and which shape can.
    """
    written = Written()
    _WRITERS[target](example, given, written)
    if tools:
        written.fields["tools"] = _tools(tools) if target in _WITH_TEXT_TOOLS else tools
    return written


def alternates(turns: Sequence[Turn]) -> bool:
    """Return whether user and assistant speak in turn, the assistant last; tools answer in the user's place.

    LLaMA-Factory leaves out other conversations. Several tools in a row count as one, a system turn only at the start.
    """
    roles: list[TurnRole] = []
    for turn in turns[1:] if turns[:1] and turns[0].role == "system" else turns:
        if not (turn.role == "tool" and roles[-1:] == ["tool"]):
            roles.append(turn.role)
    wanted = [("user", "tool"), ("assistant",)]
    return not len(roles) % 2 and all(role in wanted[number % 2] for number, role in enumerate(roles))


def _as_messages(example: Example, given: GivenPrompt | None, written: Written) -> None:  # noqa: ARG001 - as all writers
    if example.rejected is not None:
        raise RowError("it is a preference pair, which messages cannot hold; preference, sharegpt and alpaca can")
    written.fields["messages"] = _messages(example.turns, written)


def _as_preference(example: Example, given: GivenPrompt | None, written: Written) -> None:  # noqa: ARG001 - as all writers
    if example.rejected is None:
        raise RowError("it is no preference pair, with a chosen and a rejected response; messages holds it")
    prompt, chosen, rejected = _parted(example.turns, example.rejected)
    written.fields |= {
        "prompt": _messages(prompt, written),
        "chosen": _messages(chosen, written),
        "rejected": _messages(rejected, written),
    }


def _as_sharegpt(example: Example, given: GivenPrompt | None, written: Written) -> None:  # noqa: ARG001 - as all writers
    if example.rejected is None:
        written.fields["conversations"] = _spoken(example.turns, written)
        return
    prompt, chosen, rejected = _with_one_answer_each(example.turns, example.rejected)
    written.fields["conversations"] = _spoken(prompt, written)
    written.fields["chosen"], written.fields["rejected"] = _spoken([chosen, rejected], written)


def _as_alpaca(example: Example, given: GivenPrompt | None, written: Written) -> None:
    before: Sequence[Turn]
    if example.rejected is None:
        if example.turns[-1].role != "assistant":
            raise RowError("it does not end with a response, which alpaca needs; messages holds it")
        before, answers = example.turns[:-1], {"output": example.turns[-1]}
    else:
        before, chosen, rejected = _with_one_answer_each(example.turns, example.rejected)
        answers = {"chosen": chosen, "rejected": rejected}
    system = before[0].text if before and before[0].role == "system" else ""
    asked = before[1:] if before and before[0].role == "system" else before
    wanted: list[TurnRole] = ["user", "assistant"]
    if not len(asked) % 2 or any(turn.role != wanted[number % 2] for number, turn in enumerate(asked)):
        roles = ", ".join(turn.role for turn in example.turns)
        raise RowError(
            f"alpaca holds user and assistant in turn, and one system text before them, not {roles}; messages holds it"
        )
    for turn in (*before, *answers.values()):
        _check_plain(turn, written)
    said = asked[-1].text
    if given is None or not given.context or said != f"{given.prompt}\n{given.context}":
        given = GivenPrompt(said, "")
    written.fields |= {
        "instruction": given.prompt,
        "input": given.context,
        **{name: turn.text for name, turn in answers.items()},
        "system": system,
        "history": [[asked[at].text, asked[at + 1].text] for at in range(0, len(asked) - 1, 2)],
    }


_Writer: TypeAlias = Callable[[Example, GivenPrompt | None, Written], None]
_WRITERS: Mapping[TargetName, _Writer] = {
    "messages": _as_messages,
    "alpaca": _as_alpaca,
    "sharegpt": _as_sharegpt,
    "preference": _as_preference,
}
_WITH_TEXT_TOOLS = frozenset({"alpaca", "sharegpt"})  # LLaMA-Factory reads the tools of these as JSON text


def _messages(turns: Sequence[Turn], written: Written) -> list[dict[str, object]]:
    """Return turns as OpenAI and TRL write them, with calls of tools as objects."""
    messages = []
    for turn in turns:
        parts = _parts(turn)
        message: dict[str, object] = {"role": turn.role, "content": parts.text}
        if calls := _calls(parts):
            message["tool_calls"] = calls
            if parts.is_call:
                message["content"] = ""
        messages.append(_with_others(message, parts, "messages[]", written))
    return messages


def _spoken(turns: Sequence[Turn], written: Written) -> list[dict[str, object]]:
    """Return turns as ShareGPT has them, with calls of tools as JSON text in turns of their own.

    Raises:
        RowError: a turn has a text beside its calls.
    """
    spoken = []
    for turn in turns:
        parts = _parts(turn)
        one: dict[str, object] = {"from": _SPEAKERS[turn.role], "value": parts.text}
        if parts.is_call:
            one["from"] = _CALL
        elif calls := _calls(parts):
            if parts.text.strip():
                raise RowError("a turn has a text beside its calls of tools, which sharegpt cannot hold; messages can")
            one = {"from": _CALL, "value": dumps(_called(calls, written)).decode()}
        spoken.append(_with_others(one, parts, "conversations[]", written))
    return spoken


def _with_others(turn: dict[str, object], parts: TurnParts, place: str, written: Written) -> dict[str, object]:
    taken = parts.others.keys() & {*turn, "tool_calls"}
    written.lost.update(f"{place}.{name}" for name in taken)
    return turn | {name: value for name, value in parts.others.items() if name not in taken}


def _check_plain(turn: Turn, written: Written) -> None:
    """Check that a turn is a text alone.

    Raises:
        RowError: it has calls of tools.
    """
    parts = _parts(turn)
    if parts.calls or parts.is_call:
        raise RowError("it calls tools, which alpaca cannot hold; messages and sharegpt can")
    written.lost.update(f"messages[].{name}" for name in parts.others)


def _parts(turn: Turn) -> TurnParts:
    return TurnParts(turn.text) if turn.parts is None else turn.parts


def _calls(parts: TurnParts) -> list[dict[str, object]]:
    """Return the calls of tools in a turn as OpenAI writes them; none where its text is no JSON of calls.

    Raises:
        RowError: what the turn has for calls is none.
    """
    if parts.is_call:
        found = _as_calls(parts.text)
        return found or []
    calls: list[dict[str, object]] = []
    for value in parts.calls:
        found = _as_calls(value)
        if found is None:
            raise RowError(
                f"calls of tools are {dumps(value)[:60].decode(errors='replace')}, wanted objects with a name"
            )
        calls += found
    return calls


def _as_calls(value: object) -> list[dict[str, object]] | None:
    """Return one or more calls, perhaps as JSON text, in OpenAI's form; None where the value is no such thing."""
    if isinstance(value, str):
        try:
            value = loads(value)
        except orjson.JSONDecodeError:
            return None
    calls: list[dict[str, object]] = []
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, dict):
            return None
        if isinstance(one.get("function"), dict) and isinstance(one["function"].get("name"), str):
            calls.append(one)
        elif isinstance(one.get("name"), str):
            calls.append({"type": "function", "function": one})
        else:
            return None
    return calls


def _called(calls: Sequence[Mapping[str, object]], written: Written) -> object:
    """Return the names and arguments of calls as LLaMA-Factory reads them: one object, or a list of several."""
    called = []
    for call in calls:
        function = call["function"]
        assert isinstance(function, dict)
        written.lost.update(f"tool_calls[].{name}" for name in call.keys() - _OF_CALL if call[name] is not None)
        called.append({"name": function["name"], "arguments": _arguments(function.get("arguments"))})
    return called[0] if len(called) == 1 else called


def _arguments(value: object) -> object:
    """Return the arguments of a call as an object, where they are its JSON text."""
    if not isinstance(value, str):
        return {} if value is None else value
    try:
        parsed = loads(value)
    except orjson.JSONDecodeError:
        return value
    return parsed if isinstance(parsed, dict) else value


def _tools(tools: object) -> str:
    return tools if isinstance(tools, str) else dumps(tools).decode()


def _parted(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> tuple[Sequence[Turn], Sequence[Turn], Sequence[Turn]]:
    """Part a pair into its common prompt and what each side answers, from the assistant's turn on where they differ.

    Raises:
        RowError: the sides answer different prompts.
    """
    common = 0
    while common < min(len(chosen), len(rejected)) - 1 and chosen[common] == rejected[common]:
        common += 1
    while common and (chosen[common].role != "assistant" or rejected[common].role != "assistant"):
        common -= 1
    if not any(turn.role == "user" for turn in chosen[:common]):
        raise RowError("its chosen and rejected responses answer different prompts")
    return chosen[:common], chosen[common:], rejected[common:]


def _with_one_answer_each(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> tuple[Sequence[Turn], Turn, Turn]:
    """Part a pair of which each side is one turn.

    Raises:
        RowError: a side has several, or the sides answer different prompts.
    """
    prompt, of_chosen, of_rejected = _parted(chosen, rejected)
    if len(of_chosen) > 1 or len(of_rejected) > 1:
        raise RowError("its responses are several turns, which only preference holds")
    return prompt, of_chosen[0], of_rejected[0]
