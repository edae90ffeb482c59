"""Templates in the manifest's form, written by hand or derived from a tokenizer."""

from __future__ import annotations

from typing import Any, get_args

from tokenizers import Encoding, Tokenizer

from instructmining.errors import ExportError
from instructmining.types import TurnRole
from instructmining_export.chat_templates import from_chat_template

__all__ = [
    "begin_of_text",
    "chatml",
    "document",
    "from_chat_template",
    "open_assistant",
    "pair",
    "plain",
    "sentence",
    "unieval",
]

_ROLES: tuple[TurnRole, ...] = get_args(TurnRole)
_NEWLINE = [["literal", "\n"]]


def chatml() -> dict[str, Any]:
    """Return ChatML without an added system turn, for conversations of the roles perplexity and reward.

    Every turn ends with ``<|im_end|>``, which is not scored; a reward head reads its state.
    """
    end = ["special", "<|im_end|>"]

    def opening(role: str) -> list[list[str]]:
        return [["special", "<|im_start|>"], ["literal", f"{role}\n"]]

    return _turns(
        {role: opening(role) for role in _ROLES},
        {(before, after): [end, *_NEWLINE, *opening(after)] for before in _ROLES for after in _ROLES},
        {role: [end] for role in _ROLES},
    )


def plain(bos: str | None) -> dict[str, Any]:
    """Return the template that joins all texts by newlines, for base models.

    Args:
        bos: the token that the tokenizer puts before a text; see :func:`begin_of_text`.
    """
    start = [["bos", bos]] if bos is not None else []
    return _turns(
        dict.fromkeys(_ROLES, start),
        {(before, after): _NEWLINE for before in _ROLES for after in _ROLES},
        {role: [] for role in _ROLES},
    )


def open_assistant() -> dict[str, Any]:
    """Return ``<|prompter|>{prompt}<|endoftext|><|assistant|>{response}<|endoftext|>``, repeated.

    The format has two roles only: a system text begins the prompt that follows it, and a tool's turn is a prompt.

    Source:
        The reward models of OpenAssistant (oasst-rm-2.1-pythia-1.4b).
    """
    end = ["special", "<|endoftext|>"]
    opening = {
        role: [["special", "<|assistant|>" if role == "assistant" else "<|prompter|>"]]
        for role in _ROLES
    }  # fmt: skip
    return _turns(
        opening,
        {
            (before, after): _NEWLINE if before == "system" and after != "assistant" else [end, *opening[after]]
            for before in _ROLES
            for after in _ROLES
        },
        {role: [end] for role in _ROLES},
    )


def sentence(start: str, end: str) -> dict[str, Any]:
    """Return the template of one text between an encoder's start and end tokens."""
    return {"gaps": {"start>document": [["bos", start]], "document>end": [["special", end]]}}


def document(tokenizer: Tokenizer, prefix: str = "") -> dict[str, Any]:
    """Return the template of one text, following the tokenizer's own post-processing.

    Args:
        tokenizer: of an encoder.
        prefix: text that the model wants before each text, such as "query: ".
    """
    start, end = _added(tokenizer.encode("a", add_special_tokens=True), texts=1)
    opening = [["literal", prefix]] if prefix else []
    return {"gaps": {"start>document": [*_begin(start), *opening], "document>end": _special(end)}}


def pair(tokenizer: Tokenizer) -> dict[str, Any]:
    """Return the template of question and answer, following the tokenizer's own post-processing of pairs.

    The question is everything before the response, joined by newlines. A conversation that does not end in a response
    has no place in the template.

    Raises:
        ExportError: the tokenizer puts nothing between the two texts of a pair.
    """
    start, middle, end = _added(tokenizer.encode("a", "b", add_special_tokens=True), texts=2)
    if not middle:
        raise ExportError(
            "the tokenizer puts no token between the two texts of a pair: its model does not read question and answer "
            "that way; give its template by hand"
        )
    # The tokenizer tokenizes each text of a pair separately, so both begin a text.
    return {
        "gaps": {
            **{f"start>{role}": _begin(start) for role in _ROLES},
            **{f"{before}>{after}": _NEWLINE for before in _ROLES for after in _ROLES},
            **{f"{role}>response": _begin(middle) for role in _ROLES},
            "start>response": _begin([*start, *middle]),
            "response>end": _special(end),
        }
    }


def begin_of_text(tokenizer: Tokenizer) -> str | None:
    """Return the token that the tokenizer puts before a text, if any.

    Raises:
        ExportError: there is more than one.
    """
    start, _ = _added(tokenizer.encode("a", add_special_tokens=True), texts=1)
    if len(start) > 1:
        raise ExportError(f"the tokenizer puts {len(start)} tokens in front of a text ({' '.join(start)}), wanted one")
    return start[0] if start else None


def unieval() -> dict[str, Any]:
    """Return UniEval's three questions about a dialogue, word for word.

    Source:
        UniEval's own code (task dialogue). ``</s>`` is T5's end token; the tokenizer appends another at the end.
    """

    def question(text: str, *more: list[str]) -> list[list[str]]:
        end = ["special", "</s>"]
        return [["literal", f"question: {text} "], end, ["literal", " response: "], ["content", "response"], *more, end]

    history = (["literal", " "], ["special", "</s>"], ["literal", " dialogue history: "], ["content", "history"])
    return {
        "gaps": {},
        "questions": {
            "naturalness": question("Is this a natural response in the dialogue?"),
            "coherence": question("Is this a coherent response given the dialogue history?", *history),
            "understandability": question("Is this an understandable response in the dialogue?"),
        },
    }


def _turns(
    start: dict[TurnRole, list[Any]],
    between: dict[tuple[TurnRole, TurnRole], list[Any]],
    end: dict[TurnRole, list[Any]],
) -> dict[str, Any]:
    """Return the template of conversations in which any turn may follow any other."""
    return {
        "gaps": {
            **{f"start>{role}": pieces for role, pieces in start.items()},
            **{f"{before}>{after}": pieces for (before, after), pieces in between.items()},
            **{f"{role}>end": pieces for role, pieces in end.items()},
        }
    }


def _added(encoding: Encoding, *, texts: int) -> list[list[str]]:
    """Return the tokens that the tokenizer added before, between and after its texts: ``texts`` + 1 lists."""
    added: list[list[str]] = [[] for _ in range(texts + 1)]
    seen = 0
    for token, text, is_attended in zip(encoding.tokens, encoding.sequence_ids, encoding.attention_mask, strict=True):
        if text is not None:
            seen = text + 1
        elif is_attended:  # skips padding, which some tokenizers are saved with
            added[seen].append(token)
    return added


def _begin(tokens: list[str]) -> list[list[str]]:
    """Return pieces of tokens that begin a text."""
    return [["bos", token] for token in tokens]


def _special(tokens: list[str]) -> list[list[str]]:
    return [["special", token] for token in tokens]
