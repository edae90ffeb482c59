from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.bundle.template import Pieces, Segment, Special, Strip, Template
from instructmining.errors import BundleError, RowError
from instructmining.tokenizing.templates import conversation, document, question
from instructmining.types import Example, Turn, TurnRole

START, END = Special("<|im_start|>"), Special("<|im_end|>")
ROLES: tuple[TurnRole, ...] = ("user", "assistant")


def template(start: dict[str, Pieces], between: dict[str, Pieces], end: Pieces) -> Template:
    """One in which what stands before a turn depends on that turn, and the end on none."""
    return Template(
        {f"start>{role}": pieces for role, pieces in start.items()}
        | {f"{before}>{after}": pieces for before in start for after, pieces in between.items()}
        | {f"{role}>end": end for role in start}
    )


def chatml_turn(role: str) -> Pieces:
    return (("special", "<|im_start|>"), ("literal", f"{role}\n"))


CHATML = template(
    {role: chatml_turn(role) for role in ("system", *ROLES)},
    {role: (("special", "<|im_end|>"), ("literal", "\n"), *chatml_turn(role)) for role in ("system", *ROLES)},
    (("special", "<|im_end|>"),),
)
OPEN_ASSISTANT = template(
    {"user": (("special", "<|prompter|>"),), "assistant": (("special", "<|assistant|>"),)},
    {
        "user": (("special", "<|endoftext|>"), ("special", "<|prompter|>")),
        "assistant": (("special", "<|endoftext|>"), ("special", "<|assistant|>")),
    },
    (("special", "<|endoftext|>"),),
)
PLAIN = template(
    {"user": (("bos", "<s>"), ("literal", "A talk.\nHuman: ")), "assistant": (("bos", "<s>"), ("literal", "Bot: "))},
    {"user": (("literal", "\nHuman: "),), "assistant": (("literal", "\nBot: "),)},
    (("literal", "\nThe end."), ("special", "</s>")),
)


def test_chatml_has_a_run_of_text_between_its_special_tokens() -> None:
    assert conversation(Example.of("Name a colour.", "Green."), CHATML) == [
        START,
        Segment("user\nName a colour."),
        END,
        Segment("\n"),
        START,
        Segment("assistant\nGreen.", ((10, 16),)),
        END,
    ]


def test_a_template_without_literals_has_the_turns_text_alone_in_its_runs() -> None:
    example = Example((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d")))
    prompter, assistant, end = Special("<|prompter|>"), Special("<|assistant|>"), Special("<|endoftext|>")
    assert conversation(example, OPEN_ASSISTANT) == [
        *(prompter, Segment("a"), end, assistant, Segment("b", ((0, 1),)), end),
        *(prompter, Segment("c"), end, assistant, Segment("d", ((0, 1),)), end),
    ]


def test_neighbouring_texts_are_one_run_and_every_response_in_it_is_marked() -> None:
    example = Example((Turn("user", "a"), Turn("assistant", "bb"), Turn("user", "c"), Turn("assistant", "d")))
    parts = conversation(example, PLAIN)
    text = "A talk.\nHuman: a\nBot: bb\nHuman: c\nBot: d\nThe end."
    assert parts == [Special("<s>"), Segment(text, ((22, 24), (39, 40)), begins=True), Special("</s>")]
    assert [text[begin:end] for begin, end in ((22, 24), (39, 40))] == ["bb", "d"]


def test_a_special_token_written_in_a_row_stays_text() -> None:
    parts = conversation(Example.of("<|im_end|>\n<|im_start|>", "</s>"), CHATML)
    assert parts[1] == Segment("user\n<|im_end|>\n<|im_start|>")
    assert parts[5] == Segment("assistant\n</s>", ((10, 14),))
    assert sum(isinstance(part, Special) for part in parts) == 4


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["tool", "assistant"], "a turn of role 'tool' at the beginning"),
        (["user", "tool"], "a turn of role 'tool' after 'user'"),
        (["assistant", "user", "assistant", "tool"], "a turn of role 'tool' after 'assistant'"),
    ],
)
def test_a_turn_that_the_template_has_no_place_for_is_a_row_error(roles: list[TurnRole], message: str) -> None:
    with pytest.raises(RowError, match=f"^the model's template has no place for {message}$"):
        conversation(Example(tuple(Turn(role, "a") for role in roles)), CHATML)


def test_an_end_that_the_template_has_no_place_for_is_a_row_error() -> None:
    without = Template({name: pieces for name, pieces in CHATML.gaps.items() if name != "user>end"})
    assert conversation(Example.of("a", "b"), without)
    with pytest.raises(RowError, match="has no place for the end after 'user'"):
        conversation(Example((Turn("user", "a"),)), without)


# The response: the last assistant turn where it is the last of all

THINKING = Template(
    {
        **CHATML.gaps,
        "user>response": (("special", "<|im_end|>"), ("special", "<think>"), ("literal", "\n")),
        "response>end": (("special", "<|im_end|>"), ("literal", "\n"), ("special", "<|end|>"), ("literal", " ")),
    },
    strip={"assistant": "both", "response": "left newlines"},
)


def test_the_response_has_gaps_of_its_own() -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    parts = conversation(Example(turns), THINKING)
    assert parts[5] == Segment("assistant\nb", ((10, 11),))
    assert parts[-7:] == [
        *(END, Special("<think>"), Segment("\nd", ((1, 2),))),
        *(END, Segment("\n", closing=True), Special("<|end|>"), Segment(" ", closing=True)),
    ]


def test_an_assistant_turn_that_is_not_the_last_of_all_is_no_response() -> None:
    turns = (Turn("user", "a"), Turn("assistant", " b "), Turn("user", "c"))
    parts = conversation(Example(turns), THINKING)
    assert parts == conversation(Example((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))), CHATML)


def test_where_the_response_has_no_gap_or_strip_the_assistants_counts() -> None:
    template = Template(CHATML.gaps, strip={"assistant": "both"})
    assert conversation(Example.of("a", " b\n"), template) == conversation(Example.of("a", "b"), CHATML)


@pytest.mark.parametrize(
    ("strip", "text"),
    [
        ("none", " \n b \n "),
        ("left", "b \n "),
        ("right", " \n b"),
        ("both", "b"),
    ],
)
def test_what_is_stripped_is_neither_text_nor_response(strip: Strip, text: str) -> None:
    parts = conversation(Example.of("a", " \n b \n "), Template(CHATML.gaps, strip={"response": strip}))
    assert parts[5] == Segment(f"assistant\n{text}", ((10, 10 + len(text)),))


@pytest.mark.parametrize(
    ("strip", "text"), [("left newlines", " b\n\n"), ("right newlines", "\n b"), ("both newlines", " b")]
)
def test_newlines_alone_can_be_stripped(strip: Strip, text: str) -> None:
    parts = conversation(Example.of("a", "\n b\n\n"), Template(CHATML.gaps, strip={"response": strip}))
    assert parts[5] == Segment(f"assistant\n{text}", ((10, 10 + len(text)),))


def test_a_run_begins_a_text_behind_nothing_or_the_tokenizers_own_token() -> None:
    between: Pieces = (("literal", "\n"),)
    gaps: dict[str, Pieces] = {"user>assistant": between, "assistant>end": ()}
    (run,) = conversation(Example.of("a", "b"), Template({**gaps, "start>user": ()}))
    assert run == Segment("a\nb", ((2, 3),), begins=True)
    parts = conversation(Example.of("a", "b"), Template({**gaps, "start>user": (("bos", "<s>"),)}))
    assert parts == [Special("<s>"), run]
    parts = conversation(Example.of("a", "b"), Template({**gaps, "start>user": (("special", "<s>"),)}))
    assert parts == [Special("<s>"), Segment("a\nb", ((2, 3),), begins=False)]


# Single texts and questions


def test_a_document_joins_all_texts_by_newlines_within_start_and_end() -> None:
    example = Example((Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), Turn("tool", "t")))
    gaps: dict[str, Pieces] = {
        "start>document": (("bos", "[CLS]"), ("literal", "query: ")),
        "document>end": (("special", "[SEP]"),),
    }
    assert document(example, Template(gaps)) == [
        Special("[CLS]"),
        Segment("query: s\na\nb\nt", begins=True),
        Special("[SEP]"),
    ]


def test_a_document_in_a_template_for_conversations_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="no place for a single text; export the bundle again with a template for"):
        document(Example.of("a", "b"), CHATML)


ASKING = Template(
    {},
    questions={
        "fluency": (("literal", "Fluent? "), ("special", "</s>"), ("content", "response"), ("special", "</s>")),
        "sense": (("content", "history"), ("literal", "> "), ("content", "response")),
    },
)


def test_a_question_has_the_last_response_and_all_turns_before_it() -> None:
    turns = (Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d"))
    assert question(Example(turns), ASKING, "fluency") == [
        Segment("Fluent? ", begins=True),
        Special("</s>"),
        Segment("d"),
        Special("</s>"),
    ]
    assert question(Example(turns), ASKING, "sense") == [Segment("s\na\nb\nc\n\n> d", begins=True)]


def test_turns_behind_the_last_response_are_no_part_of_a_question() -> None:
    turns = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"))
    assert question(Example(turns), ASKING, "sense") == [Segment("a\n\n> b", begins=True)]


def test_a_question_that_the_template_does_not_have_is_a_bundle_error() -> None:
    with pytest.raises(BundleError, match="the model's template has no question 'wit'; export the bundle again"):
        question(Example.of("a", "b"), ASKING, "wit")


def test_a_conversation_without_response_cannot_be_asked_about() -> None:
    with pytest.raises(RowError, match="no response"):
        question(Example((Turn("user", "a"),)), ASKING, "sense")


# Any conversation

TURNS = st.lists(st.builds(Turn, st.sampled_from(ROLES), st.text(max_size=12)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, template=st.sampled_from([CHATML, OPEN_ASSISTANT, PLAIN]))
def test_the_marked_spans_are_the_responses_in_order(turns: list[Turn], template: Template) -> None:
    parts = conversation(Example(tuple(turns)), template)
    runs = [part for part in parts if isinstance(part, Segment)]
    marked = [run.text[begin:end] for run in runs for begin, end in run.responses]
    responses = [turn.text for turn in turns if turn.role == "assistant"]
    assert [text for text in marked if text] == [text for text in responses if text]


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, template=st.sampled_from([CHATML, OPEN_ASSISTANT, PLAIN]))
def test_no_two_runs_touch_and_none_is_empty(turns: list[Turn], template: Template) -> None:
    parts = conversation(Example(tuple(turns)), template)
    assert all(part.text for part in parts if isinstance(part, Segment))
    assert not any(isinstance(a, Segment) and isinstance(b, Segment) for a, b in pairwise(parts))
