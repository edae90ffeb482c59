"""Converts Arrow's values to JSON: each row of a record batch as a dict and as its bytes.

====================================  ==========================================================
Arrow                                 JSON
====================================  ==========================================================
null                                  null
boolean, integers, text of any kind   as they are; a dictionary's value in place of its number
floats                                numbers; NaN and infinity, which JSON lacks, null
decimals                              numbers with all their digits
dates, times, timestamps              ISO 8601, to the microsecond, with the zone's offset
durations                             ISO 8601 in seconds, ``PT1.5S``
binary                                text where it is UTF-8, else ``{"base64": "…"}``
binary of a fixed size                ``{"base64": "…"}``: an id or a digest, some of which would be
                                      UTF-8 by chance (of random 16 bytes 1 in 10,000)
UUIDs                                 text
lists of any kind, structs            arrays, objects
maps                                  objects where the keys are text and differ, else arrays of
                                      ``{"key", "value"}``
text marked as JSON                   the value that it holds
====================================  ==========================================================
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, TypeAlias

import orjson

from instructmining.reading.values import dumps, loads

if TYPE_CHECKING:
    import pyarrow as pa

JSON_FIELD = b"instructmining:json"  # in a field's metadata: its texts are JSON
_FIRST_ROWS = 16  # converted together while their length is unknown
_PART_BYTES = 8 << 20  # bytes of the rows that are converted together
_MICROSECOND = timedelta(microseconds=1)

Convert: TypeAlias = Callable[[object], object]
JsonRow: TypeAlias = tuple[dict[str, object], bytes]  # the fields, and the same object as JSON bytes


@dataclass(frozen=True, slots=True)
class NoJson:
    """A row that JSON cannot hold."""

    reason: str
    raw: bytes  # JSON bytes of the columns that JSON can hold


class RowMaker:
    """Makes rows from the batches of one table."""

    def __init__(self, schema: pa.Schema) -> None:
        """Prepare one converter per column.

        Args:
            schema: schema of the batches; column names differ.
        """
        self.schema = schema
        self._at_once = _FIRST_ROWS
        self._columns = [_Column(field) for field in schema]
        self._plain = all(column.plain for column in self._columns)

    def rows(self, batch: pa.RecordBatch) -> Iterator[JsonRow | NoJson]:
        """Yield the rows of a batch in order; a row that cannot be read does not affect the others."""
        at = 0
        while at < batch.num_rows:
            part = batch.slice(at, self._at_once)
            at += part.num_rows
            yield from self._made(part)

    def _made(self, batch: pa.RecordBatch) -> list[JsonRow | NoJson]:
        try:
            batch.validate(full=True)  # offsets and UTF-8, which nothing has checked so far
            fields = list(_by_row(self._columns, batch))
            raw = [dumps(row, default=written) for row in fields]
            rows: list[JsonRow | NoJson] = list(zip(fields if self._plain else map(loads, raw), raw, strict=True))
        except _no_json():
            return [self._alone(batch.slice(number, 1)) for number in range(batch.num_rows)]
        # A few bytes of a file may become a long text in every row: the size of the last rows limits the next.
        self._at_once = max(1, _PART_BYTES * len(raw) // max(1, sum(map(len, raw))))
        return rows

    def _alone(self, batch: pa.RecordBatch) -> JsonRow | NoJson:
        """Convert a batch of one row, column by column."""
        reasons = []
        fields: dict[str, object] = {}
        for number, column in enumerate(self._columns):
            single = batch.select([number])
            try:
                single.validate(full=True)
                (value,) = column.values(single.column(0))
                fields[column.name] = loads(dumps(value, default=written))
            except _no_json() as error:
                reasons.append(f"column {column.name!r}: {first_line(error)}")
        raw = dumps(fields)
        return NoJson("; ".join(reasons), raw) if reasons else (fields, raw)


class _Column:
    """How the values of one column are read."""

    def __init__(self, field: pa.Field) -> None:
        import pyarrow as pa  # noqa: PLC0415 - only where tables are read

        kind = field.type
        self.name: str = field.name
        self._json = JSON_FIELD in (field.metadata or {}) or getattr(kind, "extension_name", "") == "arrow.json"
        # Arrow does not decode run-end encoded dictionary indices; Python does, value by value.
        self._run_ends = pa.types.is_run_end_encoded(kind) and not pa.types.is_dictionary(kind.value_type)
        if self._run_ends:
            kind = kind.value_type
        wanted = _readable(kind)
        self._cast = wanted if wanted != kind else None
        self._float = pa.types.is_floating(wanted)
        self._convert = _converter(wanted)
        self.plain = self._float or self._json or _is_plain(wanted)

    def values(self, array: pa.Array) -> list[object]:
        """Return Python objects that JSON has or that :func:`written` converts."""
        import pyarrow.compute as pc  # noqa: PLC0415 - only where tables are read

        if self._run_ends:
            array = pc.run_end_decode(array)
        if self._cast is not None:
            array = array.cast(self._cast, safe=False)
        if self._float:
            array = pc.if_else(pc.is_finite(array), array, None)
        values: list[object] = array.to_pylist()
        if self._json:
            return [_parsed(value) for value in values]
        return values if self._convert is None else [self._convert(value) for value in values]


def first_line(error: BaseException) -> str:
    """Return an error's message as one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _by_row(columns: list[_Column], batch: pa.RecordBatch) -> Iterator[dict[str, object]]:
    names = [column.name for column in columns]
    if not names:
        return ({} for _ in range(batch.num_rows))
    values = [column.values(array) for column, array in zip(columns, batch.columns, strict=True)]
    return (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))


def _no_json() -> tuple[type[Exception], ...]:
    """Return the exceptions for values that cannot be read or that JSON lacks: a year 20000, half a surrogate pair."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    return (pa.ArrowException, ValueError, OverflowError, TypeError, KeyError)


def _readable(kind: pa.DataType) -> pa.DataType:
    """Return the type to cast to so that Python can hold the values: no nanoseconds, no half floats.

    List views are not cast: pyarrow 26 drops their last values.
    """
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    types = pa.types
    wanted = kind
    if types.is_timestamp(kind) and kind.unit == "ns":
        wanted = pa.timestamp("us", kind.tz)
    elif types.is_duration(kind) and kind.unit == "ns":
        wanted = pa.duration("us")
    elif types.is_time64(kind) and kind.unit == "ns":
        wanted = pa.time64("us")
    elif types.is_float16(kind):
        wanted = pa.float32()
    elif types.is_dictionary(kind):
        value = _readable(kind.value_type)
        wanted = kind if value == kind.value_type else value
    elif types.is_struct(kind):
        wanted = pa.struct([field.with_type(_readable(field.type)) for field in kind])
    elif types.is_map(kind):
        wanted = pa.map_(_readable(kind.key_type), _readable(kind.item_type))
    elif types.is_large_list(kind):
        wanted = pa.large_list(kind.value_field.with_type(_readable(kind.value_type)))
    elif types.is_fixed_size_list(kind):
        wanted = pa.list_(kind.value_field.with_type(_readable(kind.value_type)), kind.list_size)
    elif types.is_list(kind):
        wanted = pa.list_(kind.value_field.with_type(_readable(kind.value_type)))
    return kind if wanted == kind else wanted


def _is_plain(kind: pa.DataType) -> bool:
    """Return whether the values are JSON's own, without nested values that need conversion."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    types = pa.types
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    if _is_list(kind):
        return _is_plain(kind.value_type)
    if types.is_struct(kind):
        return all(_is_plain(field.type) for field in kind)
    return bool(_is_text(kind) or types.is_boolean(kind) or types.is_integer(kind) or types.is_null(kind))


def _converter(kind: pa.DataType) -> Convert | None:
    """Return a converter of the maps and the bytes of a fixed size in a value; None where there are none."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    types = pa.types
    if types.is_dictionary(kind):
        return _converter(kind.value_type)
    if types.is_fixed_size_binary(kind):
        return _in_base64
    if types.is_map(kind):
        return _from_map(_converter(kind.item_type), texts=_is_text(kind.key_type))
    if _is_list(kind):
        inner = _converter(kind.value_type)
        return None if inner is None else _from_list(inner)
    if types.is_struct(kind):
        fields = {field.name: found for field in kind if (found := _converter(field.type)) is not None}
        return _from_struct(fields) if fields else None
    return None


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    types = pa.types
    whole = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return bool(whole or types.is_list_view(kind) or types.is_large_list_view(kind))


def _is_text(kind: pa.DataType) -> bool:
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _from_map(inner: Convert | None, *, texts: bool) -> Convert:
    def convert(pairs: object) -> object:
        if not isinstance(pairs, list):
            return None
        values = [(key, value if inner is None else inner(value)) for key, value in pairs]
        found = dict(values) if texts else {}
        if texts and len(found) == len(values):
            return found
        return [{"key": key, "value": value} for key, value in values]

    return convert


def _from_list(inner: Convert) -> Convert:
    return lambda values: [inner(value) for value in values] if isinstance(values, list) else None


def _from_struct(fields: dict[str, Convert]) -> Convert:
    def convert(value: object) -> object:
        if not isinstance(value, dict):
            return None
        return value | {name: inner(value[name]) for name, inner in fields.items()}

    return convert


def _in_base64(value: object) -> object:
    return {"base64": base64.b64encode(value).decode("ascii")} if isinstance(value, bytes) else None


def _parsed(text: object) -> object:
    """Parse a JSON text; a value that another tool put there stays as it is."""
    if isinstance(text, str):
        with suppress(orjson.JSONDecodeError):
            return loads(text)
    return text


def written(value: object) -> object:
    """Convert a value that JSON lacks; orjson calls it for each.

    Raises:
        TypeError: the type has no JSON form.
    """
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f")) if value.is_finite() else None
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return _in_base64(value)
    if isinstance(value, timedelta):
        whole, part = divmod(abs(value) // _MICROSECOND, 10**6)
        fraction = f".{part:06d}".rstrip("0") if part else ""
        return f"{'-' if value < timedelta() else ''}PT{whole}{fraction}S"
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    raise TypeError(f"a {type(value).__name__} is not written as JSON")
