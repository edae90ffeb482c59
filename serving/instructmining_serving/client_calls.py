"""What both clients share: what is sent, what answers mean, and when a request is tried again."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx2

from instructmining.errors import InstructMiningError

Rows: TypeAlias = Iterable[Mapping[str, object]] | AsyncIterable[Mapping[str, object]]
_RETRIED = frozenset({429, 502, 503, 504})
_FIRST_S, _LONGEST_S = 0.25, 30.0  # between two tries
_PIECE_ROWS, _PIECE_BYTES, PIECES = 64, 256 << 10, 2  # of rows sent as lines; the last: pieces at a time


class ServiceError(InstructMiningError):
    """A service refused a request, or does not answer.

    Attributes:
        status: of the answer; None where none came.
        kind: what is wrong, such as "invalid_rows" or "overloaded".
        rows: number of each bad row, from 0, and why it is bad.
    """

    def __init__(
        self, message: str, status: int | None = None, kind: str = "no_answer", rows: Mapping[int, str] | None = None
    ) -> None:
        """Take what the answer said."""
        super().__init__(message)
        self.status, self.kind, self.rows = status, kind, dict(rows or {})


@dataclass(frozen=True, slots=True)
class Result:
    """The columns of a row."""

    columns: Mapping[str, float | int | None]  # None where undefined, with the reason in score_notes
    score_notes: Mapping[str, str]
    truncated: tuple[str, ...]  # roles whose text was truncated
    unread: tuple[str, ...]  # fields of the row that hold text and are not read


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row of many that cannot be scored."""

    row: int  # its number, from 0
    reason: str
    kind: str  # what is wrong, such as "invalid_rows"


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a request is tried, with twice the time between tries each time, or what the service asks for."""

    tries: int = 5


class Calls:
    """What both clients share: requests, and what their answers mean."""

    def __init__(self, token: str | None, retries: Retries) -> None:
        headers = {} if token is None else {b"authorization": f"Bearer {token}".encode()}
        self._of_json = {**headers, b"content-type": b"application/json"}
        self._of_lines = {**headers, b"content-type": b"application/x-ndjson"}
        self._retries = retries

    def _waits(self, number: int, answer: httpx2.Response | None) -> float | None:
        """Return the seconds to wait before the next try; None where there is none."""
        if number + 1 >= self._retries.tries or (answer is not None and answer.status_code not in _RETRIED):
            return None
        asked = str(answer.headers.get("retry-after", "")) if answer is not None else ""
        if asked.isdecimal():
            return min(float(asked), _LONGEST_S)
        return min(_FIRST_S * (1 << number), _LONGEST_S) * random.uniform(0.5, 1)


def content_of(answer: httpx2.Response) -> dict[str, Any]:
    """Return the answer's object.

    Raises:
        ServiceError: the service refused the request.
    """
    try:
        found = answer.json()
    except ValueError as error:
        raise ServiceError(f"{answer.url}: {answer.status_code}, not JSON", answer.status_code) from error
    if answer.is_success:
        return dict(found)
    said = found.get("error", {}) if isinstance(found, dict) else {}
    rows = {row["row"]: row["reason"] for row in said.get("rows", [])}
    message = said.get("message", answer.reason_phrase)
    raise ServiceError(f"{answer.url}: {answer.status_code}, {message}", answer.status_code, said.get("type", ""), rows)


def results_of(content: Mapping[str, Any]) -> list[Result]:
    """Return the results of an answer."""
    return [_result(one) for one in content["results"]]


def _result(said: Mapping[str, Any]) -> Result:
    return Result(said["columns"], said["score_notes"], tuple(said["truncated"]), tuple(said["unread"]))


class Piece:
    """Some of many rows, sent as lines; what an answer leaves out is sent again."""

    def __init__(self, first: int) -> None:
        """Take the number of its first row among all."""
        self.found: list[Result | BadRow] = []
        self._first = first
        self._lines: list[bytes] = []
        self._bytes = 0

    def add(self, row: Mapping[str, object]) -> bool:
        """Add a row; return whether the piece is large enough."""
        self._lines.append(json.dumps(row).encode() + b"\n")
        self._bytes += len(self._lines[-1])
        return len(self._lines) >= _PIECE_ROWS or self._bytes >= _PIECE_BYTES

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._lines)

    @property
    def end(self) -> int:
        """The number of the row after its last one."""
        return self._first + len(self._lines)

    def content(self) -> bytes:
        """Return the lines that have no answer."""
        return b"".join(self._lines[len(self.found) :])

    def take(self, answer: httpx2.Response) -> ServiceError | None:
        """Take the answers to lines; return why some lines have none, if so.

        Raises:
            ServiceError: the service refused all.
        """
        if not answer.is_success:
            content_of(answer)
        why, kind = "the answer ends too early", "no_answer"
        for line in answer.content.splitlines():
            said = json.loads(line)
            error = said.get("error")
            if error is None:
                self.found.append(_result(said))
            elif "line" in said:
                self.found.append(BadRow(self._first + len(self.found), error["message"], error["type"]))
            else:
                why, kind = error["message"], error["type"]
        if len(self.found) == len(self._lines):
            return None
        return ServiceError(f"{answer.url}: {why}", answer.status_code, kind)


class Pieces:
    """Divides rows into pieces that are sent whole before their answers are read, as HTTP clients do."""

    def __init__(self) -> None:
        """Begin with no row."""
        self._piece = Piece(0)

    def add(self, row: Mapping[str, object]) -> list[Piece]:
        """Add a row; return the piece that is large enough, if any."""
        return self.last() if self._piece.add(row) else []

    def last(self) -> list[Piece]:
        """Return the piece that has begun, if any, and begin another."""
        piece = self._piece
        self._piece = Piece(piece.end)
        return [piece] if len(piece) else []


def pieces(rows: Iterable[Mapping[str, object]]) -> Iterator[Piece]:
    """Yield rows in pieces."""
    divided = Pieces()
    for row in rows:
        yield from divided.add(row)
    yield from divided.last()


async def pieces_as_they_come(rows: Rows) -> AsyncIterator[Piece]:
    """Yield rows in pieces."""
    divided = Pieces()
    async for row in _each(rows):
        for piece in divided.add(row):
            yield piece
    for piece in divided.last():
        yield piece


async def _each(rows: Rows) -> AsyncIterator[Mapping[str, object]]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


def body_of(rows: Sequence[Mapping[str, object]], amounts: Mapping[str, float | None]) -> bytes:
    """Return what is sent to score rows, or to select among them."""
    given = {name: value for name, value in amounts.items() if value is not None}
    return json.dumps({"examples": list(rows), **given}).encode()
