"""Finds where a text may be cut so that its pieces, tokenized separately, give the tokens of the whole.

Most words of a corpus repeat. A tokenizer that works within words (one that splits a text before it looks words up)
therefore needs to see each distinct piece only once; the tokens are exactly its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias, cast

import orjson
from tokenizers import Tokenizer
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

Cutter: TypeAlias = Callable[[str], list[str]]
_Step: TypeAlias = Mapping[str, object]

# A text with one of these is not cut at every space: other whitespace, "\0", which marks the cuts, and three in a row
# or any at the end, since where whitespace is split depends on its surroundings.
_OTHER_ASCII_SPACE = "\t\r\v\f\0\x1c\x1d\x1e\x1f"
_UNEVEN = [*_OTHER_ASCII_SPACE, *(one + two + three for one in " \n" for two in " \n" for three in " \n")]
_OTHER_SPACE = re.compile(
    f"[{_OTHER_ASCII_SPACE}\x85\xa0\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufeff]"
)
_CROWD = re.compile("[ \n]{3}")
_TWO_BEFORE_DIGIT = re.compile(r"[ \n]{2}[^\x00-/:-\x7f]")  # other characters may be digits too
# After a character that is no whitespace, all whitespace before the next word belongs to that word.
_BEFORE_SPACES = re.compile("(?<=[!-~])(?= )")
_BEFORE_SPACES_AND_LINES = re.compile(r"(?<=[!-~])(?=[ \n])")
_CONTRACTIONS = {r"(?i:'s|'t|'re|'ve|'m|'ll|'d)", r"'(?i:[sdmt]|ll|ve|re)"}
# After the contractions: GPT-4's expression as Llama 3 and Qwen write it.
_REST = {
    rf"|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    for digits in (r"\p{N}", r"\p{N}{1,3}")
}


def cutter(tokenizer: Tokenizer) -> Cutter | None:
    """Return a function that cuts texts for a tokenizer; None where no cut is known to be safe.

    Args:
        tokenizer: one that treats special tokens within a text as plain text.
    """
    added = [token for token in tokenizer.get_added_tokens_decoder().values() if not token.special]
    if any(token.lstrip or token.rstrip or token.single_word for token in added):
        return None
    if getattr(tokenizer.model, "dropout", None):
        return None
    cut = _cutter(_steps(tokenizer.pre_tokenizer, "pretokenizers"), _steps(tokenizer.normalizer, "normalizers"))
    if cut is None or not added:
        return cut
    find = re.compile("|".join(re.escape(token.content) for token in added)).search
    return lambda text: [text] if find(text) else cut(text)


# Every cutter may cut here, whatever else the text holds: between the end of a word and a space.
_SAFE = re.compile("(?<=[!-~])(?= )")


def parts(text: str, size: int) -> Iterator[str]:
    """Yield parts of about so many characters, cut where every cutter may cut; longer where there is no such place."""
    begin = 0
    while len(text) - begin > size:
        found = _SAFE.search(text, begin + size)
        if found is None:
            break
        yield text[begin : found.start()]
        begin = found.start()
    yield text[begin:]


def last_cut(text: str) -> int:
    """Return the last place where every cutter may cut; 0 where there is none."""
    at = text.rfind(" ")
    while at > 0 and not "!" <= text[at - 1] <= "~":
        at = text.rfind(" ", 0, at)
    return max(at, 0)


def takes_parts(tokenizer: Tokenizer) -> bool:
    """Return whether :func:`parts` of a text, tokenized separately, give the tokens of the whole.

    This holds where the tokenizer has a cutter and no token of its own contains a space.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    return cutter(tokenizer) is not None and not any(" " in token.content for token in added if not token.special)


def longest_part(text: str, size: int) -> int:
    """Return the length of the longest part of a text, in characters."""
    return max(map(len, parts(text, size)))


def joins(head: str, text: str) -> bool:
    """Return whether every cutter may cut between the two, after a newline."""
    if not text or head[-1:] != "\n" or text[0].isspace() or _OTHER_SPACE.match(text):
        return False
    return not (text[0].isnumeric() and head[-2:-1].isspace())  # some split off digits first


def _cutter(steps: Sequence[_Step], normalizers: Sequence[_Step]) -> Cutter | None:
    kinds, normalized = [str(step["type"]) for step in steps], {step["type"] for step in normalizers}
    last = steps[-1] if steps else {}
    if kinds == ["BertPreTokenizer"] and normalized <= {"BertNormalizer"}:
        return _at_spaces
    if normalized - {"NFC"} or last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return None
    if last.get("use_regex", True):
        return {"ByteLevel": _before_spaces_and_lines, "Digits ByteLevel": _around_digits}.get(" ".join(kinds))
    return _before_spaces_after_lines if len(steps) == 2 and _is_gpt4(steps[0]) else None


def _steps(part: PreTokenizer | Normalizer | None, inner: str) -> list[_Step]:
    """Return the steps of a pre-tokenizer or normalizer in order, as in tokenizer.json; empty where there are none."""
    return [] if part is None else _flat(orjson.loads(part.__getstate__()), inner)


def _flat(step: _Step, inner: str) -> list[_Step]:
    if step["type"] != "Sequence":
        return [step]
    return [single for part in cast("list[_Step]", step[inner]) for single in _flat(part, inner)]


def _is_gpt4(step: _Step) -> bool:
    if step["type"] != "Split" or step.get("behavior") != "Isolated" or step.get("invert"):
        return False
    pattern = cast("_Step", step.get("pattern") or {}).get("Regex")
    return pattern in {contractions + rest for contractions in _CONTRACTIONS for rest in _REST}


def _at_spaces(text: str) -> list[str]:
    """BERT: spaces and newlines separate words and are dropped; its normalizer sees single characters."""
    return text.replace("\n", " ").split(" ")


def _is_plain(text: str) -> bool:
    """Return whether a text's only whitespace is spaces and newlines, never three in a row, and none at the end."""
    if text[-1:] in (" ", "\n"):
        return False
    if not text.isascii():
        return not (_OTHER_SPACE.search(text) or _CROWD.search(text))
    return not any(map(text.__contains__, _UNEVEN))


def _before_spaces_and_lines(text: str) -> list[str]:
    r"""GPT-2: of the whitespace before a word, the last character is separate: ``\s+(?!\S)``, then " word" or "\n"."""
    if not _is_plain(text):
        return _BEFORE_SPACES_AND_LINES.split(text)
    return text.replace(" ", "\0 ").replace("\n", "\0\n").split("\0")


def _around_digits(text: str) -> list[str]:
    """GPT-2 after a step that splits off digits: whitespace before a digit ends the text that the expression sees."""
    if _TWO_BEFORE_DIGIT.search(text):
        return _BEFORE_SPACES_AND_LINES.split(text)
    return _before_spaces_and_lines(text)


def _before_spaces_after_lines(text: str) -> list[str]:
    r"""GPT-4: newlines belong to what precedes them: ``[^\s\p{L}\p{N}]+[\r\n]*`` and ``\s*[\r\n]+``."""
    if not _is_plain(text):
        return _BEFORE_SPACES.split(text)
    return text.replace(" ", "\0 ").replace("\n", "\n\0").replace("\n\0\n", "\n\n").split("\0")
