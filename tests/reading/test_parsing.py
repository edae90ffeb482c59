from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT

from instructmining import Example, Scorer, Turn, read_examples
from instructmining.errors import InputError, RowError
from instructmining.reading.formats import SHAPES, FieldOptions, FormatName
from instructmining.reading.parsing import RowParser, parse
from instructmining.types import SourceRow

FILES = ROOT / "examples" / "formats"
sys.path.insert(0, str(ROOT / "examples"))

PLAIN = (
    Turn("user", "Name the capital of this country.\nFrance"),
    Turn("assistant", "Paris is the capital of France."),
)
SYSTEM = Turn("system", "Answer in one sentence.")
CHAT = (
    Turn("user", "Name a colour."),
    Turn("assistant", "Green is a colour."),
    Turn("user", "And another one?"),
    Turn("assistant", "Blue is another one."),
)
OTHER = Turn("assistant", "I do not know.")
SAME_CONVERSATION = {
    PLAIN: [
        "alpaca",
        "dolly",
        "question_context_answer",
        "query_response",
        "input_output",
        "prompt_completion",
        "preference",
        "preference_alpaca",
        "document",
    ],
    (SYSTEM, *PLAIN): ["openorca"],
    CHAT: ["lima", "capybara", "ultrachat", "oasst", "transcript", "guanaco", "preference_whole", "preference_hh"],
    (SYSTEM, *CHAT): [
        "alpaca_history",
        "sharegpt",
        "sharegpt_role_content",
        "messages",
        "messages_parts",
        "messages_json_text",
        "prompt_completion_turns",
        "preference_turns",
        "preference_llamafactory",
    ],
}


def row(fields: Mapping[str, object]) -> SourceRow:
    return SourceRow("rows.jsonl", 1, 0, orjson.dumps(fields), fields)


def path_of(name: str) -> Path:
    (path,) = FILES.glob(f"{name}.json*")
    return path


def last_of(name: str) -> Example:
    *_, example = read_examples(path_of(name), on_reject=lambda _: None)
    return example


# The same conversation in all shapes


@pytest.mark.parametrize(
    ("turns", "name"), [(turns, name) for turns, names in SAME_CONVERSATION.items() for name in names]
)
def test_a_conversation_is_the_same_in_every_shape(turns: tuple[Turn, ...], name: str) -> None:
    example = last_of(name)
    assert example.turns == turns
    assert (example.rejected is not None) == name.startswith("preference")
    if example.rejected is not None:
        assert example.rejected == (*turns[:-1], OTHER)


def test_every_example_file_is_one_of_a_shape_that_is_tested_and_on_the_page_of_formats() -> None:
    import formats_page  # noqa: PLC0415 - of examples/

    alone = {"text", "messages_tool_calls"}
    names = {path.stem for path in FILES.iterdir()}
    assert names == {name for files in SAME_CONVERSATION.values() for name in files} | alone
    assert names == set(formats_page.TITLES)
    assert {next(iter(read(name).formats.values())) for name in names} == set(SHAPES)


def read(name: str):  # noqa: ANN201 - the reader, read to its end
    reader = read_examples(path_of(name), on_reject=lambda _: None)
    list(reader)
    return reader


def test_the_page_of_formats_is_made_from_the_table_and_the_files() -> None:
    import formats_page  # noqa: PLC0415 - of examples/

    assert (ROOT / "docs" / "formats.md").read_text(encoding="utf-8") == formats_page.page()


@pytest.mark.parametrize("turns", list(SAME_CONVERSATION))
def test_every_model_gets_the_same_tokens_of_a_conversation_in_any_shape(
    small_bundle: Path, turns: tuple[Turn, ...]
) -> None:
    names = SAME_CONVERSATION[turns]
    examples = [Example(turns), *(Example(last_of(name).turns) for name in names)]
    with Scorer.open(small_bundle, indicators="all", device="cpu") as scorer:
        first, *others = (row.columns for row in scorer.score(examples))
    assert all(columns == first for columns in others)
    assert first["perplexity"] is not None


def test_calls_of_tools_are_text_of_the_assistant_and_results_are_turns() -> None:
    example = last_of("messages_tool_calls")
    call = '[{"id":"call_1","type":"function","function":{"name":"weather","arguments":"{\\"city\\": \\"Rome\\"}"}}]'
    assert example.turns == (
        Turn("user", "How warm is it in Rome?"),
        Turn("assistant", call),
        Turn("tool", "24 degrees"),
        Turn("assistant", "It is 24 degrees in Rome."),
    )
    fields = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b", "tool_calls": [1]}]}
    assert parse(row(fields), "messages").turns[1] == Turn("assistant", "b\n[1]")
    fields = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "function_call": {"name": "f"}}]}
    assert parse(row(fields), "messages").turns[1] == Turn("assistant", '{"name":"f"}')


def test_a_text_alone_is_a_response_to_nothing() -> None:
    assert last_of("text").turns == (Turn("user", ""), Turn("assistant", "Paris is the capital of France."))


# Each shape uses its fields in every combination


@pytest.mark.parametrize("prompt", ["prompt", "question", "query", "instruction", "input"])
@pytest.mark.parametrize("response", ["response", "completion", "answer", "output"])
@pytest.mark.parametrize("context", [None, "context", "input"])
@pytest.mark.parametrize("system", [None, "system", "system_prompt"])
@pytest.mark.parametrize("with_history", [False, True])
def test_no_text_of_a_prompt_and_a_response_is_dropped(
    prompt: str, response: str, context: str | None, system: str | None, with_history: bool
) -> None:
    if prompt == context:
        return
    fields: dict[str, object] = {response: "the response", prompt: "the prompt"}
    fields |= {context: "the context"} if context else {}
    fields |= {system: "the system"} if system else {}
    fields |= {"history": [["before", "then"]]} if with_history else {}
    name: FormatName = "alpaca" if (prompt, response) == ("instruction", "output") else "prompt_response"
    parser = RowParser(SHAPES[name])
    wanted = [Turn("system", "the system")] if system else []
    wanted += [Turn("user", "before"), Turn("assistant", "then")] if with_history else []
    wanted += [Turn("user", "the prompt\nthe context" if context else "the prompt"), Turn("assistant", "the response")]
    assert list(parser.example(row(fields)).turns) == wanted
    assert not parser.unread


@pytest.mark.parametrize("name", ["messages", "sharegpt", "capybara", "ultrachat"])
@pytest.mark.parametrize("system", ["system", "system_prompt"])
def test_a_system_prompt_beside_a_list_of_turns_is_its_first_turn(name: FormatName, system: str) -> None:
    (field,) = SHAPES[name].fields["messages"]
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    example = parse(row({field: turns, system: "Be short."}), name)
    assert example.turns == (Turn("system", "Be short."), Turn("user", "a"), Turn("assistant", "b"))
    said_twice = [{"role": "system", "content": "Be short."}, *turns]
    assert parse(row({field: said_twice, system: "Be short."}), name).turns == example.turns


TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.recursive(
    st.one_of(TEXT, st.integers(-9, 9), st.none(), st.booleans()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
)
KNOWN = sorted({name for shape in SHAPES.values() for names in shape.fields.values() for name in names})


def leaves(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [text for part in parts for text in leaves(part)]


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from([name for name in SHAPES if name != "oasst"]),
    others=st.dictionaries(st.one_of(st.sampled_from(KNOWN), TEXT), VALUES, max_size=5),
    extra=st.dictionaries(st.sampled_from(["name", "weight", "tool_calls", "value", "reasoning_content"]), VALUES),
    texts=st.lists(TEXT, min_size=2, max_size=4),
)
def test_any_text_in_any_field_is_seen_or_named(
    name: FormatName, others: dict[str, object], extra: dict[str, object], texts: list[str]
) -> None:
    shape = SHAPES[name]
    turns = [
        {"role": ("user", "assistant")[number % 2], "content": text, **(extra if number else {})}
        for number, text in enumerate(texts)
    ]
    base: dict[str, object] = {}
    for role in shape.needs:
        field = shape.fields[role][0]
        base[field] = turns if role == "messages" else texts[len(base) % len(texts)]
    if name == "preference":
        base["prompt"] = texts[-1]
    fields = {**others, **base}
    parser = RowParser(shape)
    try:
        example = parser.example(row(fields))
    except RowError:
        return  # the row is a reject, with its reason
    sides = (example.turns, example.rejected or ())
    seen = "\0".join(turn.text for side in sides for turn in side)
    for field, value in fields.items():
        hidden = [text for text in leaves(value) if text.strip() and text not in seen]
        if field in parser.unread or any(part.startswith(f"{field}[]") for part in parser.unread):
            continue
        roles = {"user", "assistant"} if value is turns or field in ("messages", "conversations") else set()
        hidden = [text for text in hidden if text not in roles and json.dumps(text)[1:-1] not in seen]
        assert not [text for text in hidden if orjson.dumps(text).decode()[1:-1] not in seen], (field, value, example)


# What is not read


def test_text_that_no_role_takes_is_counted_once_a_row() -> None:
    parser = RowParser(SHAPES["alpaca"])
    fields = {"instruction": "a", "output": "b", "topic": "c", "tags": ["d", "e"], "meta": {"x": {"y": "f"}}, "id": 3}
    assert parser.example(row(fields)).unread == ("meta", "tags", "topic")
    assert parser.example(row({**fields, "topic": " ", "tags": [], "meta": {}})).unread == ()
    parser.example(row({**fields, "tags": None}))
    assert parser.unread == {"topic": 2, "tags": 1, "meta": 2}


def test_a_text_that_is_said_in_the_conversation_is_no_loss() -> None:
    parser = RowParser(SHAPES["messages"])
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    parser.example(row({"prompt": "a", "prompt_id": "a7", "messages": turns}))
    assert parser.unread == {"prompt_id": 1}


def test_keys_inside_turns_that_hold_text_are_named() -> None:
    parser = RowParser(SHAPES["messages"])
    parts = [{"type": "text", "text": "b", "citation": "c"}]
    turns = [{"role": "user", "content": "a", "name": "Ann"}, {"role": "assistant", "content": parts, "weight": 1}]
    parser.example(row({"messages": turns}))
    assert parser.unread == {"messages[].name": 1, "messages[].content[].citation": 1}


def test_a_rejected_row_counts_for_nothing_that_is_not_read() -> None:
    parser = RowParser(SHAPES["alpaca"])
    with pytest.raises(RowError):
        parser.example(row({"instruction": "a", "output": "", "topic": "c"}))
    assert not parser.unread


def test_fields_that_are_ignored_take_no_role_and_are_not_named() -> None:
    ignored = FieldOptions(ignore=frozenset({"topic", "input", "messages[].name"}))
    parser = RowParser(SHAPES["alpaca"], ignored)
    example = parser.example(row({"instruction": "a", "input": "x", "output": "b", "topic": "c", "id": "d"}))
    assert example.prompt_texts == ["a"]
    assert parser.unread == {"id": 1}


def test_fields_that_are_not_read_are_named_up_to_a_thousand() -> None:
    parser = RowParser(SHAPES["alpaca"])
    for number in range(1500):
        fields = {"instruction": "a", "output": "b", f"a{number}": "text", f"b{number}": "text"}
        parser.example(SourceRow("rows.jsonl", number + 1, 0, b"", fields))
    assert len(parser.unread) == 1001
    assert parser.unread["a499"] == parser.unread["b499"] == 1
    assert parser.unread["(others)"] == 1000  # rows, not fields


def test_strict_fields_stop_at_the_first_text_that_is_not_read() -> None:
    parser = RowParser(SHAPES["alpaca"], FieldOptions(unread="error", ignore=frozenset({"id"})))
    parser.example(row({"instruction": "a", "output": "b", "id": "d", "topic": ""}))
    with pytest.raises(InputError, match=r"rows\.jsonl, line 1: text that is not read, in topic .*--ignore topic"):
        parser.example(row({"instruction": "a", "output": "b", "id": "d", "topic": "c"}))


# Pairs


def test_a_prompt_that_is_no_part_of_whole_conversations_rejects_the_pair() -> None:
    sides = {
        role: [{"role": "user", "content": "a"}, {"role": "assistant", "content": role}]
        for role in ("chosen", "rejected")
    }
    assert parse(row({"prompt": "a", **sides}), "preference").turns[0] == Turn("user", "a")
    assert parse(row(sides), "preference").rejected == (Turn("user", "a"), Turn("assistant", "rejected"))
    with pytest.raises(RowError, match="field 'chosen' is a whole conversation, and the row's prompt is no part of it"):
        parse(row({"prompt": "b", **sides}), "preference")


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"chosen": "a", "rejected": "b"}, "no prompt (format preference)"),
        ({"prompt": "p", "chosen": None, "rejected": "b"}, "no chosen response: field 'chosen' is null"),
        ({"prompt": "p", "chosen": "a"}, "field 'rejected' is missing"),
        ({"prompt": "p", "chosen": "a", "rejected": " "}, "the rejected response is empty"),
        ({"prompt": "p", "chosen": ["a"], "rejected": "b"}, "field 'chosen' is a list, wanted text"),
        (
            {
                "prompt": "p",
                "chosen": "a",
                "rejected": [{"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}],
            },
            "the rejected conversation does not end with a response",
        ),
    ],
)
def test_a_pair_that_lacks_a_side_says_which(fields: dict[str, object], reason: str) -> None:
    with pytest.raises(RowError) as caught:
        parse(row(fields), "preference")
    assert str(caught.value) == reason


# Messages that answer one another


def thread(*messages: tuple[str, str | None, str, str]) -> list[dict[str, object]]:
    return [
        {"message_id": name, "parent_id": parent, "role": role, "text": text, "message_tree_id": name[0]}
        for name, parent, role, text in messages
    ]


def test_a_message_that_answers_none_before_it_is_a_reject() -> None:
    parser = RowParser(SHAPES["oasst"])
    first, second = thread(("a1", None, "prompter", "p"), ("a2", "a1", "assistant", "r"))
    with pytest.raises(RowError, match="answers the message 'a1', which is not before it"):
        parser.example(row(second))
    with pytest.raises(RowError, match="a prompt without a response; it is scored with the responses to it"):
        parser.example(row(first))
    assert parser.example(row(second)).turns == (Turn("user", "p"), Turn("assistant", "r"))


def test_the_messages_of_another_tree_are_forgotten() -> None:
    parser = RowParser(SHAPES["oasst"])
    rows = thread(("a1", None, "prompter", "p"), ("b1", None, "prompter", "q"), ("a2", "a1", "assistant", "r"))
    for fields in rows[:2]:
        with pytest.raises(RowError):
            parser.example(row(fields))
    with pytest.raises(RowError, match="not before it"):
        parser.example(row(rows[2]))


def test_reading_messages_goes_on_in_the_middle_of_a_tree(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    rows = thread(
        ("a1", None, "prompter", "p"),
        ("a2", "a1", "assistant", "r"),
        ("a3", "a2", "prompter", "s"),
        ("a4", "a3", "assistant", "t"),
    )
    path.write_bytes(b"".join(orjson.dumps(fields) + b"\n" for fields in rows))
    windows = list(read_examples(path).windows(1))
    assert [type(item).__name__ for window in windows for item in window.items] == ["Reject", "Example"] * 2
    for number, window in enumerate(windows):
        again = read_examples(path)
        assert window.end is not None
        again.begin_after(window.end)
        assert list(again.windows(1)) == windows[number + 1 :]


# What owners mean


def test_a_response_that_holds_the_whole_conversation_does_not_double_the_prompt() -> None:
    asked, answered = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    wanted = (Turn("user", "a"), Turn("assistant", "b"))
    assert parse(row({"prompt": "a", "completion": [asked, answered]}), "prompt_response").turns == wanted
    with pytest.raises(RowError, match="is a whole conversation, and the row's prompt is no part of it"):
        parse(row({"prompt": "c", "completion": [asked, answered]}), "prompt_response")


def test_sides_may_be_json_texts_of_turns_or_transcripts_that_begin_with_the_prompt() -> None:
    wanted = (Turn("user", "a"), Turn("assistant", "b")), (Turn("user", "a"), Turn("assistant", "c"))
    as_json = {
        side: json.dumps([{"role": "user", "content": "a"}, {"role": "assistant", "content": text}])
        for side, text in (("chosen", "b"), ("rejected", "c"))
    }
    as_transcript = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}
    for fields in (
        {"prompt": "a", **as_json},
        {"prompt": None, **as_json},
        {"prompt": "\n\nHuman: a\n\nAssistant:", **as_transcript},
    ):
        example = parse(row(fields), "preference")
        assert (example.turns, example.rejected) == wanted
    chosen = parse(row({"prompt": "a", "chosen": '[{"role": "nobody"}]', "rejected": "[1]"}), "preference")
    assert chosen.rejected == (Turn("user", "a"), Turn("assistant", "[1]"))


def test_a_conversation_up_to_the_chosen_response_does_not_double_it() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    example = parse(row({"messages": turns, "chosen": "b", "rejected": "c"}), "preference")
    assert example.turns == (Turn("user", "a"), Turn("assistant", "b"))
    assert example.rejected == (Turn("user", "a"), Turn("assistant", "c"))


def test_a_transcript_may_be_the_prompt_of_a_response() -> None:
    prompt = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    turns = parse(row({"prompt": prompt, "response": "d"}), "prompt_response").turns
    assert [turn.text for turn in turns] == ["a", "b", "c", "d"]
    alpaca = {"instruction": prompt, "output": "d"}
    assert parse(row(alpaca), "alpaca").turns[0] == Turn("user", prompt)  # as it was always read


@pytest.mark.parametrize(
    "text",
    [
        "Below is an instruction.\n\n### Instruction:\na\n\n### Response:\nb",
        "<|im_start|>user\na<|im_end|>",
        "<s>[INST] a [/INST] b</s>",
        "User: a\nAssistant: b",
        "<start_of_turn>user\na",
    ],
)
def test_a_text_that_a_template_made_is_said(text: str) -> None:
    parser = RowParser(SHAPES["text"])
    assert parser.example(row({"text": text})).response_texts == [text]
    assert sum(parser.templated.values()) == 1
    parser.example(row({"text": "A plain text, question: none."}))
    assert sum(parser.templated.values()) == 1


def test_what_a_list_or_turns_repeat_of_the_conversation_is_no_loss() -> None:
    asked, chosen, other = (
        {"role": role, "content": text} for role, text in (("user", "a"), ("assistant", "b"), ("assistant", "c"))
    )
    fields = {"prompt": "a", "chosen": [asked, chosen], "rejected": [asked, other], "messages": [asked, chosen]}
    parser = RowParser(SHAPES["preference"])
    parser.example(row({**fields, "generations": ["b", "c"]}))
    assert not parser.unread
    parser.example(row({**fields, "messages": [asked, {**chosen, "name": "d"}]}))
    assert parser.unread == {"messages": 1}


def test_fields_inside_of_others_are_mapped_by_their_path() -> None:
    options = FieldOptions(map={"prompt": "question", "response": "answers.text.0"})
    first = row({"question": "a", "answers": {"text": ["b"], "start": [3]}})
    parser = RowParser(options.shape_of([first]), options)
    assert parser.example(first).turns == (Turn("user", "a"), Turn("assistant", "b"))
    assert not parser.unread
    parser.example(row({"question": "a", "answers": {"text": ["b", "c"]}}))
    assert parser.unread == {"answers": 1}
    with pytest.raises(InputError, match=r"no field 'answers\.txt'"):
        FieldOptions(map={"response": "answers.txt"}).shape_of([first])


def test_calls_of_tools_are_written_as_deep_as_rows_are_read() -> None:
    def nested(depth: int) -> Example:
        call: object = "x"
        for _ in range(depth):
            call = [call]
        fields = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": call}]}
        return parse(SourceRow("rows.jsonl", 1, 0, b"", fields), "messages")

    assert nested(400).response_texts == ["[" * 400 + '"x"' + "]" * 400]
    with pytest.raises(RowError, match="nested too deeply"):
        nested(1100)


def test_an_empty_parent_is_none_and_trees_may_be_mixed_where_nothing_names_them() -> None:
    parser = RowParser(SHAPES["oasst"])
    rows = [
        {"message_id": "a1", "parent_id": "", "role": "prompter", "text": "p"},
        {"message_id": "b1", "parent_id": "", "role": "prompter", "text": "q"},
        {"message_id": "a2", "parent_id": "a1", "role": "assistant", "text": "r"},
    ]
    for fields in rows[:2]:
        with pytest.raises(RowError, match="a prompt"):
            parser.example(row(fields))
    assert parser.example(row(rows[2])).turns == (Turn("user", "p"), Turn("assistant", "r"))


def test_python_is_warned_of_text_that_is_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(orjson.dumps({"prompt": "a", "response": "b", "topic": "c"}) + b"\n")
    list(read_examples(path))
    assert [record.getMessage() for record in caplog.records] == [f"{path}: text that is not read, in rows: topic (1)"]
    caplog.clear()
    list(read_examples(path, fields=FieldOptions(unread="count")))
    list(read_examples(path, fields=FieldOptions(ignore=frozenset({"topic"}))))
    assert not caplog.records
    with pytest.raises(InputError, match="--ignore topic"):
        list(read_examples(path, fields=FieldOptions(unread="error")))
