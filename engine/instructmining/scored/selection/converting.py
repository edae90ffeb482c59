"""Writes the kept rows of a selection in the shape that a trainer reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import NoneType

from instructmining.errors import InputError, RowError, SelectionError
from instructmining.errors.arguments import check_type
from instructmining.errors.names import no_such
from instructmining.reading.formats import FieldOptions, format_name
from instructmining.reading.parsing import RowParser
from instructmining.reading.values import dumps
from instructmining.scored.scored_file import ScoredRows
from instructmining.tables import counted
from instructmining.types import Example, SourceRow
from instructmining.writing.shapes import TARGETS, GivenPrompt, TargetName, alternates, target_name, written_as

_TOOLS = "tools"
_NOTHING: tuple[object, ...] = (None, "", [], {})


@dataclass(frozen=True, slots=True)
class Conversion:
    """The shape that kept rows are written in."""

    target: TargetName  # messages, alpaca, sharegpt or preference
    fields: FieldOptions | None = None  # how rows are read; by default as score read them, else detected in each row
    keep: tuple[str, ...] = ()  # fields of the row that are written beside those of the shape

    def __post_init__(self) -> None:
        """Check the names.

        Raises:
            SelectionError: a value has the wrong type.
            OutputError: the shape is not known.
        """
        check_type("target", self.target, str, wanted=f"one of {', '.join(TARGETS)}", error=SelectionError)
        target_name(self.target)
        check_type("fields", self.fields, (FieldOptions, NoneType), wanted="FieldOptions or None", error=SelectionError)
        check_type("keep", self.keep, (list, tuple), wanted="a list of names, as ['id']", error=SelectionError)
        for name in self.keep:
            check_type("keep", name, str, wanted="names of fields as text", error=SelectionError)
        object.__setattr__(self, "keep", tuple(dict.fromkeys(self.keep)))


class Converter:
    """Converts the rows of a scored file, one by one, and notes what it leaves out.

    Attributes:
        left_out: rows by field, or key of a turn as ``messages[].name``, that the shape has no place for.
        kept: rows by field of ``keep`` that they have.
        uneven: rows in which user and assistant do not speak in turn.
    """

    def __init__(self, source: ScoredRows, conversion: Conversion, *, keep_scores: bool) -> None:
        """Prepare to convert.

        Args:
            source: the scored file.
            conversion: the shape.
            keep_scores: whether the columns of ``score`` are written too, after all other fields.
        """
        self._source = source
        self._conversion = conversion
        self._keep_scores = keep_scores
        self._options = conversion.fields or fields_of_run(source.run)
        self._parsers: dict[str, RowParser] = {}
        self.left_out: Counter[str] = Counter()
        self.kept: Counter[str] = Counter()
        self.uneven = 0
        self._rows = 0

    def line(self, row: SourceRow) -> bytes:
        """Return a row in the shape, as JSON without a newline.

        Raises:
            SelectionError: the row has no example, or the shape cannot hold it.
        """
        try:
            return dumps(self._converted(row))
        except (RowError, InputError) as error:
            where = f"{row.source}, line {row.line}"
            raise SelectionError(f"{where}: cannot be written as {self._conversion.target}: {error}") from error

    def _converted(self, row: SourceRow) -> dict[str, object]:
        own = self._source.own_fields(row)
        if self._source.is_delimited:  # fields that only rows of another format have
            own = {name: value for name, value in own.items() if value != ""}
        bare = replace(row, fields=own)
        parser = self._parser(bare)
        example = parser.example(bare)
        taken = parser.shape.assigned(own, self._options.ignore)
        given = _given(own, taken.get("prompt"), taken.get("context"))
        written = written_as(self._conversion.target, example, tools=own.get(_TOOLS), given=given)
        fields = written.fields
        for name in self._conversion.keep:
            if name in own:
                if name in fields:
                    raise RowError(f"the shape has a field {name!r} of its own; do not keep the row's")
                fields[name] = own[name]
                self.kept[name] += 1
        read = {*taken.values(), _TOOLS}
        self.left_out.update(written.lost)
        self.left_out.update(
            name for name, value in own.items() if name not in read and name not in fields and value not in _NOTHING
        )
        self.uneven += not _is_even(example)
        self._rows += 1
        if self._keep_scores:
            fields |= {name: value for name, value in row.fields.items() if name not in own}
        return fields

    def _parser(self, row: SourceRow) -> RowParser:
        """Return the parser for a row; rows of several files may be of several shapes."""
        shape = self._options.shape_of([row])
        return self._parsers.setdefault(shape.name, RowParser(shape, self._options))

    def check(self) -> None:
        """Check, after the last row, that some row had each field that is kept.

        Raises:
            SelectionError: a field was in none.
        """
        missing = [name for name in self._conversion.keep if not self.kept[name]]
        if missing and self._rows:
            there = [*self.kept, *(name for name in self.left_out if "[]" not in name)]
            raise SelectionError(f"{self._source.name}: --keep-fields: {no_such('field', missing[0], there)}")

    def remarks(self) -> Iterator[str]:
        """Yield lines about what is not in the rows written, or may surprise a trainer."""
        if self.left_out:
            named = ", ".join(f"{name} ({counted(rows)})" for name, rows in sorted(self.left_out.items()))
            yield f"left out of rows written as {self._conversion.target}: {named}{self._how_to_keep()}"
        if self.uneven and self._conversion.target in {"messages", "sharegpt"}:
            yield (
                f"in {self.uneven:,} rows user and assistant do not speak in turn up to a last response: "
                "LLaMA-Factory leaves such rows out, and some chat templates refuse them"
            )

    def _how_to_keep(self) -> str:
        fields = sorted(name for name in self.left_out if "[]" not in name)
        return f"; --keep-fields {','.join([*self._conversion.keep, *fields])} keeps fields" if fields else ""

    def as_json(self) -> dict[str, object]:
        """Return what the selection file says."""
        return {
            "as": self._conversion.target,
            "keep_fields": list(self._conversion.keep),
            "left_out": dict(sorted(self.left_out.items())),
            "uneven": self.uneven,
        }


def fields_of_run(run: Mapping[str, object]) -> FieldOptions:
    """Return how ``score`` read the fields of rows, as its run file says it; by default they are detected."""
    match run:
        case {"settings": {"format": str() | None as name, "map": dict() as mapped}}:
            with suppress(InputError):
                return FieldOptions(format_name(name), mapped)
    return FieldOptions()


def _given(fields: Mapping[str, object], prompt: str | None, context: str | None) -> GivenPrompt | None:
    of_prompt = fields.get(prompt) if prompt is not None else None
    of_context = fields.get(context) if context is not None else None
    return GivenPrompt(of_prompt, of_context) if isinstance(of_prompt, str) and isinstance(of_context, str) else None


def _is_even(example: Example) -> bool:
    return alternates(example.turns) and (example.rejected is None or alternates(example.rejected))
