"""What flows between the stages: plain frozen records, array shapes in comments."""

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
# Every column that scoring can add, in the order in which they are written.
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
# The columns that a preference pair has in place of each.
PAIR_COLUMNS = {column: tuple(f"{part}.{column}" for part in (*SIDES, MARGIN)) for column in COLUMNS}
# Every name under which a column may be written, in that order.
SCORE_COLUMNS = tuple(name for column in COLUMNS for name in (column, *PAIR_COLUMNS[column]))


def pair_columns(
    column: str, chosen: ColumnValue, rejected: ColumnValue
) -> tuple[dict[str, ColumnValue], dict[str, str]]:
    """What a preference pair has in place of a column: both values and their difference, and why that is None."""
    of_chosen, of_rejected, margin = PAIR_COLUMNS[column]
    if chosen is not None and rejected is not None:
        return {of_chosen: chosen, of_rejected: rejected, margin: chosen - rejected}, {}
    missing = of_chosen if chosen is None else of_rejected
    return {of_chosen: chosen, of_rejected: rejected, margin: None}, {margin: f"{missing} is null"}


def known_columns() -> str:
    """The indicators' columns, for messages."""
    others = [column for column in COLUMNS if column != PREDICTION and column not in KNN_COLUMNS.values()]
    return ", ".join([*others, f"{KNN_COLUMNS[1]} to {KNN_COLUMNS[max(KNN_COLUMNS)]}"])


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row as it was read."""

    source: str  # path, "-" for standard input, "table" for one in memory, "rows" for dicts
    line: int  # 1-based line on which the row begins; of what is in memory the row's number
    offset: int  # byte of the uncompressed text at which the row begins; of what is in memory the rows before it
    raw: bytes  # its own bytes, a JSON object on one line; of others what is made of its values
    fields: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: TurnRole
    text: str

    def __post_init__(self) -> None:
        """Check the role and the text.

        Raises:
            InputError: there is no such role, or the text is none.
        """
        if self.role not in TURN_ROLES:
            raise InputError(f"turn: role is {shown(self.role)}, wanted {', '.join(TURN_ROLES)}")
        if not isinstance(self.text, str):
            raise InputError(f"turn of {self.role!r}: text is {shown(self.text)}, wanted text")


@dataclass(frozen=True, slots=True)
class EarlierScores:
    """What an earlier run of ``score`` has added to a row; the row itself is without it."""

    columns: Mapping[str, ColumnValue]  # by name without prefix
    notes: Mapping[str, str]  # column → why it is None
    truncated: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Example:
    """One instruction-tuning example; its last assistant turn is the response. Or a pair of them to one prompt."""

    turns: tuple[Turn, ...]
    row: SourceRow | None = None  # where it came from, when it came from a file
    rejected: tuple[Turn, ...] | None = None  # of a preference pair, whose chosen conversation ``turns`` is
    scores: EarlierScores | None = None  # that the row had
    side: Side | None = None  # of the pair, while its sides are computed apart

    @property
    def sides(self) -> tuple[Example, ...]:
        """The example, or the two sides of a pair, chosen first."""
        if self.rejected is None:
            return (self if self.side is None else replace(self, side=None),)
        return (
            Example(self.turns, self.row, scores=self.scores, side="chosen"),
            Example(self.rejected, self.row, scores=self.scores, side="rejected"),
        )

    @classmethod
    def of_sides(cls, chosen: Example, rejected: Example) -> Example:
        """The pair of which these are the sides."""
        return cls(chosen.turns, chosen.row, rejected.turns, chosen.scores)

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
        """Whether the assistant says anything but spaces; without that there is nothing to score."""
        return any(turn.text.strip() for turn in self.turns if turn.role == "assistant")

    @classmethod
    def of(cls, prompt: str, response: str) -> Example:
        """The common case: one prompt, one response.

        Raises:
            InputError: one of them is not text.
        """
        return cls((Turn("user", prompt), Turn("assistant", response)))

    @classmethod
    def pair(cls, prompt: str, chosen: str, rejected: str) -> Example:
        """A preference pair: one prompt, the response that was chosen, the one that was rejected."""
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
    example: Example | None = None  # what it was read as, where it was refused after that

    @classmethod
    def of(cls, example: Example, reason: str) -> Reject:
        """An example that was read but cannot be scored."""
        row = example.row
        if row is None:
            return cls("", 0, 0, reason, b"", example)
        return cls(row.source, row.line, row.offset, reason, row.raw, example)


RowOrReject: TypeAlias = SourceRow | Reject


def rows_of_sides(examples: Sequence[Example]) -> int:
    """Rows of which these are the examples, or the sides."""
    return sum(example.side != "rejected" for example in examples)


@dataclass(frozen=True, slots=True)
class Position:
    """How far an input was read: all rows up to this one."""

    file: int  # which of the input's files holds the row
    line: int  # on which the row begins, as in :class:`SourceRow`
    offset: int
    rows: int  # in all files, bad ones included
    rejected: int  # bad rows among them
    blank: int  # blank lines skipped
    formats: Mapping[str, str]  # path → format of its rows, of the files so far
    unread: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # path → field → rows whose text is not read


def bytes_of(item: Example | Reject) -> int:
    """Of a row as it was read, or the characters of an example that came from none."""
    if isinstance(item, Reject):
        return len(item.raw)
    return len(item.row.raw) if item.row is not None else sum(len(turn.text) for turn in item.turns)


@dataclass(frozen=True, slots=True)
class InputWindow:
    """Rows of the input that are scored together."""

    items: Sequence[Example | Reject]  # in the order of the input
    end: Position | None = None  # of the last of them, where the input can be read on from there

    @property
    def bytes(self) -> int:
        """Of its rows as they were read; memory holds a few times as many."""
        return sum(map(bytes_of, self.items))


@dataclass(frozen=True, slots=True)
class Column:
    """One indicator's values for a window of rows."""

    values: NDArray[np.float64]  # (rows,) NaN where undefined
    notes: dict[int, str] = field(default_factory=dict)  # row → why it is undefined
    whole: bool = False  # values are counts, written as integers


@dataclass(slots=True)
class ScoredWindow:
    """Examples and their columns so far, as arrays; rows are made of it when all columns are there."""

    examples: list[Example]  # the sides of a pair one after the other
    truncated: list[tuple[str, ...]]  # (rows,) the roles that saw less than the whole text
    columns: dict[str, Column]
    rejects: list[Reject] = field(default_factory=list)  # read for this window and not scored, in the input's order
    end: Position | None = None  # of the window's last row, good or bad

    def __len__(self) -> int:
        """Examples, both sides of a pair counted."""
        return len(self.examples)

    @property
    def rows(self) -> int:
        """Rows of the input that they came from."""
        return rows_of_sides(self.examples)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """An example with its columns, ``predicted_log_loss`` among them when there is a rule."""

    example: Example
    columns: dict[str, ColumnValue]  # None where undefined, the reason in notes
    truncated: tuple[str, ...]  # the roles that saw less than the whole text
    notes: dict[str, str]  # column → why it is None


@dataclass(frozen=True, slots=True)
class Approximation:
    """How the neighbours were searched, and how well: written into the run file."""

    library: str
    index: str
    sample_rows: int  # drawn at random; their neighbours were found exactly too
    recall: float  # share of their true nearest neighbours that were found, 0..1
    mean_error: float  # of their distances to the farthest of these, relative to the true distance
    largest_error: float
