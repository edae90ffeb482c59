"""Data that passes between the stages: plain frozen records, with array shapes in comments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from instructmining.errors import InputError
from instructmining.errors.arguments import shown

TurnRole: TypeAlias = Literal["system", "user", "assistant", "tool"]
TURN_ROLES: tuple[TurnRole, ...] = get_args(TurnRole)
ColumnValue: TypeAlias = float | int | None

PREDICTION = "predicted_log_loss"
# The distance to the k-th nearest neighbour, by k.
KNN_COLUMNS = {k: f"knn_{k}" for k in range(1, 101)}
# Every column that scoring can add, in output order.
COLUMNS = (
    "input_length",
    "output_length",
    "reward",
    "perplexity",
    "mtld",
    *KNN_COLUMNS.values(),
    "naturalness",
    "coherence",
    "understandability",
    "ifd",
    PREDICTION,
)
Side: TypeAlias = Literal["chosen", "rejected"]
SIDES: tuple[Side, Side] = ("chosen", "rejected")
MARGIN = "margin"  # of a column over a preference pair: chosen − rejected
# The columns of a preference pair for each column.
PAIR_COLUMNS = {column: tuple(f"{part}.{column}" for part in (*SIDES, MARGIN)) for column in COLUMNS}
# Every name under which a column may be written, in output order.
SCORE_COLUMNS = tuple(name for column in COLUMNS for name in (column, *PAIR_COLUMNS[column]))


# What the numbers of a column count or measure, by its words; columns without a unit are not here.
_UNITS = {
    "input_length": "tokens",
    "output_length": "tokens",
    "mtld": "words",
    "naturalness": "0 to 1",
    "coherence": "0 to 1",
    "understandability": "0 to 1",
    PREDICTION: "ln of loss",
} | dict.fromkeys(KNN_COLUMNS.values(), "distance")


def unit(column: str) -> str:
    """Return the unit of a column, or of a side's column of a preference pair; "" where it has none."""
    part, _, name = column.rpartition(".")
    found = _UNITS.get(name, "")
    return "" if part == MARGIN and found == "0 to 1" else found


def pair_columns(
    column: str, chosen: ColumnValue, rejected: ColumnValue
) -> tuple[dict[str, ColumnValue], dict[str, str]]:
    """Return the columns of a preference pair: both values and their difference, and why that is None."""
    of_chosen, of_rejected, margin = PAIR_COLUMNS[column]
    if chosen is not None and rejected is not None:
        return {of_chosen: chosen, of_rejected: rejected, margin: chosen - rejected}, {}
    missing = of_chosen if chosen is None else of_rejected
    return {of_chosen: chosen, of_rejected: rejected, margin: None}, {margin: f"{missing} is null"}


def known_columns() -> str:
    """Return the columns of the indicators, for messages."""
    others = [column for column in COLUMNS if column != PREDICTION and column not in KNN_COLUMNS.values()]
    return ", ".join([*others, f"{KNN_COLUMNS[1]} to {KNN_COLUMNS[max(KNN_COLUMNS)]}"])


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as it was read."""

    source: str  # path, "-" for standard input, "table" for a table in memory, "rows" for dicts
    line: int  # 1-based line on which the row starts; in memory the row's number
    offset: int  # byte of the uncompressed text at which the row starts; in memory the number of rows before it
    raw: bytes  # the row's bytes, a JSON object on one line; for other kinds made from its values
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class TurnParts:
    """The parts of a turn that was an object with more than a role and a text; they are written again, not scored."""

    text: str  # content without calls of tools
    calls: tuple[object, ...] = ()  # values of ``tool_calls`` and ``function_call``, as they were read
    is_call: bool = False  # the role says that the text is a call of a tool
    others: Mapping[str, object] = field(default_factory=dict)  # all other keys that are not null


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: TurnRole
    text: str
    parts: TurnParts | None = field(default=None, compare=False, repr=False)  # lost where rows wait on disk

    def __post_init__(self) -> None:
        """Check the role and the text.

        Raises:
            InputError: the role is not known, or the text is not text.
        """
        if self.role not in TURN_ROLES:
            raise InputError(f"turn: role is {shown(self.role)}, wanted {', '.join(TURN_ROLES)}")
        if not isinstance(self.text, str):
            raise InputError(f"turn of {self.role!r}: text is {shown(self.text)}, wanted text")


@dataclass(frozen=True, slots=True)
class EarlierScores:
    """What an earlier run of ``score`` added to a row; the row itself is without it."""

    columns: Mapping[str, ColumnValue]  # by name without prefix
    notes: Mapping[str, str]  # column → why it is None
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction-tuning example, whose last assistant turn is the response; or a preference pair."""

    turns: tuple[Turn, ...]
    row: SourceRow | None = None  # the row that it came from, if any
    rejected: tuple[Turn, ...] | None = None  # of a preference pair, whose chosen conversation is ``turns``
    scores: EarlierScores | None = None  # scores of an earlier run
    side: Side | None = None  # side of the pair, while its sides are computed separately
    # Fields of the row that hold text and are not read, ``messages[].name`` for a key of turns. Lost where rows wait on
    # disk for their neighbours.
    unread: tuple[str, ...] = ()

    @property
    def sides(self) -> tuple[Example, ...]:
        """Return the example, or the two sides of a pair, chosen first."""
        if self.rejected is None:
            return (self if self.side is None else replace(self, side=None),)
        return (
            replace(self, rejected=None, side="chosen"),
            replace(self, turns=self.rejected, rejected=None, side="rejected"),
        )

    @staticmethod
    def of_sides(chosen: Example, rejected: Example) -> Example:
        """Join two sides to a pair."""
        return replace(chosen, rejected=rejected.turns, side=None)

    def __post_init__(self) -> None:
        """Check the turns.

        Raises:
            InputError: they are no tuple of turns.
        """
        if not isinstance(self.turns, tuple) or not all(isinstance(turn, Turn) for turn in self.turns):
            raise InputError(f"example: turns is {shown(self.turns)}, wanted a tuple of Turn; or see Example.of")

    @property
    def prompt_texts(self) -> list[str]:
        """All texts that are not the assistant's, in order."""
        return [turn.text for turn in self.turns if turn.role != "assistant"]

    @property
    def response_texts(self) -> list[str]:
        """All texts of the assistant, in order."""
        return [turn.text for turn in self.turns if turn.role == "assistant"]

    @property
    def has_response(self) -> bool:
        """Whether the assistant says anything but spaces; otherwise there is nothing to score."""
        return any(turn.text.strip() for turn in self.turns if turn.role == "assistant")

    @classmethod
    def of(cls, prompt: str, response: str) -> Example:
        """Build the common case: one prompt, one response.

        Raises:
            InputError: one of them is not text.
        """
        return cls((Turn("user", prompt), Turn("assistant", response)))

    @classmethod
    def pair(cls, prompt: str, chosen: str, rejected: str) -> Example:
        """Build a preference pair: one prompt, a chosen and a rejected response."""
        asked = Turn("user", prompt)
        return cls((asked, Turn("assistant", chosen)), rejected=(asked, Turn("assistant", rejected)))


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be scored, and why."""

    source: str  # path, "-" for standard input, "" where the example came from no file
    line: int
    offset: int
    reason: str
    raw: bytes  # as read, possibly not UTF-8
    example: Example | None = None  # the parsed example, where it was rejected after parsing

    @classmethod
    def of(cls, example: Example, reason: str) -> Reject:
        """Reject an example that was read but cannot be scored."""
        row = example.row
        if row is None:
            return cls("", 0, 0, reason, b"", example)
        return cls(row.source, row.line, row.offset, reason, row.raw, example)


RowOrReject: TypeAlias = SourceRow | Reject


def rows_of_sides(examples: Sequence[Example]) -> int:
    """Return how many rows these examples, or sides, are."""
    return sum(example.side != "rejected" for example in examples)


@dataclass(frozen=True, slots=True)
class Position:
    """How far an input was read: all rows up to this one."""

    file: int  # which of the input's files holds the row
    line: int  # on which the row starts, as in :class:`SourceRow`
    offset: int
    rows: int  # in all files, with bad ones
    rejected: int  # bad rows among them
    blank: int  # blank lines skipped
    formats: Mapping[str, str]  # path → format of its rows, for the files so far
    unread: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # path → field → rows whose text is not read


def bytes_of(item: Example | Reject) -> int:
    """Return the bytes of a row as it was read, or the characters of an example without a row."""
    if isinstance(item, Reject):
        return len(item.raw)
    return len(item.row.raw) if item.row is not None else sum(len(turn.text) for turn in item.turns)


@dataclass(frozen=True, slots=True)
class InputWindow:
    """Rows of the input that are scored together."""

    items: Sequence[Example | Reject]  # in the order of the input
    end: Position | None = None  # position of the last item, where reading can resume after it

    @property
    def bytes(self) -> int:
        """Bytes of the rows as they were read; memory holds a few times as many."""
        return sum(map(bytes_of, self.items))


@dataclass(frozen=True, slots=True)
class Column:
    """One indicator's values for a window of rows."""

    values: NDArray[np.float64]  # (rows,) NaN where undefined
    notes: dict[int, str] = field(default_factory=dict)  # row → why its value is undefined
    whole: bool = False  # values are counts, written as integers


@dataclass(slots=True)
class ScoredWindow:
    """Examples and their columns so far, as arrays; rows are made from it when all columns are there."""

    examples: list[Example]  # the two sides of a pair are consecutive
    truncated: list[tuple[str, ...]]  # (rows,) roles whose text was truncated
    columns: dict[str, Column]
    rejects: list[Reject] = field(default_factory=list)  # rows read for this window and not scored, in input order
    end: Position | None = None  # position of the window's last row, good or bad

    def __len__(self) -> int:
        """Return the number of examples, both sides of a pair counted."""
        return len(self.examples)

    @property
    def rows(self) -> int:
        """The number of input rows that the examples came from."""
        return rows_of_sides(self.examples)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """An example with its columns, and ``predicted_log_loss`` where there is a rule."""

    example: Example
    columns: dict[str, ColumnValue]  # None where undefined, with the reason in notes
    truncated: tuple[str, ...]  # roles whose text was truncated
    notes: dict[str, str]  # column → why it is None


@dataclass(frozen=True, slots=True)
class Approximation:
    """How the neighbours were searched, and how well; written to the run file."""

    library: str
    index: str
    sample_rows: int  # drawn at random; their neighbours were also found exactly
    recall: float  # share of their true nearest neighbours that were found, 0..1
    mean_error: float  # of distances to the farthest of these, relative to the true distance
    largest_error: float
