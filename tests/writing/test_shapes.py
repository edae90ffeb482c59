from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import EXAMPLES

from instructmining.errors import OutputError, RowError
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions
from instructmining.reading.parsing import RowParser
from instructmining.reading.values import dumps
from instructmining.types import Example, SourceRow, Turn
from instructmining.writing.shapes import TARGETS, GivenPrompt, TargetName, alternates, target_name, written_as


def read(fields: Mapping[str, object]) -> Example:
    """Read a row as any other program's."""
    raw = dumps(fields)
    row = SourceRow("rows", 1, 0, raw, orjson.loads(raw))
    options = FieldOptions()
    return RowParser(options.shape_of([row]), options).example(row)


def turns(*said: tuple[str, str]) -> tuple[Turn, ...]:
    return tuple(Turn(role, text) for role, text in said)  # type: ignore[arg-type]


def messages(*said: tuple[str, str]) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in said]


CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
WITH_CALL = {
    "messages": [
        {"role": "user", "content": "Weather?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "content": "12 °C", "tool_call_id": "c1"},
        {"role": "assistant", "content": "It is 12 °C."},
    ]
}
SHAREGPT_CALL = {
    "conversations": [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Bonn"}}'},
        {"from": "observation", "value": "12 °C"},
        {"from": "gpt", "value": "It is 12 °C."},
    ],
    "system": "Be brief.",
}


# Each shape


def test_messages_have_the_roles_and_texts_of_all_turns() -> None:
    said = (("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Bye"), ("assistant", "Bye"))
    assert written_as("messages", Example(turns(*said))).fields == {"messages": messages(*said)}


def test_alpaca_keeps_instruction_and_input_apart_where_the_row_did() -> None:
    example = Example(turns(("user", "Sort.\n3 1 2"), ("assistant", "1 2 3")))
    wanted = {"instruction": "Sort.", "input": "3 1 2", "output": "1 2 3", "system": "", "history": []}
    assert written_as("alpaca", example, given=GivenPrompt("Sort.", "3 1 2")).fields == wanted
    together = wanted | {"instruction": "Sort.\n3 1 2", "input": ""}
    assert written_as("alpaca", example).fields == together
    assert written_as("alpaca", example, given=GivenPrompt("Other", "3 1 2")).fields == together


def test_earlier_turns_are_the_history_of_alpaca() -> None:
    said = turns(("system", "S"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert written_as("alpaca", Example(said)).fields == {
        "instruction": "c",
        "input": "",
        "output": "d",
        "system": "S",
        "history": [["a", "b"]],
    }


def test_a_pair_is_a_prompt_and_two_answers() -> None:
    pair = Example.pair("q", "good", "bad")
    assert written_as("preference", pair).fields == {
        "prompt": messages(("user", "q")),
        "chosen": messages(("assistant", "good")),
        "rejected": messages(("assistant", "bad")),
    }
    assert written_as("sharegpt", pair).fields == {
        "conversations": [{"from": "human", "value": "q"}],
        "chosen": {"from": "gpt", "value": "good"},
        "rejected": {"from": "gpt", "value": "bad"},
    }
    assert written_as("alpaca", pair).fields == {
        "instruction": "q",
        "input": "",
        "chosen": "good",
        "rejected": "bad",
        "system": "",
        "history": [],
    }


def test_sides_of_several_turns_part_where_they_differ() -> None:
    start = (("user", "a"), ("assistant", "b"), ("user", "c"))
    later = Example(turns(*start, ("assistant", "x")), rejected=turns(*start, ("assistant", "y")))
    assert written_as("preference", later).fields["prompt"] == messages(*start)
    early = Example(
        turns(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
        rejected=turns(("user", "a"), ("assistant", "b"), ("user", "C"), ("assistant", "D")),
    )
    fields = written_as("preference", early).fields
    assert fields["prompt"] == messages(("user", "a"))
    assert fields["chosen"] == messages(("assistant", "b"), ("user", "c"), ("assistant", "d"))
    with pytest.raises(RowError, match="only preference holds"):
        written_as("sharegpt", early)


# Tools


def test_calls_of_tools_stay_objects_in_messages() -> None:
    written = written_as("messages", read(WITH_CALL), tools=[{"type": "function"}])
    said = written.fields["messages"]
    assert isinstance(said, list)
    assert said[0] == {"role": "user", "content": "Weather?", "name": "ann"}
    assert said[1] == {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert said[2] == {"role": "tool", "content": "12 °C", "tool_call_id": "c1"}
    assert written.fields["tools"] == [{"type": "function"}]
    assert written.lost == set()
    assert read(written.fields).turns == read(WITH_CALL).turns


def test_calls_of_tools_are_turns_of_their_own_in_sharegpt() -> None:
    written = written_as("sharegpt", read(WITH_CALL), tools=[{"type": "function"}])
    said = written.fields["conversations"]
    assert isinstance(said, list)
    assert said[1] == {"from": "function_call", "value": '{"name":"weather","arguments":{"city":"Bonn"}}'}
    assert said[2] == {"from": "observation", "value": "12 °C", "tool_call_id": "c1"}
    assert written.fields["tools"] == '[{"type":"function"}]'
    assert written.lost == {"tool_calls[].id"}


def test_calls_that_sharegpt_has_as_text_become_objects_in_messages() -> None:
    written = written_as("messages", read(SHAREGPT_CALL))
    said = written.fields["messages"]
    assert isinstance(said, list)
    function = {"name": "weather", "arguments": {"city": "Bonn"}}
    call = {"type": "function", "function": function}
    assert said[:3] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    again = written_as("sharegpt", read(written.fields)).fields["conversations"]
    assert isinstance(again, list)
    assert orjson.loads(again[2]["value"]) == function
    assert read(written_as("sharegpt", read(SHAREGPT_CALL)).fields).turns == read(SHAREGPT_CALL).turns


def test_several_calls_are_a_list_and_a_text_that_is_no_call_stays_text() -> None:
    calls = [{"name": "a", "arguments": {}}, {"name": "b", "arguments": {"x": 1}}]
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": "1"},
            {"role": "assistant", "content": "r"},
        ]
    }
    said = written_as("sharegpt", read(row)).fields["conversations"]
    assert isinstance(said, list)
    assert orjson.loads(said[1]["value"]) == calls
    no_call = {"conversations": [{"from": "human", "value": "q"}, {"from": "function_call", "value": "weather Bonn"}]}
    assert written_as("messages", read(no_call)).fields == {
        "messages": messages(("user", "q"), ("assistant", "weather Bonn"))
    }
    assert written_as("sharegpt", read(no_call)).fields == no_call


def test_an_old_function_call_is_a_call_of_a_tool() -> None:
    row = {
        "messages": [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        ]
    }
    said = written_as("messages", read(row)).fields["messages"]
    assert isinstance(said, list)
    assert said[1]["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": "{}"}}]


# What a shape cannot hold


@pytest.mark.parametrize(
    ("target", "row", "reason"),
    [
        ("preference", {"prompt": "a", "completion": "b"}, "no preference pair"),
        ("messages", {"prompt": "a", "chosen": "b", "rejected": "c"}, "it is a preference pair"),
        ("alpaca", WITH_CALL, "not user, assistant, tool, assistant"),
        ("alpaca", {"messages": messages(("assistant", "a"), ("user", "b"))}, "does not end with a response"),
        ("alpaca", {"messages": messages(("user", "a"), ("user", "b"), ("assistant", "c"))}, "not user, user"),
        (
            "alpaca",
            {"messages": [*messages(("user", "a")), {"role": "assistant", "content": "", "tool_calls": [CALL]}]},
            "calls tools",
        ),
        (
            "sharegpt",
            {
                "messages": [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "Let me see.", "tool_calls": [CALL]},
                ]
            },
            "a text beside its calls",
        ),
        (
            "messages",
            {"messages": [*messages(("user", "a")), {"role": "assistant", "content": "", "tool_calls": "soon"}]},
            "calls of tools are",
        ),
        (
            "preference",
            {
                "chosen": messages(("user", "a"), ("assistant", "b")),
                "rejected": messages(("user", "c"), ("assistant", "d")),
            },
            "answer different prompts",
        ),
    ],
)  # fmt: skip
def test_what_a_shape_cannot_hold_is_an_error(target: TargetName, row: dict[str, object], reason: str) -> None:
    with pytest.raises(RowError, match=reason):
        written_as(target, read(row))


def test_keys_that_a_shape_has_no_place_for_are_named() -> None:
    row = {"messages": [{"role": "user", "content": "a", "name": "ann"}, {"role": "assistant", "content": "b"}]}
    assert written_as("alpaca", read(row)).lost == {"messages[].name"}
    assert written_as("sharegpt", read(row)).fields == {
        "conversations": [{"from": "human", "value": "a", "name": "ann"}, {"from": "gpt", "value": "b"}]
    }
    taken = {"messages": [{"role": "user", "content": "a", "from": "ann"}, {"role": "assistant", "content": "b"}]}
    assert written_as("sharegpt", read(taken)).lost == {"conversations[].from"}


def test_an_unknown_shape_is_an_error_that_names_all() -> None:
    with pytest.raises(OutputError, match=r"no shape 'alpca'; did you mean 'alpaca'\? There are: messages, alpaca"):
        target_name("alpca")


# Read again


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SAID = TEXTS.filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: st.DrawFn) -> tuple[Turn, ...]:
    system = [Turn("system", draw(SAID))] if draw(st.booleans()) else []
    exchanges = draw(st.lists(st.tuples(TEXTS, SAID), min_size=1, max_size=4))
    return (*system, *(turn for asked, said in exchanges for turn in (Turn("user", asked), Turn("assistant", said))))


@given(said=conversations(), target=st.sampled_from(["messages", "alpaca", "sharegpt"]))
@settings(max_examples=300, deadline=None)
def test_a_conversation_in_any_shape_is_read_as_the_same_turns(said: tuple[Turn, ...], target: TargetName) -> None:
    assert read(written_as(target, Example(said)).fields).turns == said


@given(said=conversations(), other=SAID, target=st.sampled_from(["alpaca", "sharegpt", "preference"]))
@settings(max_examples=300, deadline=None)
def test_a_pair_in_any_shape_is_read_as_the_same_sides(said: tuple[Turn, ...], other: str, target: TargetName) -> None:
    pair = Example(said, rejected=(*said[:-1], Turn("assistant", other)))
    again = read(written_as(target, pair).fields)
    assert (again.turns, again.rejected) == (pair.turns, pair.rejected)


def texts(example: Example) -> Sequence[object]:
    """All turns; calls of tools as their names alone, since each shape writes them in its own way."""
    sides = (example.turns, example.rejected or ())
    return [
        [
            (turn.role, turn.text if "weather" not in turn.text.lower() or turn.parts is None else "call")
            for turn in side
        ]
        for side in sides
    ]


FILES = sorted(file.name for file in (EXAMPLES / "formats").iterdir())


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("file", FILES)
def test_the_examples_of_every_format_are_read_again_as_they_were(file: str, target: TargetName) -> None:
    held = 0
    for example in read_examples(EXAMPLES / "formats" / file, on_reject=lambda _: None):
        try:
            fields = written_as(target, example).fields
        except RowError:
            continue
        assert texts(read(fields)) == texts(example)
        held += 1
    is_of_pairs = file.startswith("preference")
    if "tool" not in file:
        assert bool(held) == {"messages": not is_of_pairs, "preference": is_of_pairs}.get(target, True)


@pytest.mark.parametrize(
    ("roles", "wanted"),
    [
        ("user assistant", True),
        ("system user assistant user assistant", True),
        ("user assistant tool tool assistant", True),
        ("user user assistant", False),
        ("user assistant user", False),
        ("user system assistant", False),
        ("assistant", False),
        ("tool assistant", True),
    ],
)
def test_rows_that_do_not_alternate_are_found(roles: str, wanted: bool) -> None:
    assert alternates(turns(*((role, "x") for role in roles.split()))) == wanted
