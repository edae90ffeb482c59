"""What an input holds and what each model will see of it, found from its first rows without a model."""

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
    """What one input holds, by its first rows."""

    path: str
    format: FormatName | None  # None where no row could be read
    roles: Mapping[str, Mapping[str, int]]  # role in the conversation → field → rows looked at
    rows: float  # in all; estimated from the bytes where not all rows were looked at
    looked_at: int
    rejected: int
    unread: Mapping[str, int]  # field → rows looked at
    earlier: Sequence[str]  # columns that the rows were scored with before
    rejects: Sequence[Reject] = ()  # the first of them
    templated: Mapping[str, int] = field(default_factory=dict)  # mark of a template in a text alone → rows

    @property
    def is_whole(self) -> bool:
        """Whether all rows were looked at."""
        return self.rows == self.looked_at


@dataclass(frozen=True, slots=True)
class SeenText:
    """One text as a model will be given it."""

    label: str  # the model pass, as in ``perplexity+reward:conversation``
    segments: Sequence[tuple[str, bool]]  # text, and whether its tokens are scored
    tokens: int
    cut: int  # tokens that the model will not see


@dataclass(frozen=True, slots=True)
class SeenRow:
    """One row as all models will be given it."""

    example: Example
    texts: Sequence[SeenText]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of one kind of text in the rows looked at."""

    tokens: NDArray[np.int64]  # (texts,) that the model sees
    cut: int = 0  # texts that it does not see whole
    limit: int | None = None  # of the model


@dataclass(frozen=True, slots=True)
class Inspection:
    """All of it."""

    files: Sequence[FileFacts]
    first: Sequence[SeenRow] = ()
    lengths: Mapping[str, Lengths] = field(default_factory=dict)  # column of a length, or model pass → its texts
    refused: Sequence[Reject] = ()  # rows that were read and that the models' templates cannot hold

    @property
    def rows(self) -> float:
        """Of all inputs."""
        return sum(file.rows for file in self.files)

    @property
    def rejected(self) -> int:
        """Rows among those looked at."""
        return sum(file.rejected for file in self.files) + len(self.refused)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a run would compute."""

    bundle: Bundle | None  # None: no tokenizer is at hand
    rule: str | None = None
    indicators: str | None = None
    prefix: str = ""  # before the names of its columns
    recompute: bool = False  # columns that the rows have already
    limit: int | None = None  # rows that would be taken


def inspect_inputs(
    inputs: Sequence[str], fields: FieldOptions, options: ReadOptions, asked: Asked, *, sample: int, shown: int
) -> Inspection:
    """Look at the first rows of every input.

    Args:
        inputs: files, or "-".
        fields: how the fields of rows are read.
        options: how rows are read.
        asked: what would be computed of them.
        sample: rows looked at in all inputs together, at least 20 of each.
        shown: rows of which the texts are kept.

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
        facts, taken = _look(path, fields, options, asked, most if left is None else min(most, left))
        if left is not None:
            facts = replace(facts, rows=min(facts.rows, left))
            left -= round(facts.rows)
        files.append(facts)
        examples += taken
        if left == 0:
            break
    if asked.bundle is None or not examples:
        return Inspection(files)
    kept = set() if asked.recompute else set.intersection(*(set(file.earlier) for file in files))
    work = _plan(asked.bundle, asked, kept)
    window, whole = (_window(work_, asked.bundle, examples) for work_ in (work, _unlimited(work)))
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
    there = reader.look()
    earlier = [] if asked.recompute else [column for column in COLUMNS if column in there and column != PREDICTION]
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
    """What the run would compute, and the lengths."""
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
            for place, other in zip(owned, others, strict=False):
                text, all_of_it = part.texts[place], uncut.texts[other]
                label = _label(part.stream.roles, part.stream.text)
                segments = _segments(text, encoders[part.stream.role.tokenizer])
                texts.append(SeenText(label, segments, len(text.ids), len(all_of_it.ids) - len(text.ids)))
        rows.append(SeenRow(example, texts))
    return rows


def _segments(text: Tokens, encoder: TextEncoder) -> list[tuple[str, bool]]:
    scored = np.zeros(len(text.ids), dtype=bool)
    scored[text.scored] = True
    segments = []
    for is_scored, places in groupby(range(len(scored)), key=lambda place: bool(scored[place])):
        segments.append((encoder.decoded(text.ids[list(places)]), is_scored))
    return segments
