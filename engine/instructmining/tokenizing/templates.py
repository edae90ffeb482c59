"""Renders examples to the text that each model role expects; the templates come from the bundle."""

from __future__ import annotations

from collections.abc import Callable

from instructmining.bundle.template import Joint, Part, Pieces, Segment, Special, Strip, Template
from instructmining.errors import BundleError, RowError
from instructmining.types import Example

_STRIP: dict[Strip, Callable[[str], str]] = {
    "none": str,
    "left": str.lstrip,
    "right": str.rstrip,
    "both": str.strip,
    "left newlines": lambda text: text.lstrip("\n"),
    "right newlines": lambda text: text.rstrip("\n"),
    "both newlines": lambda text: text.strip("\n"),
}


def conversation(example: Example, template: Template, *, open_end: bool = False) -> list[Part]:
    """Render the whole conversation in a model's template.

    Args:
        example: with the turns.
        template: of the model.
        open_end: whether the text ends where a further response would begin, a generation prompt, and not as a whole.

    Raises:
        RowError: the template has no place for one of the turns at its position.
    """
    segments = _SegmentBuilder()
    before = "start"
    last = len(example.turns) - 1
    for number, turn in enumerate(example.turns):
        is_assistant = turn.role == "assistant"
        after = "response" if is_assistant and number == last and not open_end else turn.role
        segments.join(_joint(template, before, after))
        text = turn.text
        if template.strip:
            text = _STRIP[_strip(template, after)](text)
        segments.write(text, response=is_assistant)
        before = after
    segments.join(_joint(template, before, "response" if open_end else "end"))
    return segments.finish()


def document(example: Example, template: Template, text: str = "document") -> list[Part]:
    """Texts of an example joined by newlines in order, as the one text that an encoder is given.

    Args:
        example: whose texts.
        template: of the encoder.
        text: "document" for all turns, "prompt" for those that are not the assistant's, "response" for the assistant's.

    Raises:
        BundleError: the template is not for single texts.
    """
    segments = _SegmentBuilder()
    try:
        segments.join(_joint(template, "start", "document"))
        texts = {"prompt": example.prompt_texts, "response": example.response_texts}
        segments.write("\n".join(texts[text] if text in texts else [turn.text for turn in example.turns]))
        segments.join(_joint(template, "document", "end"))
    except RowError as error:
        raise BundleError(f"{error}; export the bundle again with a template for single texts") from error
    return segments.finish()


def question(example: Example, template: Template, name: str) -> list[Part]:
    """Render a question about the conversation, in the words that the model was trained with.

    The response is the last assistant turn; the history is all turns before it, joined by newlines and ending in two.

    Raises:
        BundleError: the template has no question of that name.
        RowError: the conversation has no assistant turn.
    """
    pieces = template.questions.get(name)
    if pieces is None:
        raise BundleError(f"the model's template has no question {name!r}; export the bundle again")
    turns = example.turns
    answer = next((number for number in reversed(range(len(turns))) if turns[number].role == "assistant"), None)
    if answer is None:
        raise RowError("the conversation has no response")
    contents = {
        "response": turns[answer].text,
        "history": "\n".join(turn.text for turn in turns[:answer]) + "\n\n",
    }
    segments = _SegmentBuilder()
    for kind, text in pieces:
        if kind in ("special", "bos"):
            segments.join(Joint("", (Special(text),), "", kind == "bos"))
        else:
            segments.write(contents[text] if kind == "content" else text)
    return segments.finish()


def _joint(template: Template, before: str, after: str) -> Joint:
    """Return what stands between two contents; cached per transition."""
    joint = template.joints.get((before, after))
    if joint is None:
        joint = _jointed(_gap(template, before, after), closing=after == "end")
        template.joints[before, after] = joint
    return joint


def _gap(template: Template, before: str, after: str) -> Pieces:
    names = [f"{before}>{after}"]
    if "response" in (before, after):
        names.append(names[0].replace("response", "assistant"))
    for name in names:
        if name in template.gaps:
            return template.gaps[name]
    before, after = ("assistant" if role == "response" else role for role in (before, after))
    what = {"end": "the end", "document": "a single text"}.get(after, f"a turn of role {after!r}")
    where = {"start": " at the beginning", "document": " of a single text"}.get(before, f" after {before!r}")
    raise RowError(f"the model's template has no place for {what}{'' if after == 'document' else where}")


def _jointed(pieces: Pieces, *, closing: bool) -> Joint:
    """Convert pieces to head, parts and tail; after the last content the tail is a closed segment of its own."""
    head, text, begins = "", "", False
    parts: list[Part] = []
    for kind, piece in pieces:
        if kind == "literal":
            text += piece
            continue
        if not parts:
            head = text
        elif text:
            parts.append(Segment(text, begins=begins, closing=closing))
        parts.append(Special(piece))
        text, begins = "", kind == "bos"
    if not parts:
        return Joint(text, (), "", False)
    if closing and text:
        return Joint(head, (*parts, Segment(text, begins=begins, closing=True)), "", False)
    return Joint(head, tuple(parts), text, begins)


def _strip(template: Template, role: str) -> Strip:
    kind = template.strip.get(role)
    if kind is None and role == "response":
        kind = template.strip.get("assistant")
    return kind or "none"


class _SegmentBuilder:
    """Joins neighbouring texts to segments; special tokens separate them."""

    __slots__ = ("_begins", "_parts", "_spans", "_text")

    def __init__(self) -> None:
        self._parts: list[Part] = []
        self._text = ""
        self._spans: tuple[tuple[int, int], ...] = ()
        self._begins = True

    def join(self, joint: Joint) -> None:
        if joint.head:
            self._text += joint.head
        if joint.parts:
            self._close()
            self._parts += joint.parts
            self._text, self._begins = joint.tail, joint.begins

    def write(self, text: str, *, response: bool = False) -> None:
        begin = len(self._text)
        self._text += text
        if response:
            self._spans += ((begin, len(self._text)),)

    def finish(self) -> list[Part]:
        self._close()
        return self._parts

    def _close(self) -> None:
        if self._text:
            self._parts.append(Segment(self._text, self._spans, self._begins))
        self._text, self._spans = "", ()
