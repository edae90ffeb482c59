from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructmining.bundle import PieceKind, Template
from instructmining.errors import RowError
from instructmining.prompts import conversation, document
from instructmining.records import Example, Run, Special, Turn, TurnRole

START, END = Special("<|im_start|>"), Special("<|im_end|>")


def chatml(role: str) -> tuple[tuple[PieceKind, str], ...]:
    return (
        ("special", "<|im_start|>"),
        ("literal", f"{role}\n"),
        ("content", ""),
        ("special", "<|im_end|>"),
    )


CHATML = Template(
    turns={role: chatml(role) for role in ("system", "user", "assistant")}, separator=(("literal", "\n"),)
)
OPEN_ASSISTANT = Template(
    turns={
        "user": (("special", "<|prompter|>"), ("content", ""), ("special", "<|endoftext|>")),
        "assistant": (("special", "<|assistant|>"), ("content", ""), ("special", "<|endoftext|>")),
    }
)
PLAIN = Template(
    turns={
        "user": (("literal", "Human: "), ("content", ""), ("literal", "\n")),
        "assistant": (("literal", "Bot: "), ("content", ""), ("literal", "\n")),
    },
    start=(("special", "<s>"), ("literal", "A talk.\n")),
    end=(("literal", "The end."), ("special", "</s>")),
)


def test_chatml_has_a_run_of_text_between_its_special_tokens() -> None:
    assert conversation(Example.of("Name a colour.", "Green."), CHATML) == [
        START,
        Run("user\nName a colour."),
        END,
        Run("\n"),
        START,
        Run("assistant\nGreen.", ((10, 16),)),
        END,
    ]


def test_a_template_without_literals_has_the_turns_text_alone_in_its_runs() -> None:
    example = Example((Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c"), Turn("assistant", "d")))
    prompter, assistant, end = Special("<|prompter|>"), Special("<|assistant|>"), Special("<|endoftext|>")
    assert conversation(example, OPEN_ASSISTANT) == [
        *(prompter, Run("a"), end, assistant, Run("b", ((0, 1),)), end),
        *(prompter, Run("c"), end, assistant, Run("d", ((0, 1),)), end),
    ]


def test_neighbouring_texts_are_one_run_and_every_response_in_it_is_marked() -> None:
    example = Example((Turn("user", "a"), Turn("assistant", "bb"), Turn("user", "c"), Turn("assistant", "d")))
    parts = conversation(example, PLAIN)
    text = "A talk.\nHuman: a\nBot: bb\nHuman: c\nBot: d\nThe end."
    assert parts == [Special("<s>"), Run(text, ((22, 24), (39, 40))), Special("</s>")]
    assert [text[begin:end] for begin, end in ((22, 24), (39, 40))] == ["bb", "d"]


def test_a_special_token_written_in_a_row_stays_text() -> None:
    parts = conversation(Example.of("<|im_end|>\n<|im_start|>", "</s>"), CHATML)
    assert parts[1] == Run("user\n<|im_end|>\n<|im_start|>")
    assert parts[5] == Run("assistant\n</s>", ((10, 14),))
    assert sum(isinstance(part, Special) for part in parts) == 4


def test_a_turn_that_the_template_has_no_place_for_is_a_row_error() -> None:
    example = Example((Turn("tool", "22 degrees"), Turn("assistant", "Warm.")))
    with pytest.raises(RowError, match="no place for a turn of role 'tool'"):
        conversation(example, CHATML)


def test_a_document_joins_all_texts_by_newlines_within_start_and_end() -> None:
    example = Example((Turn("system", "s"), Turn("user", "a"), Turn("assistant", "b"), Turn("tool", "t")))
    template = Template(turns={}, start=(("special", "[CLS]"),), end=(("special", "[SEP]"),))
    assert document(example, template) == [Special("[CLS]"), Run("s\na\nb\nt"), Special("[SEP]")]


ROLES: tuple[TurnRole, ...] = ("user", "assistant")
TURNS = st.lists(st.builds(Turn, st.sampled_from(ROLES), st.text(max_size=12)), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, template=st.sampled_from([CHATML, OPEN_ASSISTANT, PLAIN]))
def test_the_marked_spans_are_the_responses_in_order(turns: list[Turn], template: Template) -> None:
    parts = conversation(Example(tuple(turns)), template)
    runs = [part for part in parts if isinstance(part, Run)]
    marked = [run.text[begin:end] for run in runs for begin, end in run.responses]
    responses = [turn.text for turn in turns if turn.role == "assistant"]
    assert [text for text in marked if text] == [text for text in responses if text]


@settings(max_examples=60, deadline=None)
@given(turns=TURNS, template=st.sampled_from([CHATML, OPEN_ASSISTANT, PLAIN]))
def test_no_two_runs_touch_and_none_is_empty(turns: list[Turn], template: Template) -> None:
    parts = conversation(Example(tuple(turns)), template)
    assert all(part.text for part in parts if isinstance(part, Run))
    assert not any(isinstance(a, Run) and isinstance(b, Run) for a, b in pairwise(parts))
