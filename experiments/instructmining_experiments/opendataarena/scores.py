"""Reads and writes OpenDataArena's score files: lines of ``{"id": …, "scores": {…}}``.

Sources:
    github.com/OpenDataArena/ODA-DataScorer: ``main.py`` (``pointwise_scores.jsonl``), ``utils/utils_jsonl.py`` (ids),
    ``scorers/`` (one file of ``{"id", "score"}`` a scorer, ``error`` where it failed), and
    ``llm_as_judge/output/example_input_scored.jsonl``. github.com/OpenDataArena/R-Select: ``README.md`` (the pool).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self, TypeAlias, TypeGuard

from instructmining.errors import InputError, SelectionError
from instructmining.errors.arguments import shown
from instructmining.reading.rows import open_rows
from instructmining.reading.values import dumps
from instructmining.scored.line_files import check_row_file, row_file
from instructmining.scored.scored_file import ScoredRows
from instructmining.types import SCORE_COLUMNS, SourceRow
from instructmining.writing.atomic import Placement

PREFIX = "oda."  # of the fields that hold imported scores
# Our name → theirs, where both compute the same quantity, though by other models. Not among them: their MTLD and PPL,
# which are of the whole row, ours of the response; their KNN, a mean over the neighbours, ours the distance to one.
SHARED = MappingProxyType(
    {
        "ifd": "IFD",
        "naturalness": "UniEval_Dialog_Naturalness",
        "coherence": "UniEval_Dialog_Coherence",
        "understandability": "UniEval_Dialog_Understandability",
    }
)
TOKENS = "Token_Length"  # of instruction, input and output
_SUMMED = ("input_length", "output_length")
_WANTED = 'wanted lines such as {"id": 0, "scores": {"IFD": 0.7}}'
_UNDEFINED = MappingProxyType(dict.fromkeys(("IFD", "IFDScorer", "MTLD", "MtldScorer"), -1))  # where there is no value

Number: TypeAlias = float | int | None


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    rows: int
    names: tuple[str, ...]  # of the scores
    null: Mapping[str, int]  # score → rows without a value


@dataclass(frozen=True, slots=True)
class Imported:
    """What was added to the rows."""

    rows: int
    fields: tuple[str, ...]
    null: Mapping[str, int]  # field → rows without a value
    left_out: tuple[str, ...]  # of the score files, what is no number


def export_scores(
    scored: str, out: str, *, with_rows: bool = False, prefix: str = "", overwrite: bool = False
) -> Exported:
    """Write the columns of a scored file as ``{"id", "scores"}`` lines, in its order.

    The id is the row's own, or its number from 0 where it has none. A null stays null.

    Args:
        scored: a file that ``score`` wrote.
        out: a path ending in .jsonl, .parquet, .csv or .tsv, text also .gz or .zst; "-" for standard output.
        with_rows: also write the fields of the rows, as R-Select's pool has them.
        prefix: of the columns of ``score``.
        overwrite: replace OUT.

    Raises:
        InputError: the file cannot be read, an id is neither text nor a whole number, or two rows have the same.
        SelectionError: a line is not a row, or has no columns.
        OutputError: OUT exists, or cannot be written.
    """
    source = ScoredRows(scored, prefix=prefix)
    if source.fields and not source.columns:
        raise SelectionError(f"{source.name}: has no column of score; score it first, or name its --prefix")
    ids: set[str] = set()
    null: Counter[str] = Counter()
    names: dict[str, None] = {}
    with _lines_to(out, reads=source.files, overwrite=overwrite) as write:
        for number, row in enumerate(source.rows()):
            own_id = _id_of(row, number)
            if str(own_id) in ids:
                raise InputError(_doubled(row, own_id))
            ids.add(str(own_id))
            scores = _theirs(row, prefix)
            names.update(dict.fromkeys(scores))
            null.update(name for name, value in scores.items() if value is None)
            own = source.own_fields(row) if with_rows else {}
            write(dumps({**own, "id": own_id, "scores": _merged(row, own.get("scores"), scores)}))
    return Exported(len(ids), tuple(names), dict(null))


def _theirs(row: SourceRow, prefix: str) -> dict[str, Number]:
    """Return the columns of a row by the names that OpenDataArena has for them, ours where it has none."""
    columns = {name: row.fields[f"{prefix}{name}"] for name in SCORE_COLUMNS if f"{prefix}{name}" in row.fields}
    found: dict[str, Number] = {}
    for name, value in columns.items():
        if not _is_score(value):
            raise SelectionError(f"{row.source}, line {row.line}: column {name!r} is {shown(value)}, wanted a number")
        found[SHARED.get(name, name)] = value
    lengths = [found.get(name) for name in _SUMMED]
    if all(length is not None for length in lengths):
        found[TOKENS] = sum(length for length in lengths if length is not None)
    return found


def _merged(row: SourceRow, before: object, scores: Mapping[str, Number]) -> dict[str, object]:
    """Return the scores that a row had and those to add.

    Raises:
        InputError: it had one of the same name, or ``scores`` is no object.
    """
    there = before if before is not None else {}
    if not isinstance(there, dict):
        raise InputError(f"{row.source}, line {row.line}: field 'scores' is {shown(before)}, wanted an object")
    if twice := [name for name in scores if name in there]:
        raise InputError(f"{row.source}, line {row.line}: field 'scores' has {twice[0]!r} already; export without rows")
    return {**there, **scores}


def import_scores(rows: str, files: Sequence[str], out: str, *, overwrite: bool = False) -> Imported:
    """Write rows with the scores of OpenDataArena as further fields ``oda.NAME``, matched by id.

    Memory holds the ids of the score files, with the place of their line, and one row at a time. The rows' bytes stay
    as they are before the added fields.

    Args:
        rows: a scored file, or any file of rows that ``score`` reads.
        files: score files, as JSON lines without compression.
        out: a path ending in .jsonl, .parquet, .csv or .tsv, text also .gz or .zst; "-" for standard output.
        overwrite: replace OUT.

    Raises:
        InputError: a file cannot be read, or an id is missing, unknown or there twice.
        OutputError: OUT exists, or cannot be written.
    """
    null: Counter[str] = Counter()
    count = 0
    with ExitStack() as stack:
        scores = [stack.enter_context(ScoreFile(file)) for file in files]
        names = _names(scores)
        write = stack.enter_context(_lines_to(out, reads=[rows, *files], overwrite=overwrite))
        for count, row in enumerate(rows_of(rows), 1):
            own_id = str(_id_of(row, count - 1))
            added = dict.fromkeys(names, None) | {
                f"{PREFIX}{name}": value for file in scores for name, value in file.take(own_id, row).items()
            }
            null.update(name for name, value in added.items() if value is None)
            write(_with(row, added))
        for file in scores:
            file.check_taken(rows)
    left_out = tuple(dict.fromkeys(name for file in scores for name in file.left_out))
    return Imported(count, tuple(names), dict(null), left_out)


def _names(files: Sequence[ScoreFile]) -> list[str]:
    """Return the names of the fields to add.

    Raises:
        InputError: two files have a score of the same name, or there is none.
    """
    owner: dict[str, str] = {}
    for file in files:
        for name in file.names:
            if name in owner:
                raise InputError(f"{file.path}: has the score {name!r}, as {owner[name]} does; give one of both")
            owner[name] = file.path
        if not file.names:
            raise InputError(f"{file.path}: has no score that is a number; {_WANTED}")
    return [f"{PREFIX}{name}" for name in owner]


def _with(row: SourceRow, added: Mapping[str, Number]) -> bytes:
    """Return a row's bytes with further members at the end."""
    if twice := [name for name in added if name in row.fields]:
        raise InputError(f"{row.source}, line {row.line}: has a field {twice[0]!r} already; import it once")
    return row.raw[: row.raw.rindex(b"}")] + b"," * bool(row.fields) + dumps(added)[1:]


class ScoreFile:
    """The scores in one file, found by id; a context manager.

    Attributes:
        path: of the file.
        names: of all scores that are numbers, in order.
        left_out: names of what is no number.
    """

    def __init__(self, path: str) -> None:
        """Read all ids and names.

        Raises:
            InputError: the file cannot be read, a line is not one of scores, or an id is there twice.
        """
        self.path = path
        self._own_name = Path(path).name.partition(".")[0]  # of a file of one scorer
        self._places: dict[str, int] = {}  # id → byte at which its line begins; below 0 once a row took it
        names: dict[str, None] = {}
        left_out: dict[str, None] = {}
        try:
            self._file = Path(path).open("rb")  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error
        with ExitStack() as stack:
            stack.callback(self._file.close)
            begin = 0
            for line, text in enumerate(self._file, 1):
                if text.strip():
                    own_id, values = self._parsed(text, f"{path}, line {line}")
                    if own_id in self._places:
                        raise InputError(f"{path}, line {line}: has the id {own_id!r} of an earlier line")
                    self._places[own_id] = begin
                    for name, value in values:
                        (names if _is_score(value) else left_out)[name] = None
                begin += len(text)
            stack.pop_all()
        self.names, self.left_out = tuple(names), tuple(name for name in left_out if name not in names)

    def __enter__(self) -> Self:
        """Return the file."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self._file.close()

    def take(self, own_id: str, row: SourceRow) -> dict[str, Number]:
        """Return the scores of a row, once.

        Raises:
            InputError: there are none, or an earlier row had the same id.
        """
        place = self._places.get(own_id)
        if place is None:
            raise InputError(f"{row.source}, line {row.line}: {self.path} has no scores for its id {own_id!r}")
        if place < 0:
            raise InputError(_doubled(row, own_id))
        self._places[own_id] = -1
        self._file.seek(place)
        _, values = self._parsed(self._file.readline(), self.path)
        return {name: value for name, value in values if _is_score(value)}

    def check_taken(self, rows: str) -> None:
        """Check that every line was of a row.

        Raises:
            InputError: one was not.
        """
        unknown = [own_id for own_id, place in self._places.items() if place >= 0]
        if unknown:
            more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
            raise InputError(
                f"{self.path}: has scores for the id {unknown[0]!r}{more}, which no row of {rows} has; give the file "
                "that was scored there"
            )

    def _parsed(self, text: bytes, where: str) -> tuple[str, list[tuple[str, object]]]:
        """Return the id of a line, and its values by name."""
        try:
            content = json.loads(text, parse_constant=lambda _: None)  # their writer writes NaN
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: is not JSON: {error}; {_WANTED}") from error
        if not isinstance(content, dict) or content.get("id") is None:
            raise InputError(f"{where}: has no 'id'; {_WANTED}")
        own_id = content.pop("id")
        if isinstance(own_id, bool) or not isinstance(own_id, (str, int)):
            raise InputError(f"{where}: id is {shown(own_id)}, wanted text or a whole number")
        scores = content.get("scores", {self._own_name: content})  # a file of one scorer has them at the top
        if not isinstance(scores, dict):
            raise InputError(f"{where}: 'scores' is {shown(scores)}, wanted an object")
        return str(own_id), list(flat(scores))


def flat(scores: Mapping[str, object], name: str = "") -> Iterator[tuple[str, object]]:
    """Yield all values in nested objects; ``{"PPLScorer": {"score": 1}}`` as ``PPLScorer``, others as ``a.b``."""
    failed = "error" in scores  # the number beside it is a filler
    for key, value in scores.items():
        inner = key if not name else name if key == "score" else f"{name}.{key}"
        if isinstance(value, dict):
            yield from flat(value, inner)
        elif key != "error":
            yield inner, None if failed or value == _UNDEFINED.get(inner, ()) else value


def rows_of(file: str) -> Iterator[SourceRow]:
    """Yield the rows of a file of any kind.

    Raises:
        InputError: the file cannot be read, or a row is bad.
    """
    for row in open_rows(file):
        if not isinstance(row, SourceRow):
            raise InputError(f"{row.source}, line {row.line}: {row.reason}")
        yield row


def _id_of(row: SourceRow, number: int) -> str | int:
    """Return the id of a row as ODA-DataScorer does: its own, or its number from 0."""
    own_id = row.fields.get("id")
    if own_id is None:
        return number
    if isinstance(own_id, bool) or not isinstance(own_id, (str, int)):
        raise InputError(f"{row.source}, line {row.line}: id is {shown(own_id)}, wanted text or a whole number")
    return own_id


def _doubled(row: SourceRow, own_id: str | int) -> str:
    return f"{row.source}, line {row.line}: has the id {str(own_id)!r} of an earlier row; give each row its own"


def is_number(value: object) -> TypeGuard[float | int]:
    """Return whether a JSON value is a number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_score(value: object) -> TypeGuard[Number]:
    return value is None or is_number(value)


@contextmanager
def _lines_to(out: str, *, reads: Sequence[str | Path], overwrite: bool) -> Iterator[Callable[[bytes], None]]:
    """Yield a function that takes the lines of OUT, which appears when all were written."""
    target = out if out == "-" else check_row_file(out)
    with Placement([target], overwrite=overwrite, reads=reads) as files:
        with row_file(files, target) as stream:

            def write(line: bytes) -> None:
                stream.write(line + b"\n")

            yield write
        files.put()
