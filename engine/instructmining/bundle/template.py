"""The template of a model's text: what stands between the contents, as data."""

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
    """One special token of the template, by name; text in a row never becomes one."""

    token: str


@dataclass(frozen=True, slots=True)
class Segment:
    """Text between two special tokens; it is tokenized whole."""

    text: str
    responses: tuple[tuple[int, int], ...] = ()  # the spans of assistant text in it, as character offsets
    begins: bool = False  # it begins a text: some tokenizers mark a word's start there and not behind a special token
    closing: bool = False  # the template's text behind all content, which stays when the content is cut


Part: TypeAlias = Special | Segment


@dataclass(frozen=True, slots=True)
class Joint:
    """What stands between two contents of a template, ready to be joined to them."""

    head: str  # text that goes on in the segment of the content before
    parts: tuple[Part, ...]  # none: the two contents are of one segment
    tail: str  # text that opens the segment of the content after
    begins: bool  # whether that segment begins a text


@dataclass(frozen=True, slots=True)
class Template:
    """How a model's text is put together: what stands between the contents, by transition.

    A transition is "start>user", "user>assistant", "assistant>end", …; ``response`` is the last assistant turn where
    it is the last turn of all, and where "x>response" or "response>x" is absent, the assistant's counts. A single text
    stands between "start>document" and "document>end".

    A piece is ("special", token), ("literal", text) or ("bos", token): a token that the tokenizer itself puts before a
    text, so that what follows it begins a text. In a question a piece may also be ("content", "response" or "history").
    """

    gaps: Mapping[str, Pieces]
    strip: Mapping[str, Strip] = field(
        default_factory=dict
    )  # whitespace of a content that the model never sees, by role
    questions: Mapping[str, Pieces] = field(default_factory=dict)  # whole texts about a conversation, by name
    joints: dict[tuple[str, str], Joint] = field(default_factory=dict, init=False, repr=False, compare=False)
    """Gaps made ready by ``prompts``, which fills this as it meets them."""

    @classmethod
    def from_json(cls, value: Mapping[str, object], where: str) -> Template:
        """Read the manifest's form.

        Raises:
            BundleError: it is not of that form.
        """
        if "gaps" not in value:
            raise BundleError(f"{where}: 'gaps' is missing; export the bundle again")
        gaps = _pieces_by_name(value["gaps"], f"{where}: gaps", ("special", "literal", "bos"))
        strange = [name for name in gaps if not _is_transition(name)]
        if strange:
            raise BundleError(
                f"{where}: {strange[0]!r} is no transition such as 'user>assistant', between {', '.join(_BEFORE)} "
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
