from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.errors import InputError, RowError
from instructmining.reading.formats import FORMATS, FormatName, detect
from instructmining.reading.parsing import parse
from instructmining.types import SourceRow, Turn


def row(fields: Mapping[str, object]) -> SourceRow:
    return SourceRow("rows.jsonl", 1, 0, b"", fields)


def turns(fields: Mapping[str, object], name: FormatName) -> list[tuple[str, str]]:
    return [(turn.role, turn.text) for turn in parse(row(fields), name).turns]


# Shapes


def test_alpaca_without_input_is_one_prompt_and_one_response() -> None:
    wanted = [("user", "Name a colour."), ("assistant", "Green.")]
    assert turns({"instruction": "Name a colour.", "output": "Green."}, "alpaca") == wanted
    assert turns({"instruction": "Name a colour.", "input": "", "output": "Green."}, "alpaca") == wanted
    assert turns({"instruction": "Name a colour.", "input": None, "output": "Green."}, "alpaca") == wanted


def test_alpaca_input_stands_on_a_line_below_the_instruction() -> None:
    fields = {"instruction": "Translate.", "input": "Haus", "output": "house"}
    assert turns(fields, "alpaca") == [("user", "Translate.\nHaus"), ("assistant", "house")]


def test_alpaca_system_and_history_come_before_the_instruction() -> None:
    fields = {
        "instruction": "And 2 + 3?",
        "input": "",
        "output": "5",
        "system": "You count.",
        "history": [["1 + 1?", "2"], ["1 + 2?", "3"]],
    }
    assert turns(fields, "alpaca") == [
        ("system", "You count."),
        ("user", "1 + 1?"),
        ("assistant", "2"),
        ("user", "1 + 2?"),
        ("assistant", "3"),
        ("user", "And 2 + 3?"),
        ("assistant", "5"),
    ]


def test_an_empty_system_and_a_null_history_add_no_turn() -> None:
    fields = {"instruction": "a", "output": "b", "system": "", "history": None}
    assert turns(fields, "alpaca") == [("user", "a"), ("assistant", "b")]


def test_sharegpt_names_its_speakers_in_several_ways() -> None:
    fields = {
        "system": "Be short.",
        "conversations": [
            {"from": "human", "value": "Hi"},
            {"from": "gpt", "value": "Hello"},
            {"from": "function_call", "value": "{}"},
            {"from": "observation", "value": "rain"},
            {"role": "assistant", "content": "It rains."},
        ],
    }
    assert turns(fields, "sharegpt") == [
        ("system", "Be short."),
        ("user", "Hi"),
        ("assistant", "Hello"),
        ("assistant", "{}"),
        ("tool", "rain"),
        ("assistant", "It rains."),
    ]


def test_messages_keep_their_roles_and_texts() -> None:
    fields = {
        "messages": [
            {"role": "developer", "content": "Be short."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "  Hello\n"},
            {"role": "tool", "content": ""},
        ]
    }
    assert turns(fields, "messages") == [
        ("system", "Be short."),
        ("user", "Hi"),
        ("assistant", "  Hello\n"),
        ("tool", ""),
    ]


def test_message_content_may_be_a_list_of_text_parts() -> None:
    content = [{"type": "text", "text": "Hel"}, {"type": "text", "value": "lo "}, "wor", {"text": "ld"}]
    fields = {"messages": [{"role": "user", "content": []}, {"role": "assistant", "content": content}]}
    assert turns(fields, "messages") == [("user", ""), ("assistant", "Hello world")]


@pytest.mark.parametrize("prompt", ["prompt", "question", "query", "instruction"])
@pytest.mark.parametrize("response", ["response", "completion", "answer", "output"])
def test_prompt_and_response_go_by_several_names(prompt: str, response: str) -> None:
    assert turns({prompt: "a", response: "b"}, "prompt_response") == [("user", "a"), ("assistant", "b")]


def test_an_example_remembers_the_row_it_came_from() -> None:
    source = row({"prompt": "a", "response": "b"})
    example = parse(source, "prompt_response")
    assert example.row is source
    assert example.turns == (Turn("user", "a"), Turn("assistant", "b"))


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(
        st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.text(max_size=20)), max_size=6
    )
)
def test_messages_and_sharegpt_hold_the_same_conversation(texts: list[tuple[str, str]]) -> None:
    messages = {"messages": [{"role": role, "content": text} for role, text in texts]}
    conversations = {"conversations": [{"from": role, "value": text} for role, text in texts]}
    if any(role == "assistant" and text.strip() for role, text in texts):
        assert turns(messages, "messages") == turns(conversations, "sharegpt") == texts
    else:
        for fields, name in ((messages, "messages"), (conversations, "sharegpt")):
            with pytest.raises(RowError, match="response"):
                parse(row(fields), name)


# Detection


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"instruction": "a", "output": "b"}, "alpaca"),
        ({"instruction": "a", "input": "", "output": "b", "prompt": "c"}, "alpaca"),
        ({"id": 1, "conversations": []}, "sharegpt"),
        ({"messages": []}, "messages"),
        ({"prompt": "a", "completion": "b"}, "prompt_response"),
        ({"question": "a", "answer": "b"}, "prompt_response"),
        ({"instruction": "a", "response": "b"}, "prompt_response"),
    ],
)
def test_a_format_shows_in_its_fields(fields: dict[str, object], name: FormatName) -> None:
    assert detect([row(fields)]) == name


def test_the_first_row_with_a_known_format_decides() -> None:
    assert detect([row({"text": "?"}), row({"messages": [1]}), row({"instruction": "", "output": ""})]) == "messages"
    assert detect([row({"messages": None, "prompt": "a", "completion": "b"})]) == "prompt_response"
    assert detect([row({"messages": None})]) == "messages"


def test_an_unknown_format_is_an_error_that_lists_the_fields_found_and_the_formats() -> None:
    with pytest.raises(InputError) as caught:
        detect([row({"title": "a", "prompt": "b"}), row({"label": 1})])
    message = str(caught.value)
    assert message.startswith("rows.jsonl: no known format in the first 2 rows; fields found: label, prompt, title; ")
    assert all(name in message for name in FORMATS)
    assert "--map" in message


def test_rows_without_fields_have_no_format() -> None:
    with pytest.raises(InputError, match="fields found: none"):
        detect([row({})])


# Rows that hold no example

TURN_A = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("name", "fields", "reason"),
    [
        ("alpaca", {"output": "b"}, "field 'instruction' is missing"),
        ("alpaca", {"instruction": 3, "output": "b"}, "field 'instruction' is a number, wanted text"),
        ("alpaca", {"instruction": None, "output": "b"}, "field 'instruction' is null, wanted text"),
        ("alpaca", {"instruction": "a", "input": ["x"], "output": "b"}, "field 'input' is a list, wanted text"),
        ("alpaca", {"instruction": "a"}, "no response: field 'output' is missing"),
        ("alpaca", {"instruction": "a", "output": None}, "no response: field 'output' is null"),
        ("alpaca", {"instruction": "a", "output": True}, "field 'output' is true or false, wanted text"),
        ("alpaca", {"instruction": "a", "output": {}}, "field 'output' is an object, wanted text"),
        ("alpaca", {"instruction": "a", "output": " \n\t"}, "the response is empty"),
        ("alpaca", {"instruction": "a", "output": "b", "history": "c"}, "field 'history' is text, wanted a list"),
        (
            "alpaca",
            {"instruction": "a", "output": "b", "history": [["c"]]},
            "field 'history'[0] is not a pair of texts",
        ),
        (
            "alpaca",
            {"instruction": "a", "output": "b", "history": [["c", "d"], ["e", None]]},
            "field 'history'[1] is not a pair of texts",
        ),
        ("sharegpt", {"messages": []}, "field 'conversations' is missing"),
        ("sharegpt", {"conversations": None}, "field 'conversations' is null, wanted a list"),
        ("sharegpt", {"conversations": [{"value": "a"}]}, "'conversations'[0] has no field 'from'"),
        ("sharegpt", {"conversations": [{"from": "gpt"}]}, "'conversations'[0] has no field 'value'"),
        ("messages", {"messages": "hi"}, "field 'messages' is text, wanted a list"),
        ("messages", {"messages": [TURN_A, "hi"]}, "'messages'[1] is text, wanted an object"),
        ("messages", {"messages": [TURN_A, {"content": "b"}]}, "'messages'[1] has no field 'role'"),
        ("messages", {"messages": [TURN_A, {"role": "assistant"}]}, "'messages'[1] has no field 'content'"),
        ("messages", {"messages": [{"role": "assistant", "content": None}]}, "'messages'[0] holds null, wanted text"),
        (
            "messages",
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}]},
            "'messages'[0] holds a part that is not text (image_url)",
        ),
        ("messages", {"messages": [{"role": "user", "content": [7]}]}, "'messages'[0] holds a part that is not text"),
        ("messages", {"messages": []}, "no response (format messages)"),
        ("messages", {"messages": [TURN_A]}, "no response (format messages)"),
        ("messages", {"messages": [TURN_A, {"role": "assistant", "content": ""}]}, "the response is empty"),
        ("prompt_response", {"response": "b"}, "no field for a prompt (format prompt_response)"),
        ("prompt_response", {"prompt": "a"}, "no field for a response (format prompt_response)"),
        ("prompt_response", {"prompt": "a", "response": None}, "no response: field 'response' is null"),
        ("prompt_response", {"prompt": ["a"], "response": "b"}, "field 'prompt' is a list, wanted text"),
        ("prompt_response", {"prompt": "a", "response": ""}, "the response is empty"),
    ],
)
def test_a_row_without_an_example_says_why(name: FormatName, fields: dict[str, object], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse(row(fields), name)
    assert str(caught.value) == reason


@pytest.mark.parametrize("role", ["narrator", "", 3, None, ["user"]])
def test_an_unknown_role_is_an_error_that_lists_the_known_ones(role: object) -> None:
    with pytest.raises(RowError, match=r"'messages'\[0\] has the unknown role .*; known: system, .*assistant"):
        parse(row({"messages": [{"role": role, "content": "a"}]}), "messages")


def test_one_empty_response_among_several_is_no_error() -> None:
    fields = {"messages": [{"role": "assistant", "content": ""}, TURN_A, {"role": "assistant", "content": "b"}]}
    assert turns(fields, "messages") == [("assistant", ""), ("user", "a"), ("assistant", "b")]
