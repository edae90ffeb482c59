"""Rows that were truncated, values that are null, and rows that were rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instructmining_report.gathering.records import RejectReason
from instructmining_report.gathering.scored_set import ScoredSet


@dataclass(frozen=True, slots=True)
class NullReason:
    """Rows whose column is null for one reason."""

    column: str
    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Missing:
    """What a set lacks."""

    truncated_rows: int
    truncated: Mapping[str, int]  # role → rows
    nulls: tuple[NullReason, ...]  # most rows first
    few_tokens: Mapping[str, int]  # column → rows
    rejects: tuple[RejectReason, ...] | None  # None where no file of rejects is there

    @property
    def rejected(self) -> int:
        """Rows that were rejected."""
        return sum(reason.rows for reason in self.rejects or ())


def missing_of(one: ScoredSet) -> Missing:
    """Return what a set lacks."""
    nulls = [
        NullReason(column, reason, rows) for column, reasons in one.nulls.items() for reason, rows in reasons.items()
    ]
    nulls.sort(key=lambda null: (-null.rows, null.column, null.reason))
    roles = one.truncation.roles
    return Missing(
        truncated_rows=one.truncation.rows,
        truncated={role: roles[role] for role in sorted(roles)},
        nulls=tuple(nulls),
        few_tokens=one.few_tokens,
        rejects=one.records.rejects,
    )
