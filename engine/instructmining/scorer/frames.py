"""Scores tables in memory: anything with Arrow's interface goes in, a ``pyarrow.Table`` comes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from instructmining.errors import InputError
from instructmining.errors.arguments import check_call, check_type
from instructmining.reading.arrow import IN_MEMORY, BatchedDataset, Table
from instructmining.reading.arrow_values import first_line
from instructmining.reading.examples import read_examples
from instructmining.reading.formats import FormatName
from instructmining.reading.objects import is_objects
from instructmining.reading.values import loads
from instructmining.scorer.scorer import OnReject, Scorer
from instructmining.types import SCORE_COLUMNS, ScoredRow
from instructmining.writing.parquet import schema_of, table_of
from instructmining.writing.run_writer import added_fields, added_names, known_kinds, splice

if TYPE_CHECKING:
    import pyarrow as pa


def score_table(
    scorer: Scorer,
    table: Table,
    *,
    format: FormatName | None = None,  # noqa: A002 - the field's word, and the option's
    prefix: str = "",
    on_reject: OnReject | None = None,
) -> pa.Table:
    """Score a table in memory; its own columns keep their types, and the scores follow them.

    Earlier scores of the table stay where they are not computed now.

    Convert the result to pandas with ``to_pandas()``, to Polars with ``polars.from_arrow``, to ``datasets`` with
    ``Dataset``. ``score_notes`` is JSON text, as in a Parquet file.

    Example:
        >>> import polars as pl
        >>> from instructmining import Scorer, score_table
        >>> frame = pl.DataFrame({"prompt": ["Name a colour."], "response": ["Green."]})
        >>> with Scorer.open("bundle", indicators="mtld") as scorer:  # doctest: +SKIP
        ...     print(pl.from_arrow(score_table(scorer, frame)))

    Args:
        scorer: an open scorer.
        table: pandas, Polars, pyarrow, or anything else with ``__arrow_c_stream__``, or a split of ``datasets``; held
            in memory as a whole.
        format: format of the rows; by default detected.
        prefix: prefix of each added column's name.
        on_reject: receives the rows that cannot be scored, which the result omits; ``line`` (from 1) and ``offset``
            (from 0) hold the row's number. Without it the first one raises.

    Raises:
        InputError: the object is no table, its format is not known, or it has a column that scoring adds.
        RowError: a row cannot be scored, and ``on_reject`` is None.
    """
    check_type("scorer", scorer, Scorer, wanted="an open Scorer", error=InputError)
    check_type("prefix", prefix, str, wanted="text", error=InputError)
    check_call("on_reject", on_reject, error=InputError)
    whole = _whole(table)
    ours = added_names(SCORE_COLUMNS, prefix)
    examples = read_examples(whole, format=format, columns=ours, prefix=prefix, on_reject=on_reject)
    kept = []
    added = []
    for row in scorer.score(examples, on_reject=on_reject):
        assert row.example.row is not None
        kept.append(row.example.row.offset)
        added.append(added_fields(row, prefix))
    names = list(dict.fromkeys(name for row in added for name in row)) or added_names(scorer.columns, prefix)
    known = {name: kind for name, kind in known_kinds(prefix).items() if name in names}
    scores = table_of(added, schema_of(added or [dict.fromkeys(names)], known))
    result = _rows(whole.drop_columns([name for name in whole.column_names if name in ours]), kept)
    for field, column in zip(scores.schema, scores.columns, strict=True):
        result = result.append_column(field, column)
    return result


def to_arrow(rows: Iterable[ScoredRow], *, prefix: str = "") -> pa.Table:
    """Convert scored rows to a table: the fields that they were read with, then the scores.

    Types of the fields are inferred from their values, as for a Parquet file; :func:`score_table` keeps those of a
    table.

    Args:
        rows: scored rows; all are held in memory.
        prefix: prefix of each added column's name.

    Raises:
        InputError: an item is not a scored row.
        OutputError: there are too many fields.
    """
    check_type("rows", rows, Iterable, wanted="scored rows: to_arrow(scorer.score(…))", error=InputError)
    check_type("prefix", prefix, str, wanted="text", error=InputError)
    values = []
    for number, row in enumerate(rows):
        check_type(f"row {number + 1}", row, ScoredRow, wanted="a ScoredRow of scorer.score", error=InputError)
        values.append(loads(splice(row, prefix)))
    return table_of(values, schema_of(values, known_kinds(prefix)))


def _rows(table: pa.Table, kept: Sequence[int]) -> pa.Table:
    """Select ascending rows as slices, since not every type has a take kernel (Polars' text has none)."""
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    starts = [place for place, row in enumerate(kept) if place == 0 or row != kept[place - 1] + 1]
    ends = [*starts[1:], len(kept)] if starts else []
    parts = [table.slice(kept[start], end - start) for start, end in zip(starts, ends, strict=True)]
    return pa.concat_tables(parts) if parts else table.slice(0, 0)


def _whole(table: Table) -> pa.Table:
    import pyarrow as pa  # noqa: PLC0415 - only where tables are read

    try:
        if isinstance(table, BatchedDataset):
            return pa.concat_tables(table.with_format("arrow").iter(batch_size=1 << 16))
        return pa.Table.from_pylist(list(table)) if is_objects(table) else pa.table(table)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(f"{IN_MEMORY}: cannot be read: {first_line(error)}") from error
