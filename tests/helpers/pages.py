"""The pages of the documentation: their blocks of code, commands, links and headings."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from paths import ROOT

DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [
    *sorted(ROOT.glob("*.md")),
    *DOCS,
    ROOT / "benchmarks" / "README.md",
    ROOT / "examples" / "README.md",
    *sorted((ROOT / "experiments" / "results").glob("*/README.md")),
]
_BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<why>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_OPERATORS = ";|&()<>"
_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*\"""")
_HIDDEN = {ord(sign): 0xE000 + place for place, sign in enumerate(_OPERATORS)}
_SHOWN = {0xE000 + place: sign for place, sign in enumerate(_OPERATORS)}
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_LINK = re.compile(r"(?<!\\)\[(?:[^\[\]]|\[[^\]]*\])*\]\(<?([^)\s>]+)>?\)")


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    page: str  # relative to the project's folder
    line: int  # of its first line of code, from 1
    language: str
    code: str
    why_not_run: str | None  # from a comment before it: <!-- not run: REASON -->

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def lines(self) -> list[str]:
        """Lines of a shell's block without comments; continued lines are one, and so are those of a quoted text."""
        found: list[str] = []
        for line in re.sub(r"(?:^|\s)# .*$", "", self.code, flags=re.MULTILINE).replace("\\\n", " ").splitlines():
            if found and found[-1].count("'") % 2:
                found[-1] += f"\n{line}"
            elif line.strip():
                found.append(line.strip())
        return found


@dataclass(frozen=True)
class Command:
    """A call of ``instructmining``."""

    words: list[str]  # after the name
    out: str | None  # the file that its standard output goes to


def name_of(page: Path) -> str:
    """Return the page's path in the project."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """Return the page's blocks of these languages, in order."""
    text = page.read_text(encoding="utf-8")
    return [
        Block(
            page=name_of(page),
            line=text[: found.start("code")].count("\n") + 1,
            language=found["language"],
            code=re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE),
            why_not_run=found["why"],
        )
        for found in _BLOCK.finditer(text)
        if found["language"] in languages
    ]


def commands_in(line: str) -> Iterator[Command]:
    """Yield every call of ``instructmining`` in a line of shell, those in a quoted word too."""
    kept = _QUOTED.sub(lambda found: found[0].translate(_HIDDEN), line)  # a quoted sign is no operator
    lexer = shlex.shlex(kept, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    words = list(lexer)
    for place, word in enumerate(words):
        if "instructmining " in word:
            yield from commands_in(word.translate(_SHOWN))
        elif word == "instructmining" or word.endswith("/instructmining"):
            rest = words[place + 1 :]
            end = next((number for number, part in enumerate(rest) if part and set(part) <= set(_OPERATORS)), len(rest))
            to_file = rest[end : end + 1] == [">"]
            yield Command([part.translate(_SHOWN) for part in rest[:end]], rest[end + 1] if to_file else None)


def prose_of(page: Path) -> str:
    """Return the page without its blocks and comments."""
    return re.sub(r"<!--.*?-->", "", _BLOCK.sub("", page.read_text(encoding="utf-8")), flags=re.DOTALL)


def inline_code_of(page: Path) -> list[str]:
    """Return what stands between single backticks, with a line's end as a space."""
    return [" ".join(found[1].split()) for found in _INLINE.finditer(prose_of(page))]


def links_of(page: Path) -> list[str]:
    """Return the targets of the page's links and images."""
    return _LINK.findall(_INLINE.sub("`code`", prose_of(page)))


def anchors_of(page: Path) -> set[str]:
    """Return the names that code hosts, and the site, give the page's headings."""
    found: set[str] = set()
    for heading in _headings(page):
        name = anchor = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = 0
        while anchor in found:
            count += 1
            anchor = f"{name}-{count}"
        found.add(anchor)
    return found


def _headings(page: Path) -> Iterator[str]:
    for found in re.finditer(r"^#{1,6} +(.+?)\s*$", prose_of(page), re.MULTILINE):
        yield re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1]).replace("`", "")
