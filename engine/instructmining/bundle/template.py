"""A model's text template as data: the text and special tokens before, between and after the contents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from instructmining.errors import BundleError
from instructmining.types import TurnRole

PieceKind: TypeAlias = Literal["special", "literal", "bos", "content"]
Pieces: TypeAlias = tuple[tuple[PieceKind, str], ...]
Strip: TypeAlias = Literal["none", "left", "right", "both", "left newlines", "right newlines", "both newlines"]
STRIPS: tuple[Strip, ...] = get_args(Strip)
_BEFORE = ("start", *get_args(TurnRole), "response")
_AFTER = (*get_args(TurnRole), "response", "end")


@dataclass(frozen=True, slots=True)
class Special:
    """A special token of the template, by name; text in a row never becomes one."""

    token: str


@dataclass(frozen=True, slots=True)
class Segment:
    """Text between two special tokens, tokenized as one."""

    text: str
    responses: tuple[tuple[int, int], ...] = ()  # spans of assistant text, as character offsets
    begins: bool = False  # starts a text: some tokenizers mark a word's start there, but not after a special token
    closing: bool = False  # text of the template after all content; truncation keeps it


Part: TypeAlias = Special | Segment


@dataclass(frozen=True, slots=True)
class Joint:
    """What a template puts between two contents, split into segments."""

    head: str  # end of the segment that holds the content before
    parts: tuple[Part, ...]  # if empty, one segment holds both contents
    tail: str  # start of the segment that holds the content after
    begins: bool  # whether that segment starts a text


@dataclass(frozen=True, slots=True)
class Template:
    """How a model's text is built: the pieces between two contents, by transition.

    A transition is "start>user", "user>assistant", "assistant>end", …. The role ``response`` is an assistant turn that
    ends the conversation; without "x>response" or "response>x" the transition of "assistant" is used. A single text
    is between "start>document" and "document>end".

    A piece is ("special", token), ("literal", text) or ("bos", token). A bos token is one that the tokenizer itself
    puts before a text, so what follows it starts a text. Pieces of a question may also be ("content", "response") and
    ("content", "history").
    """

    gaps: Mapping[str, Pieces]
    strip: Mapping[str, Strip] = field(default_factory=dict)  # role → whitespace that is removed from its contents
    questions: Mapping[str, Pieces] = field(default_factory=dict)  # name → a whole text about a conversation
    joints: dict[tuple[str, str], Joint] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Cache of :mod:`instructmining.tokenizing.templates`."""

    @classmethod
    def from_json(cls, value: Mapping[str, object], where: str) -> Template:
        """Parse a template of the manifest.

        Raises:
            BundleError: the value is no template.
        """
        if "gaps" not in value:
            raise BundleError(f"{where}: 'gaps' is missing; export the bundle again")
        gaps = _pieces_by_name(value["gaps"], f"{where}: gaps", ("special", "literal", "bos"))
        unknown = [name for name in gaps if not _is_transition(name)]
        if unknown:
            raise BundleError(
                f"{where}: {unknown[0]!r} is no transition such as 'user>assistant', between {', '.join(_BEFORE)} "
                f"and {', '.join(_AFTER)}; export the bundle again"
            )
        questions = value.get("questions", {})
        return cls(
            gaps=gaps,
            strip=_strips(value.get("strip", {}), where),
            questions=_pieces_by_name(questions, f"{where}: questions", ("special", "literal", "bos", "content")),
        )


def _is_transition(name: str) -> bool:
    before, _, after = name.partition(">")
    return (before in _BEFORE and after in _AFTER) or name in ("start>document", "document>end")


def _strips(value: object, where: str) -> dict[str, Strip]:
    strips: dict[str, Strip] = {}
    for role, kind in value.items() if isinstance(value, dict) else [("", value)]:
        known = [name for name in STRIPS if name == kind]
        if role not in _BEFORE or not known:
            raise BundleError(
                f"{where}: strip {role!r}: {kind!r} is none of {', '.join(map(repr, STRIPS))}; export the bundle again"
            )
        strips[role] = known[0]
    return strips


def _pieces_by_name(value: object, where: str, kinds: Sequence[PieceKind]) -> dict[str, Pieces]:
    if not isinstance(value, dict):
        raise BundleError(f"{where}: found {type(value).__name__}, wanted an object; export the bundle again")
    return {str(name): _pieces(pieces, where, kinds) for name, pieces in value.items()}


def _pieces(value: object, where: str, kinds: Sequence[PieceKind]) -> Pieces:
    pieces: list[tuple[PieceKind, str]] = []
    for piece in value if isinstance(value, list) else [value]:
        match piece:
            case ["content", ("response" | "history") as text] if "content" in kinds:
                pieces.append(("content", text))
            case [("special" | "literal" | "bos") as kind, str(text)]:
                pieces.append((kind, text))
            case _:
                raise BundleError(f"{where}: {piece!r} is not a template piece; export the bundle again")
    return tuple(pieces)
