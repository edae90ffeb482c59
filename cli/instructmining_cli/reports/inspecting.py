"""Finds from the first rows what an input holds and what each model will see of it, without running a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import Bundle
from instructmining.indicators.plan import Plan, indicator_names, plan
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FieldOptions, FormatName
from instructmining.reading.options import ReadOptions
from instructmining.rules import Rule
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining.tokenizing.truncation import Tokens
from instructmining.tokenizing.windows import TokenizedWindow, WindowBuilder
from instructmining.types import COLUMNS, PREDICTION, SCORE_COLUMNS, Example, InputWindow, Reject
from instructmining.writing.run_writer import added_names

_LENGTHS = ("input_length", "output_length")
_NO_LIMIT = 1 << 40  # tokens


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the first rows of one input show."""

    path: str
    format: FormatName | None  # None if no row could be read
    roles: Mapping[str, Mapping[str, int]]  # role in the conversation → field → rows read
    rows: float  # rows of the input; estimated from its bytes if not all were read
    looked_at: int
    rejected: int
    unread: Mapping[str, int]  # field → rows with text in it
    earlier: Sequence[str]  # columns of an earlier scoring
    rejects: Sequence[Reject] = ()  # the first ones
    templated: Mapping[str, int] = field(default_factory=dict)  # mark of a template in a bare text → rows

    @property
    def is_whole(self) -> bool:
        """Whether all rows were read."""
        return self.rows == self.looked_at


@dataclass(frozen=True, slots=True)
class SeenText:
    """One text as a model will get it."""

    label: str  # the model pass, such as ``perplexity+reward:conversation``
    segments: Sequence[tuple[str, bool]]  # text, and whether its tokens are scored
    tokens: int
    cut: int  # tokens that the model will not see


@dataclass(frozen=True, slots=True)
class SeenRow:
    """One row as all models will get it."""

    example: Example
    texts: Sequence[SeenText]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one kind of text in the rows that were read."""

    tokens: NDArray[np.int64]  # int64 (texts,), tokens that the model sees
    cut: int = 0  # texts that are truncated
    limit: int | None = None  # most tokens that the model takes


@dataclass(frozen=True, slots=True)
class Inspection:
    """What the first rows of all inputs show."""

    files: Sequence[FileFacts]
    first: Sequence[SeenRow] = ()
    lengths: Mapping[str, Lengths] = field(default_factory=dict)  # length column or model pass → its texts
    refused: Sequence[Reject] = ()  # rows that the models' templates cannot express

    @property
    def rows(self) -> float:
        """Rows of all inputs."""
        return sum(file.rows for file in self.files)

    @property
    def rejected(self) -> int:
        """Rejected rows among those that were read."""
        return sum(file.rejected for file in self.files) + len(self.refused)


@dataclass(frozen=True, slots=True)
class Asked:
    """Options of the run that is inspected."""

    bundle: Bundle | None  # None: there is no tokenizer
    rule: str | None = None
    indicators: str | None = None
    prefix: str = ""  # of the names of added columns
    recompute: bool = False  # compute columns again that the rows have
    limit: int | None = None  # most rows to score


def inspect_inputs(
    inputs: Sequence[str], fields: FieldOptions, options: ReadOptions, asked: Asked, *, sample: int, shown: int
) -> Inspection:
    """Read the first rows of every input and describe them.

    Args:
        inputs: paths, or "-".
        fields: how the fields of rows are read.
        options: how rows are read.
        asked: options of the run.
        sample: rows to read from all inputs together; at least 20 of each.
        shown: rows whose texts are returned.

    Raises:
        InputError: an input cannot be read, or its rows are in no known format.
        BundleError: the bundle lacks a role that is needed.
        RuleError: the rule cannot be read, or an indicator is not known.
    """
    files: list[FileFacts] = []
    examples: list[Example] = []
    left = asked.limit
    for path in inputs:
        most = max(20, sample // len(inputs))
        facts, first = _look(path, fields, options, asked, most if left is None else min(most, left))
        if left is not None:
            facts = replace(facts, rows=min(facts.rows, left))
            left -= round(facts.rows)
        files.append(facts)
        examples += first
        if left == 0:
            break
    if asked.bundle is None or not examples:
        return Inspection(files)
    kept = set() if asked.recompute else set.intersection(*(set(file.earlier) for file in files))
    work = _plan(asked.bundle, asked, kept)
    window, whole = (_window(each, asked.bundle, examples) for each in (work, _unlimited(work)))
    return Inspection(
        files,
        first=_seen(window, whole, shown),
        lengths=_lengths(window, whole),
        refused=[reject for _, reject in window.rejects],
    )


def _look(
    path: str, fields: FieldOptions, options: ReadOptions, asked: Asked, most: int
) -> tuple[FileFacts, list[Example]]:
    rejects: list[Reject] = []
    reader = read_examples(
        path,
        fields=fields,
        options=options,
        limit=most,
        columns=added_names(SCORE_COLUMNS, asked.prefix),
        prefix=asked.prefix,
        on_reject=rejects.append,
    )
    found = reader.look()
    earlier = [] if asked.recompute else [column for column in COLUMNS if column in found and column != PREDICTION]
    examples = list(reader)
    estimate = reader.rows_expected if reader.rows == most else None
    facts = FileFacts(
        path,
        next(iter(reader.formats.values()), None),
        _by_role(reader),
        max(reader.rows, estimate or 0.0),
        reader.rows,
        reader.rejected,
        next(iter(reader.unread.values()), {}),
        earlier,
        rejects[:3],
        reader.templated,
    )
    return facts, examples


def _by_role(reader: ExampleReader) -> dict[str, dict[str, int]]:
    roles: dict[str, dict[str, int]] = {}
    for (role, name), rows in reader.taken.items():
        roles.setdefault(role, {})[name] = rows
    return roles


def _plan(bundle: Bundle, asked: Asked, kept: set[str]) -> Plan:
    """Plan what the run would compute, with the lengths added."""
    rule = asked.rule if asked.rule or asked.indicators else bundle.default_rule
    names = indicator_names(asked.indicators or (), bundle)
    return plan(bundle, Rule.load(rule) if rule else None, [*names, *_LENGTHS], kept=kept - set(_LENGTHS))


def _unlimited(work: Plan) -> Plan:
    streams = tuple(replace(stream, role=replace(stream.role, max_length=_NO_LIMIT)) for stream in work.streams)
    return replace(work, streams=streams)


def _window(work: Plan, bundle: Bundle, examples: Sequence[Example]) -> TokenizedWindow:
    return WindowBuilder(work, bundle.roles[bundle.length_tokenizer].tokenizer).build(InputWindow(examples))


def _label(roles: Sequence[str], text: str) -> str:
    return f"{'+'.join(roles)}:{text}"


def _lengths(window: TokenizedWindow, whole: TokenizedWindow) -> dict[str, Lengths]:
    lengths: dict[str, Lengths] = {}
    for name, tokens in zip(_LENGTHS, (window.prompt_tokens, window.response_tokens), strict=True):
        if tokens is not None:
            lengths[name] = Lengths(tokens)
    for part, uncut in zip(window.streams, whole.streams, strict=True):
        sizes = np.array([len(text.ids) for text in part.texts], dtype=np.int64)
        longer = sum(len(text.ids) < len(other.ids) for text, other in zip(part.texts, uncut.texts, strict=False))
        label = _label(part.stream.roles, part.stream.text)
        lengths[label] = Lengths(sizes, longer, part.stream.role.max_length)
    return lengths


def _seen(window: TokenizedWindow, whole: TokenizedWindow, shown: int) -> list[SeenRow]:
    encoders = {part.stream.role.tokenizer: TextEncoder(part.stream.role.tokenizer) for part in window.streams}
    rows = []
    for row, example in enumerate(window.examples[:shown]):
        texts = []
        for part, uncut in zip(window.streams, whole.streams, strict=True):
            owned = np.flatnonzero(part.owners == row).tolist()
            others = np.flatnonzero(uncut.owners == row).tolist()
            for index, other in zip(owned, others, strict=False):
                text, whole_text = part.texts[index], uncut.texts[other]
                label = _label(part.stream.roles, part.stream.text)
                segments = _segments(text, encoders[part.stream.role.tokenizer])
                texts.append(SeenText(label, segments, len(text.ids), len(whole_text.ids) - len(text.ids)))
        rows.append(SeenRow(example, texts))
    return rows


def _segments(text: Tokens, encoder: TextEncoder) -> list[tuple[str, bool]]:
    scored = np.zeros(len(text.ids), dtype=bool)
    scored[text.scored] = True
    segments = []
    for is_scored, indices in groupby(range(len(scored)), key=lambda index: bool(scored[index])):
        segments.append((encoder.decoded(text.ids[list(indices)]), is_scored))
    return segments
