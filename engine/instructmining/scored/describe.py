"""Describes a scored set: summaries of its columns, their correlations, and the loss that a rule predicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import ROLES
from instructmining.errors import SelectionError
from instructmining.errors.arguments import shown
from instructmining.reading.rows import Source
from instructmining.rules import Rule
from instructmining.scored.column_store import ColumnStore, moments
from instructmining.scored.correlations import correlations, inflation
from instructmining.scored.description import ColumnSummary, Description, PredictedLoss
from instructmining.scored.few_tokens import rows_on_few_tokens
from instructmining.scored.scored_file import LARGEST, ScoredRows, not_scored
from instructmining.types import MARGIN, PREDICTION, SourceRow

__all__ = ["ColumnSummary", "Description", "PredictedLoss", "Truncation", "describe", "described"]

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def describe(scored: Source, *, prefix: str = "", rule: str | Path | Rule | None = None) -> Description:
    """Describe a scored set.

    Reads the file once and keeps its numbers in temporary files, 8 bytes per row and column. Memory holds one column
    with its ranks: about 60 bytes per row.

    Args:
        scored: a file that ``score`` wrote.
        prefix: prefix of the columns of ``score``.
        rule: predicts the loss of the set; by default the file's own predictions are used.

    Raises:
        InputError: the file cannot be read.
        SelectionError: a line is not a row or lacks a column of the first row, or the file has no column of ``score``.
        RuleError: the rule cannot be read, or one of its terms has no column.
        OutputError: the temporary folder refuses the numbers.

    Example:
        >>> from instructmining import describe
        >>> described = describe("scored.jsonl", rule="paper-v1")  # doctest: +SKIP
        >>> described.columns["perplexity"].median, described.predicted.at_means  # doctest: +SKIP
    """
    source = ScoredRows(scored, prefix=prefix)
    chosen = rule if isinstance(rule, Rule) or rule is None else Rule.load(rule)
    if source.fields and not source.columns:
        raise SelectionError(not_scored([source.name], source.fields))
    if chosen is not None:
        source.check_terms(chosen)
    terms = tuple(chosen.terms) if chosen is not None else ()
    with ColumnStore(tuple(dict.fromkeys(source.columns + terms)) if source.fields else ()) as store:
        truncation = Truncation(f"{prefix}truncated")
        few_tokens: Counter[str] = Counter()
        for block in source.blocks(store.names, largest=LARGEST):
            store.add(block.columns)
            few_tokens.update(rows_on_few_tokens(block.columns))
            for row in block.rows:
                truncation.count(row)
        return described(source.name, store, source.columns, truncation, few_tokens, rule=chosen)


def described(
    name: str,
    store: ColumnStore,
    columns: Sequence[str],
    truncation: Truncation,
    few_tokens: Mapping[str, int],
    *,
    rule: Rule | None = None,
) -> Description:
    """Describe a set that was read.

    Args:
        name: name of the source.
        store: the columns, and the terms of the rule.
        columns: names of the columns of ``score`` among them.
        truncation: the truncated rows.
        few_tokens: column → rows with fewer than three scored tokens.
        rule: predicts the loss of the set; by default the stored predictions are used.

    Raises:
        OutputError: the temporary folder refuses the numbers.
    """
    columns = tuple(columns)
    found = correlations(store, columns)
    return Description(
        name=name,
        rows=store.rows,
        columns={column: _summary(store.known(column), store.rows) for column in columns},
        truncated_rows=truncation.rows,
        truncated=dict(sorted(truncation.roles.items())),
        pearson=_by_name(columns, found.pearson),
        spearman=_by_name(columns, found.spearman),
        # A margin is the difference of two other columns: with it, all three would be collinear.
        inflation=inflation(
            store, [column for column in columns if column != PREDICTION and not column.startswith(f"{MARGIN}.")]
        ),
        predicted=_predicted(store, rule) if store.rows else None,
        few_tokens=dict(few_tokens),
    )


class Truncation:
    """Counts the rows whose text a model saw truncated."""

    def __init__(self, column: str) -> None:
        self.rows = 0
        self.roles: Counter[str] = Counter()
        self._column = column

    def count(self, row: SourceRow) -> None:
        """Count a row.

        Raises:
            SelectionError: the column holds something other than a list of roles.
        """
        roles = row.fields.get(self._column)
        if not roles:
            return
        if not isinstance(roles, list) or not all(isinstance(role, str) and role in ROLES for role in roles):
            raise SelectionError(
                f"{row.source}, line {row.line}: column {self._column!r} is {shown(roles)}, wanted a list of "
                f"roles, {', '.join(ROLES)}"
            )
        self.rows += 1
        self.roles.update(roles)


def _summary(known: NDArray[np.float64], rows: int) -> ColumnSummary:
    nulls = rows - len(known)
    if not len(known):
        return ColumnSummary(nulls)
    mean, deviation = moments(known)
    minimum, low, quarter, median, three_quarters, high, maximum = np.quantile(
        known, QUANTILES, overwrite_input=True
    ).tolist()
    return ColumnSummary(nulls, mean, deviation, minimum, low, quarter, median, three_quarters, high, maximum)


def _by_name(names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, dict[str, float | None]]:
    return {
        name: {other: None if math.isnan(value) else value for other, value in zip(names, row, strict=True)}
        for name, row in zip(names, values.tolist(), strict=True)
    }


def _predicted(store: ColumnStore, rule: Rule | None) -> PredictedLoss | None:
    if rule is None:
        if PREDICTION not in store.names:
            return None
        known = store.known(PREDICTION)
        return PredictedLoss(None, None, float(known.mean()) if len(known) else None, len(known))
    means = {}
    for term in rule.terms:
        known = store.known(term)
        means[term] = float(known.mean()) if len(known) else math.nan
    at_means = float(rule.predict({term: np.array(mean) for term, mean in means.items()}))
    total, rows = 0.0, 0
    for chunk in store.chunks(tuple(rule.terms)):
        values = rule.predict(dict(zip(rule.terms, chunk.T, strict=True)))
        values = values[np.isfinite(values)]
        total, rows = total + float(values.sum()), rows + len(values)
    return PredictedLoss(
        rule=rule.id,
        at_means=at_means if math.isfinite(at_means) else None,
        mean_of_rows=total / rows if rows else None,
        rows=rows,
        extrapolated=rule.outside_range(means),
    )
