"""Converts JSON lines to Parquet: for each field a type that holds all its values, row groups of a fixed size."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeAlias

from instructmining.errors import OutputError
from instructmining.reading.arrow_values import JSON_FIELD, first_line
from instructmining.reading.values import dumps, loads

if TYPE_CHECKING:
    import pyarrow as pa

MORE_FIELDS = b"instructmining:more_fields"  # in a field's metadata: it holds the fields without a column of their own
GROUP_ROWS = 10_000
GROUP_BYTES = 64 << 20  # of JSON; a row group ends at whichever limit is reached first
_MOST_FIELDS = 4096  # fields of a row
_MOST_COLUMNS = 1024  # columns of numbers or texts per nested object; an object with more is kept as JSON
_MOST_KEYS = 256  # keys of a nested object; an object with more is a mapping, which is kept as JSON
_DEEPEST = 16  # nested lists and objects
_LEVEL = 3  # compression level of zstd

Kind: TypeAlias = Literal["number", "whole", "texts", "json"]
_FITS: Mapping[str, frozenset[str]] = {
    "number": frozenset({"int", "float"}),
    "whole": frozenset({"int"}),
    "texts": frozenset({"list"}),
}


class Shape:
    """What the values of a field have in common, learned one by one."""

    __slots__ = ("_depth", "_fields", "_items", "_kinds", "_largest", "_smallest")

    def __init__(self, depth: int = 0) -> None:
        """Start without values, at a depth of nesting."""
        self._depth = depth
        self._kinds: set[str] = set()
        self._smallest = self._largest = 0  # smallest and largest integer
        self._items: Shape | None = None
        self._fields: dict[str, Shape] = {}

    def add(self, value: object) -> None:
        """Learn from one more JSON value."""
        if value is None:
            return
        if isinstance(value, str):
            self._kinds.add("text")
        elif isinstance(value, bool):
            self._kinds.add("bool")
        elif isinstance(value, int):
            self._kinds.add("int")
            self._smallest, self._largest = min(value, self._smallest), max(value, self._largest)
        elif isinstance(value, float):
            self._kinds.add("float")
        elif self._depth == _DEEPEST:
            self._kinds.add("deep")
        elif isinstance(value, list):
            self._kinds.add("list")
            self._items = self._items or Shape(self._depth + 1)
            for item in value:
                self._items.add(item)
        elif isinstance(value, dict):
            self._kinds.add("object")
            for name, inner in value.items():
                if name not in self._fields and len(self._fields) == _MOST_KEYS:
                    self._kinds.add("mapping")
                    return
                self._fields.setdefault(name, Shape(self._depth + 1)).add(inner)

    def type(self, wanted: Kind | None = None) -> pa.DataType | None:
        """Return an Arrow type that holds all the values; None where only JSON does.

        Args:
            wanted: the type known beforehand; used where the values fit it.
        """
        import pyarrow as pa  # noqa: PLC0415 - only where tables are written

        if wanted == "json":
            return None
        if wanted is not None and self._fits(wanted):
            return {"number": pa.float64(), "whole": pa.int64(), "texts": pa.list_(pa.string())}[wanted]
        if self._kinds == {"list"} and self._items is not None:
            item = self._items.type()
            return None if item is None else pa.list_(item)
        if self._kinds == {"object"} and self._fields:
            fields = {name: shape.type() for name, shape in self._fields.items()}
            few = None not in fields.values() and sum(map(_columns_of, fields.values())) <= _MOST_COLUMNS
            return pa.struct(list(fields.items())) if few else None
        if self._kinds <= {"int", "float"} and self._kinds:
            return self._number()
        # A field without values is text: other tools know no column without a type.
        return {frozenset(): pa.string(), frozenset({"text"}): pa.string(), frozenset({"bool"}): pa.bool_()}.get(
            frozenset(self._kinds)
        )

    def _fits(self, wanted: Kind) -> bool:
        most = 2**63 - 1 if wanted == "whole" else 2**53
        return self._kinds <= _FITS[wanted] and -most <= self._smallest and self._largest <= most

    def _number(self) -> pa.DataType | None:
        import pyarrow as pa  # noqa: PLC0415 - only where tables are written

        if self._kinds == {"int"}:
            if self._smallest >= -(2**63) and self._largest < 2**63:
                return pa.int64()
            return pa.uint64() if self._smallest >= 0 and self._largest < 2**64 else None
        return pa.float64() if self._fits("number") else None


def write_parquet(
    lines: BinaryIO, target: BinaryIO, known: Mapping[str, Kind], about: Mapping[str, bytes] | None = None
) -> None:
    """Write rows, read twice: for the types and for the values. Memory holds one row group.

    The bytes depend only on the rows and the version of pyarrow.

    Args:
        lines: one JSON object per line, at the beginning; seekable.
        target: the file to write.
        known: types known beforehand, by field name.
        about: metadata of the schema.

    Raises:
        OutputError: the values do not fit in a table.
        OSError: the disk refuses it.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are written
    import pyarrow.parquet as pq  # noqa: PLC0415 - only where tables are written

    begin = lines.tell()
    schema = schema_of((loads(line) for line in lines), known).with_metadata(about or None)
    lines.seek(begin)
    try:
        with pq.ParquetWriter(target, schema, compression="zstd", compression_level=_LEVEL) as writer:
            for group in _groups(lines):
                writer.write_table(table_of(group, schema), row_group_size=GROUP_ROWS)
    except pa.ArrowException as error:
        raise OutputError(f"the rows do not go into Parquet: {first_line(error)}; write .jsonl") from error


def schema_of(rows: Iterable[Mapping[str, object]], known: Mapping[str, Kind]) -> pa.Schema:
    """Return the fields of all rows in order of appearance, known ones last, with types that hold all values.

    A field is text that holds JSON, marked so in its metadata, where its values have no common type, it has integers
    beyond 64 bits or objects with no or too many keys, or its name is known for that. If rows have too many fields for
    a table, the last ones to appear share one such field, ``more_fields``.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are written

    shapes: dict[str, Shape] = {}
    more = False
    for row in rows:
        for name, value in row.items():
            if name not in shapes:
                if len(shapes) >= _MOST_FIELDS and name not in known:
                    more = True
                    continue
                shapes[name] = Shape()
            shapes[name].add(value)
    # Fields added to a row come after its own fields, also after those that only later rows have.
    ordered = [name for name in shapes if name not in known] + [name for name in shapes if name in known]
    json_field = partial(pa.field, type=pa.string(), metadata={JSON_FIELD: b"1"})
    fields = []
    for name in ordered:
        kind = shapes[name].type(known.get(name))
        fields.append(pa.field(name, kind) if kind is not None else json_field(name))
    if more:
        fields.append(json_field(_free_name(shapes)).with_metadata({JSON_FIELD: b"1", MORE_FIELDS: b"1"}))
    return pa.schema(fields)


def table_of(rows: Sequence[Mapping[str, object]], schema: pa.Schema) -> pa.Table:
    """Return rows as a table of the schema; a field that a row lacks is null."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are written

    columns = []
    names = frozenset(schema.names)
    for field in schema:
        if field.metadata and MORE_FIELDS in field.metadata:
            values: list[object] = [{name: row[name] for name in row if name not in names} or None for row in rows]
        else:
            values = [row.get(field.name) for row in rows]
        if field.metadata and JSON_FIELD in field.metadata:
            values = [None if value is None else dumps(value).decode() for value in values]
        columns.append(pa.array(values, field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def _columns_of(kind: pa.DataType) -> int:
    """Return the number of columns of numbers or texts."""
    return sum(_columns_of(kind.field(at).type) for at in range(kind.num_fields)) if kind.num_fields else 1


def _free_name(taken: Container[str]) -> str:
    """Return a name for the field of further fields that no row uses."""
    names = ("more_fields", *(f"more_fields_{number}" for number in range(2, _MOST_FIELDS + 3)))
    return next(name for name in names if name not in taken)


def _groups(lines: Iterable[bytes]) -> Iterator[list[dict[str, object]]]:
    rows: list[dict[str, object]] = []
    size = 0
    for line in lines:
        rows.append(loads(line))
        size += len(line)
        if len(rows) == GROUP_ROWS or size >= GROUP_BYTES:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows
