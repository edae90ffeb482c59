"""Example to the text that each model role wants; the templates come from the bundle."""

from __future__ import annotations

from collections.abc import Sequence

from instructmining.bundle import PieceKind, Template
from instructmining.errors import RowError
from instructmining.records import Example, Part, Run, Special


def conversation(example: Example, template: Template) -> list[Part]:
    """The whole conversation in a model's template.

    Raises:
        RowError: the template has no place for one of the turns.
    """
    runs = _RunBuilder()
    runs.add(template.start)
    for number, turn in enumerate(example.turns):
        pieces = template.turns.get(turn.role)
        if pieces is None:
            raise RowError(f"the model's template has no place for a turn of role {turn.role!r}")
        if number:
            runs.add(template.separator)
        runs.add(pieces, content=turn.text, response=turn.role == "assistant")
    runs.add(template.end)
    return runs.finish()


def document(example: Example, template: Template) -> list[Part]:
    """Prompt-side texts and responses joined by newlines in order, inside the model's start and end tokens."""
    runs = _RunBuilder()
    runs.add(template.start)
    runs.add((("literal", "\n".join(turn.text for turn in example.turns)),))
    runs.add(template.end)
    return runs.finish()


class _RunBuilder:
    """Joins neighbouring texts into runs; special tokens part them."""

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._text = ""
        self._spans: list[tuple[int, int]] = []

    def add(self, pieces: Sequence[tuple[PieceKind, str]], *, content: str = "", response: bool = False) -> None:
        for kind, text in pieces:
            if kind == "special":
                self._close()
                self._parts.append(Special(text))
                continue
            begin = len(self._text)
            self._text += content if kind == "content" else text
            if kind == "content" and response:
                self._spans.append((begin, len(self._text)))

    def finish(self) -> list[Part]:
        self._close()
        return self._parts

    def _close(self) -> None:
        if self._text:
            self._parts.append(Run(self._text, tuple(self._spans)))
        self._text, self._spans = "", []
