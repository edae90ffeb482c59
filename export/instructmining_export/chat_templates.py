"""Derives a bundle's template from a model's chat template, and proves it on token ids."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, get_args

from transformers import PreTrainedTokenizerBase

from instructmining.bundle.template import Strip, Template
from instructmining.errors import ExportError, RowError
from instructmining.tokenizing.templates import conversation
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.types import Example, Turn, TurnRole
from instructmining_export.chat_gaps import (
    MOST_TURNS,
    Chat,
    InexpressibleError,
    Roles,
    Sides,
    dialogues,
    is_natural,
    observe,
    transitions,
)

_ROLES: tuple[TurnRole, ...] = get_args(TurnRole)
# Tried in order: a role that the template changes, or accepts only in some orders, is left out.
_ROLE_SETS: tuple[Roles, ...] = (
    _ROLES,
    ("system", "user", "assistant"),
    ("user", "assistant", "tool"),
    ("user", "assistant"),
)
_NEEDED = ("start>user", "user>response", "response>end")
_STRIPS: dict[Sides, Strip] = {
    ("", ""): "none",
    ("all", ""): "left",
    ("", "all"): "right",
    ("all", "all"): "both",
    ("newlines", ""): "left newlines",
    ("", "newlines"): "right newlines",
    ("newlines", "newlines"): "both newlines",
}
# Contents on which tokenizers and templates differ: outer spaces, newlines, other scripts, almost empty texts.
_CONTENTS = (
    "Name a colour of the rainbow.",
    "  two spaces before and after  ",
    "\nA line between newlines\n",
    " ",
    "naïve café — 漢字 😀",
    "a",
    "First:\n\n  1. indented\n\ttabbed\r\n",
    "\n\n  \t",
    "\u00a0e\u0301 no-break space, combining accent\u3000",
    "if x < 3: print('yes')  # 12345",
    "Ünïcode\n",
)
_NO_LIMIT = 1 << 30


def from_chat_template(tokenizer: PreTrainedTokenizerBase, *, saved: Path | None = None) -> dict[str, Any]:
    """Return the template that yields the same token ids as the tokenizer's own chat template.

    The text between two contents is taken from renderings of dialogues of up to five turns, in all orders of roles.
    Left out are orders that the chat template refuses or whose text depends on more than the neighbouring turns, and
    system or tool turns that it moves, drops or rewrites. The result is proved on sample dialogues: the engine's token
    ids must equal those of transformers.

    Args:
        tokenizer: a fast tokenizer with a chat template.
        saved: the ``tokenizer.json`` that the bundle will hold; by default saved from the tokenizer.

    Raises:
        ExportError: there is no chat template, or conversations of user and assistant cannot be rendered as it does;
            the message names the dialogue and the first difference.
    """
    where = tokenizer.name_or_path or "the tokenizer"
    if tokenizer.chat_template is None:
        raise ExportError(
            f"{where}: has no chat template; give a template by hand, such as templates.plain for base models"
        )
    if not tokenizer.is_fast:
        raise ExportError(f"{where}: is not a fast tokenizer; save it as tokenizer.json first")
    chat = Chat(tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        if saved is None:
            saved = Path(folder) / "tokenizer.json"
            tokenizer.backend_tokenizer.save(str(saved))
        encoder = TextEncoder(saved)
    reason = ""
    for roles in _ROLE_SETS:
        try:
            template = _derived(chat, roles)
            proved = _prove(chat, encoder, Template.from_json(template, where), roles)
        except InexpressibleError as error:
            reason = str(error)
        else:
            return template | {"gaps": {name: gap for name, gap in template["gaps"].items() if name in proved}}
    raise ExportError(f"{where}: the chat template cannot be expressed: {reason}; give a template by hand")


def _derived(chat: Chat, roles: Roles) -> dict[str, Any]:
    """Derive the template for these roles, in the manifest's form.

    Raises:
        InexpressibleError: a natural dialogue of these roles does not fit the form.
    """
    observed = observe(chat, roles)
    missing = [name for name in _NEEDED if name not in observed.gaps]
    if missing:
        raise InexpressibleError(f"it renders no dialogue with these turns: {', '.join(missing)}")
    cutter = _Cutter(chat.tokenizer)
    sides = dict(observed.sides)
    for name, text in observed.gaps.items():
        before, after = name.split(">")
        swallows_before, swallows_after = cutter.swallows(text)
        if swallows_before and before in sides:
            sides[before] = (sides[before][0], "all")
        if swallows_after and after in sides:
            sides[after] = ("all", sides[after][1])
    return {
        "gaps": {name: cutter.pieces(text) for name, text in observed.gaps.items()},
        "strip": _strips(sides),
    }


def _strips(sides: dict[str, Sides]) -> dict[str, Strip]:
    strip = {place: _STRIPS[lost] for place, lost in sides.items() if lost in _STRIPS}
    if len(strip) < len(sides):
        raise InexpressibleError("it strips newlines on one side of a content and all whitespace on the other")
    response = strip.pop("response", strip.get("assistant", "none"))
    return {place: kind for place, kind in strip.items() if kind != "none"} | (
        {"response": response} if response != strip.get("assistant", "none") else {}
    )


@dataclass(frozen=True, slots=True)
class _Swallow:
    """Whether a token swallows the whitespace on its left and right."""

    left: bool
    right: bool


class _Cutter:
    """Splits a template's text at added tokens, as the tokenizer does."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        added = tokenizer.backend_tokenizer.get_added_tokens_decoder().values()
        # Other added tokens are left in literals, where the tokenizer finds them itself.
        self._tokens = {
            token.content: _Swallow(token.lstrip, token.rstrip)
            for token in added
            if token.special or token.lstrip or token.rstrip
        }
        longest_first = sorted(self._tokens, key=len, reverse=True)
        self._pattern = re.compile("({})".format("|".join(map(re.escape, longest_first)))) if longest_first else None

    def pieces(self, text: str) -> list[list[str]]:
        """Return the text as pieces in the manifest's form."""
        return [
            ["special" if number % 2 else "literal", part] for number, part in enumerate(self._cut(text)) if part
        ]  # fmt: skip

    def swallows(self, text: str) -> tuple[bool, bool]:
        """Return whether the text's tokens swallow whitespace of the content before, and of the content after."""
        parts = self._cut(text)
        if len(parts) == 1:
            return False, False
        return (
            not parts[0] and self._tokens[parts[1]].left,
            not parts[-1] and self._tokens[parts[-2]].right,
        )

    def _cut(self, text: str) -> list[str]:
        """Return literals and tokens in turn, a literal first and last, without whitespace that tokens swallow."""
        parts = self._pattern.split(text) if self._pattern is not None else [text]
        for number in range(0, len(parts), 2):
            if number and self._tokens[parts[number - 1]].right:
                parts[number] = parts[number].lstrip()
            if number + 1 < len(parts) and self._tokens[parts[number + 1]].left:
                parts[number] = parts[number].rstrip()
        return parts


def _prove(chat: Chat, encoder: TextEncoder, template: Template, roles: Roles) -> set[str]:
    """Compare the engine's token ids of sample dialogues with those of transformers.

    Returns:
        The transitions that occur in the dialogues.

    Raises:
        InexpressibleError: the ids differ.
    """
    talks: list[tuple[Turn, ...]] = []
    texts: list[str] = []
    proved: set[str] = set()
    for dialogue in _samples(chat, template, roles):
        # Short dialogues get every content at each place; longer ones have the same gaps, so fewer suffice.
        for first in range(0, len(_CONTENTS), 1 if len(dialogue) < 3 else 5):
            contents = [_CONTENTS[(first + 3 * turn) % len(_CONTENTS)] for turn in range(len(dialogue))]
            talks.append(tuple(Turn(role, text) for role, text in zip(dialogue, contents, strict=True)))
            text = chat.text(dialogue, contents)
            if text is None:
                raise InexpressibleError(f"{_shown(talks[-1])}: it refuses these texts")
            texts.append(text)
        proved.update(transitions(dialogue))
    if unproved := set(_NEEDED) - proved:
        raise InexpressibleError(f"no sample dialogue has {', '.join(sorted(unproved))}")
    ours = encoder.rendered([conversation(Example(turns), template) for turns in talks], max_length=_NO_LIMIT)
    theirs = chat.tokenizer(texts, add_special_tokens=False)["input_ids"]
    for turns, found, wanted in zip(talks, ours, theirs, strict=True):
        _compare(chat, turns, found.ids.tolist(), wanted)
    return proved


def _samples(chat: Chat, template: Template, roles: Roles) -> Iterator[Roles]:
    """Yield dialogues that both templates render: short ones in all orders, longer natural ones."""
    for dialogue in dialogues(roles, MOST_TURNS + 1):
        if len(dialogue) > 3 and not is_natural(dialogue):
            continue
        try:
            conversation(Example(tuple(Turn(role, "a") for role in dialogue)), template)
        except RowError:
            continue
        if not chat.refuses(dialogue):
            yield dialogue


def _compare(chat: Chat, turns: tuple[Turn, ...], found: list[int], wanted: list[int]) -> None:
    if found == wanted:
        return
    first = next(number for number, (ours, theirs) in enumerate(zip_longest(found, wanted)) if ours != theirs)
    ours, theirs = (
        repr(chat.tokenizer.convert_ids_to_tokens(ids[first])) if first < len(ids) else "nothing"
        for ids in (found, wanted)
    )
    raise InexpressibleError(f"{_shown(turns)}: token {first} is {ours}, wanted {theirs}")


def _shown(turns: tuple[Turn, ...]) -> str:
    return f"dialogue {', '.join(f'{turn.role} {turn.text!r}' for turn in turns)}"
