"""What :func:`instructmining.describe` finds in a scored set, and how it is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from instructmining.rules import OutOfRange
from instructmining.scored.few_tokens import said_of_few_tokens
from instructmining.tables import Line, Spread, Table, counted, number
from instructmining.tables.html import as_html
from instructmining.types import PREDICTION, unit

_SUMMARY = ("mean", "median", "sd", "min", "5%", "25%", "75%", "95%", "max", "null", "VIF")


@dataclass(frozen=True, slots=True)
class ColumnSummary:
    """A column of a set, in the column's unit; None where no row has a value."""

    nulls: int  # rows without a value
    mean: float | None = None
    standard_deviation: float | None = None  # of a sample (n − 1); None for a single value
    minimum: float | None = None
    percentile_5: float | None = None  # interpolated linearly, as numpy does by default
    percentile_25: float | None = None
    median: float | None = None
    percentile_75: float | None = None
    percentile_95: float | None = None
    maximum: float | None = None

    def spread(self) -> Spread | None:
        """Return the quantiles as a drawing; None where no row has a value."""
        found = [self.minimum, self.percentile_5, self.percentile_25, self.median]
        found += [self.percentile_75, self.percentile_95, self.maximum]
        known = [value for value in found if value is not None]
        return Spread(tuple(known)) if len(known) == len(found) else None


@dataclass(frozen=True, slots=True)
class PredictedLoss:
    """The natural log loss that a rule predicts for a set."""

    rule: str | None  # id of the rule; None for the predictions in the file
    at_means: float | None  # prediction from the means of the terms, each over the rows that have it
    mean_of_rows: float | None  # mean of the rows' predictions; equals at_means where no term is null
    rows: int  # rows with a prediction
    extrapolated: tuple[OutOfRange, ...] = ()


@dataclass(frozen=True, slots=True)
class Description:
    """Figures of a scored set; column names have no prefix."""

    name: str  # name of the source
    rows: int
    columns: Mapping[str, ColumnSummary]  # the indicators, then the prediction, where the file has one
    truncated_rows: int  # rows whose text a model saw truncated
    truncated: Mapping[str, int]  # role → rows that its model saw truncated
    pearson: Mapping[str, Mapping[str, float | None]]  # each pair over the rows where both are known
    spearman: Mapping[str, Mapping[str, float | None]]
    inflation: Mapping[str, float | None]  # variance inflation factors among the indicators; infinite where collinear
    predicted: PredictedLoss | None  # None without a rule or predictions in the file
    few_tokens: Mapping[str, int] = field(default_factory=dict)  # column → rows with fewer than three scored tokens

    @property
    def means(self) -> dict[str, float | None]:
        """Mean of each indicator: the set's line in the table that ``fit`` reads."""
        return {name: summary.mean for name, summary in self.columns.items() if name != PREDICTION}

    def lines(self) -> Iterator[Line]:
        """Yield what is said of the set as a whole, as lines."""
        yield Line(counted(self.rows), self.name)
        if self.truncated_rows:
            roles = ", ".join(f"{role} {rows:,}" for role, rows in self.truncated.items())
            yield Line(f"truncated: {self.truncated_rows:,} ({roles})")
        yield from map(Line, said_of_few_tokens(self.few_tokens))
        if self.predicted is not None:
            yield from map(Line, _said_of_prediction(self.predicted))

    def summaries(self) -> Table:
        """Return a line for each column."""
        rows = [
            (
                name,
                *(number(value) for value in (one.mean, one.median, one.standard_deviation, one.minimum)),
                *(number(value) for value in (one.percentile_5, one.percentile_25, one.percentile_75)),
                *(number(value) for value in (one.percentile_95, one.maximum)),
                f"{one.nulls:,}",
                "" if name == PREDICTION else number(self.inflation.get(name)),
            )
            for name, one in self.columns.items()
        ]
        return Table(
            caption="columns: the line of a drawing is from min to max, its bars hold 90 % and 50 % of the rows",
            header=("column", *_SUMMARY),
            rows=tuple(rows),
            units=tuple(unit(name) for name in self.columns),
            marks=tuple(one.spread() for one in self.columns.values()),
        )

    def correlations(self) -> Table:
        """Return the correlation of each column with each other one."""
        names = list(self.pearson)
        rows = [
            (
                name,
                *(
                    "1"
                    if row == place
                    else number((self.pearson if place > row else self.spearman)[name][other], "{:.3f}")
                    for place, other in enumerate(names)
                ),
            )
            for row, name in enumerate(names)
        ]
        return Table("correlation: Pearson above the diagonal, Spearman below", ("", *names), tuple(rows))

    def _repr_html_(self) -> str:
        """Return the text report as HTML, for notebooks."""
        return as_html([*self.lines(), *([self.summaries(), self.correlations()] if self.columns else [])])


def _said_of_prediction(predicted: PredictedLoss) -> list[str]:
    rows = f"{number(predicted.mean_of_rows)} as the mean of {predicted.rows:,} rows' predictions"
    if predicted.rule is None:
        return [f"predicted log loss: {rows}"]
    lines = [f"predicted log loss by rule {predicted.rule}: {number(predicted.at_means)} at the set's means, {rows}"]
    return lines + [f"outside of what the rule was fitted on: {term}" for term in predicted.extrapolated]
