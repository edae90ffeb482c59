"""Columns as a filter of ``datasets``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from instructmining.bundle import Bundle
from instructmining.errors import InputError, RowError, SelectionError
from instructmining.errors.arguments import check_call
from instructmining.reading.formats import FieldOptions
from instructmining.rules import Rule
from instructmining.scorer.scorer import Scorer
from instructmining.types import PREDICTION, Reject, ScoredRow
from instructmining_serving.training.scorers import TrainingScorer, conditions_of, passes, scorer_of

_USUAL = FieldOptions()


class RowFilter:
    """Keeps rows by their columns: a function for ``filter(…, batched=True)`` of ``Dataset`` and ``IterableDataset``.

    Example:
        >>> dataset.filter(RowFilter("bundle", where="reward>=0.5"), batched=True)  # doctest: +SKIP
    """

    def __init__(
        self,
        scorer: TrainingScorer | Scorer | Bundle | str | Path | None = None,
        *,
        where: Sequence[str] | str = (),
        max_loss: float | None = None,
        rule: str | Path | Rule | None = None,
        device: str = "auto",
        fields: FieldOptions = _USUAL,
        on_reject: Callable[[Reject], None] | None = None,
    ) -> None:
        """Check the bundle and the columns; models open at the first batch.

        Args:
            scorer: a bundle, an open scorer, or one that several filters share; by default the demo bundle.
            where: conditions on columns, such as "perplexity<=30"; a row without a value is not kept.
            max_loss: most that the rule may predict.
            rule: for ``max_loss``; by default the bundle's.
            device: "auto" and "cuda" mean the GPU numbered LOCAL_RANK, if that is set.
            fields: how rows are read; by default their format is detected.
            on_reject: is given each row that cannot be scored, which is not kept; without it the first one raises.

        Raises:
            BundleError: the bundle is damaged or lacks a role.
            RuleError: a column is not known, needs a rule or neighbours, or the scorer does not compute it.
            SelectionError: a condition has another form, or nothing says which rows to keep.
        """
        check_call("on_reject", on_reject, error=InputError)
        limit = () if max_loss is None else conditions_of(f"{PREDICTION}<={float(max_loss)!r}")
        self._conditions = (*conditions_of(where), *limit)
        if not self._conditions:
            raise SelectionError("nothing says which rows to keep; give where, max_loss or both")
        self.scorer = scorer_of(scorer, [condition.column for condition in self._conditions], rule, device)
        self._fields = fields
        self._on_reject = on_reject
        self._warned = False  # of text that is not read, which is said once

    def __getstate__(self) -> dict[str, object]:
        """Return what it was made with, so that equal filters have equal bytes before and after use."""
        return {**self.__dict__, "_warned": False}

    def __call__(self, batch: Mapping[str, Sequence[object]], *_: object) -> list[bool]:
        """Return which rows of a batch to keep.

        Args:
            batch: the values of each field, as ``datasets`` gives them.

        Raises:
            RowError: a row cannot be scored, and ``on_reject`` is None; it has the row's number in the batch, from 0.
            InputError: this is no batch, or its rows are in no known format.
            DeviceError: a graph fails.
        """
        if any(isinstance(values, str) or not hasattr(values, "__len__") for values in batch.values()):
            raise InputError("found a single row, wanted a batch of them: filter(…, batched=True)")
        rows = [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]
        once = self._fields.unread == "warn" and self._warned
        scored = self.scorer.score(rows, replace(self._fields, unread="count") if once else self._fields)
        self._warned = True
        return [self._keeps(row) for row in scored]

    def _keeps(self, row: ScoredRow | Reject) -> bool:
        if isinstance(row, ScoredRow):
            return passes(row, self._conditions)
        if self._on_reject is None:
            raise RowError(f"row {row.line - 1} of the batch: {row.reason}")
        self._on_reject(row)
        return False
