"""Reads from renderings what a chat template writes between contents and strips from them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import TypeAlias

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from instructmining.types import TurnRole

Roles: TypeAlias = tuple[TurnRole, ...]  # roles of a dialogue's turns
Sides: TypeAlias = tuple[str, str]  # whitespace that a content loses left and right: "", "newlines" or "all"

MOST_TURNS = 5
# Templates that write today's date get this fixed one, the default of Llama 3's template.
_TODAY = datetime(2024, 7, 26, tzinfo=UTC)
# Pairs of neighbouring turns that occur in instruction data.
_ORDINARY = {
    *(("user", "assistant"), ("assistant", "user"), ("assistant", "tool")),
    *(("tool", "tool"), ("tool", "assistant")),
}
_PAD = "\n \n"
_LOST_LEFT = {_PAD: "", " \n": "newlines", "": "all"}
_LOST_RIGHT = {_PAD: "", "\n ": "newlines", "": "all"}


class InexpressibleError(Exception):
    """A chat template cannot be expressed in a bundle's form; the message says why."""


@dataclass(frozen=True, slots=True)
class Observed:
    """A chat template in parts."""

    gaps: dict[str, str]  # text of each transition whose text is always the same
    sides: dict[str, Sides]  # whitespace that contents lose, by role


class Chat:
    """A tokenizer's chat template, with cached gaps of dialogues."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._gaps: dict[Roles, list[tuple[str, str]] | None] = {}
        self._refused: set[Roles] = set()

    def text(self, roles: Roles, contents: Sequence[str]) -> str | None:
        """Render a dialogue; None where the template refuses it."""
        messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
        try:
            text = self.tokenizer.apply_chat_template(
                messages, tokenize=False, date_string=_TODAY.strftime("%d %b %Y"), strftime_now=_TODAY.strftime
            )
        except (TemplateError, TypeError, ValueError, LookupError):
            return None
        return str(text)

    def refuses(self, roles: Roles) -> bool:
        """Return whether the template raises an error for this order of turns."""
        self.gaps(roles)
        return roles in self._refused

    def gaps(self, roles: Roles) -> list[tuple[str, str]] | None:
        """Return (transition, text) pairs; None unless every content occurs once and in order."""
        if roles not in self._gaps:
            contents = _marks(roles)
            text = self.text(roles, contents)
            if text is None:
                self._refused.add(roles)
            self._gaps[roles] = _between(text, contents, transitions(roles)) if text is not None else None
        return self._gaps[roles]


def observe(chat: Chat, roles: Roles) -> Observed:
    """Infer gaps and stripping from renderings of dialogues with these roles.

    All natural dialogues, with turns ordered as in instruction data, must be reproduced. Transitions of other orders
    are kept only if every dialogue that uses them is reproduced too.

    Raises:
        InexpressibleError: natural dialogues contradict each other, or the template moves, drops, repeats or rewrites
            the text of a turn in one.
    """
    natural = _natural_gaps(chat, roles)
    sides: dict[str, Sides] = {}
    for dialogue in dialogues(roles, MOST_TURNS):
        if is_natural(dialogue) and _is_rendered(chat, dialogue, natural):
            for place, lost in _sides(chat, dialogue):
                if lost is None or sides.setdefault(place, lost) != lost:
                    raise InexpressibleError(f"{_named(dialogue)}: it changes the text of a turn of role {place!r}")
    others = _other_gaps(chat, roles, natural)
    for dialogue in dialogues(roles, 3):
        gaps = natural | others
        if not is_natural(dialogue) and _is_rendered(chat, dialogue, gaps):
            losses = _sides(chat, dialogue)
            if any(lost is None or sides.setdefault(place, lost) != lost for place, lost in losses):
                _leave_out(dialogue, gaps, others)
    return Observed(natural | others, sides)


def _natural_gaps(chat: Chat, roles: Roles) -> dict[str, str]:
    natural = [dialogue for dialogue in dialogues(roles, MOST_TURNS + 1) if is_natural(dialogue)]
    gaps: dict[str, str] = {}
    for dialogue in natural:
        if chat.refuses(dialogue):
            continue
        found = chat.gaps(dialogue)
        if found is None:
            raise InexpressibleError(f"{_named(dialogue)}: it moves, drops or repeats the text of a turn")
        for name, text in found:
            if gaps.setdefault(name, text) != text:
                raise InexpressibleError(f"{_named(dialogue)}: at {name} it writes {text!r}, elsewhere {gaps[name]!r}")
    for dialogue in natural:
        if not _agrees(chat, dialogue, gaps):
            raise InexpressibleError(f"{_named(dialogue)}: it refuses this order, but not its parts")
    return gaps


def _other_gaps(chat: Chat, roles: Roles, natural: dict[str, str]) -> dict[str, str]:
    """Return the gaps of transitions that do not occur in natural dialogues."""
    seen: dict[str, set[str]] = defaultdict(set)
    for dialogue in dialogues(roles, MOST_TURNS):
        for name, text in chat.gaps(dialogue) or ():
            if name not in natural:
                seen[name].add(text)
    others = {name: texts.pop() for name, texts in seen.items() if len(texts) == 1}
    for dialogue in dialogues(roles, MOST_TURNS):
        known = natural | others
        if not _agrees(chat, dialogue, known):
            _leave_out(dialogue, known, others)
    return others


def _leave_out(dialogue: Roles, known: dict[str, str], others: dict[str, str]) -> None:
    """Remove the uncommon gaps of a dialogue that they would render wrongly."""
    uncommon = {name for name in _names(dialogue, known) if name in others}
    if not uncommon:
        raise InexpressibleError(f"{_named(dialogue)}: what it writes depends on more than the turns beside it")
    for name in uncommon:
        del others[name]


def _marks(roles: Roles) -> list[str]:
    """Return contents that no template writes itself."""
    return [f"Qz{number}vk" for number in range(len(roles))]


def transitions(roles: Roles) -> list[str]:
    """Return the names of a dialogue's gaps, one more than its turns."""
    last = "response" if roles[-1] == "assistant" else roles[-1]
    return [f"{before}>{after}" for before, after in pairwise(["start", *roles[:-1], last, "end"])]


def _between(text: str, contents: Sequence[str], names: Sequence[str]) -> list[tuple[str, str]] | None:
    if any(text.count(content) != 1 for content in contents):
        return None
    gaps = re.split("|".join(contents), text)
    in_order = "".join(part for pair in zip(gaps, [*contents, ""], strict=True) for part in pair) == text
    return list(zip(names, gaps, strict=True)) if in_order else None


def dialogues(roles: Roles, turns: int) -> Iterator[Roles]:
    """Yield all orders of roles of up to ``turns`` turns, shortest first."""
    return (dialogue for size in range(1, turns + 1) for dialogue in product(roles, repeat=size))


def is_natural(roles: Roles) -> bool:
    """Return whether the turns are ordered as in instruction data; such orders must be reproduced."""
    turns = roles[1:] if roles[0] == "system" else roles
    return (
        bool(turns)
        and (turns[0], turns[-1]) == ("user", "assistant")
        and all(pair in _ORDINARY for pair in pairwise(turns))
    )


def _names(dialogue: Roles, gaps: dict[str, str]) -> list[str]:
    """Return the transitions that we render with; a response without its own gap uses the assistant's."""
    return [name if name in gaps else name.replace("response", "assistant") for name in transitions(dialogue)]


def _agrees(chat: Chat, dialogue: Roles, gaps: dict[str, str]) -> bool:
    """Return whether we render a dialogue as the template does, or not at all."""
    names = _names(dialogue, gaps)
    if not all(name in gaps for name in names):
        return True
    found = chat.gaps(dialogue)
    return found is not None and [text for _, text in found] == [gaps[name] for name in names]


def _is_rendered(chat: Chat, dialogue: Roles, gaps: dict[str, str]) -> bool:
    """Return whether both we and the template render a dialogue."""
    return all(name in gaps for name in _names(dialogue, gaps)) and chat.gaps(dialogue) is not None


def _sides(chat: Chat, dialogue: Roles) -> Iterator[tuple[str, Sides | None]]:
    """Yield what each turn's content loses, by padding one at a time; None where it changes otherwise."""
    around = [text for _, text in chat.gaps(dialogue) or ()]
    for position, role in enumerate(dialogue):
        place = "response" if role == "assistant" and position == len(dialogue) - 1 else role
        yield place, _stripped(chat, dialogue, around, position)


def _stripped(chat: Chat, dialogue: Roles, around: Sequence[str], position: int) -> Sides | None:
    marks = _marks(dialogue)
    mark = marks[position]
    before = "".join(gap + content for gap, content in zip(around, marks[:position], strict=False)) + around[position]
    after = around[position + 1] + "".join(
        content + gap for content, gap in zip(marks[position + 1 :], around[position + 2 :], strict=True)
    )
    text = chat.text(dialogue, [*marks[:position], f"{_PAD}{mark}{_PAD}", *marks[position + 1 :]])
    if text is None or text.count(mark) != 1 or not (text.startswith(before) and text.endswith(after)):
        return None
    left, right = text[len(before) : len(text) - len(after)].split(mark)
    if left not in _LOST_LEFT or right not in _LOST_RIGHT:
        return None
    return _LOST_LEFT[left], _LOST_RIGHT[right]


def _named(dialogue: Roles) -> str:
    return f"dialogue {', '.join(dialogue)}"
