"""The result of ``fit`` as a report and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from instructmining.rules.fitting import Fit
from instructmining.scored.aligning import aligned, wrapped
from instructmining.tables import Facts
from instructmining_cli.reports.residual_plot import sketch

_WIDTHS = (6, 7, 6, 9)  # least characters of the figures of a subset


@dataclass(frozen=True, slots=True)
class FitReport:
    """A fit and the width to show it in."""

    found: Fit
    width: int | None = None  # most characters of a line; None for no limit

    def as_json(self) -> dict[str, object]:
        """Return all figures: the rule with its provenance, every subset, every run."""
        found = self.found
        runs = zip(
            found.runs.labels,
            found.runs.losses.tolist(),
            found.fitted.tolist(),
            found.residuals.tolist(),
            found.left_out_residuals.tolist(),
            strict=True,
        )
        names = ("run", "loss", "fitted_log_loss", "residual", "left_out_residual")
        return {
            "rule": found.rule.as_json(),
            "subsets": [asdict(subset) for subset in found.search],
            "runs": [dict(zip(names, figures, strict=True)) for figures in runs],
        }

    def text(self) -> str:
        """Return the report as text."""
        blocks = [self._heading(), self._coefficients(), self._quality(), self._subsets(), self._residuals()]
        return "\n\n".join("\n".join(block) for block in blocks)

    def _heading(self) -> Iterator[str]:
        return self._facts(self.found.origin(), 12)

    def _coefficients(self) -> Iterator[str]:
        yield aligned(list(self.found.coefficient_table().lines()), self.width)

    def _quality(self) -> Iterator[str]:
        return self._facts(self.found.quality.facts(), 31)

    def _facts(self, facts: Facts, indent: int) -> Iterator[str]:
        for label, value in facts.pairs:
            yield wrapped(f"{label:<{indent}}{value}", self.width, indent=indent)

    def _subsets(self) -> Iterator[str]:
        table = self.found.subset_table()
        columns = list(zip(*table.lines(), strict=True))[1:]
        widths = [max(least, *map(len, column)) for least, column in zip(_WIDTHS, columns, strict=True)]
        for terms, *cells in table.lines():
            figures = "  ".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
            last = table.caption if (terms, *cells) == table.header else terms
            yield wrapped(f"{figures}  {last}", self.width, indent=len(figures) + 2)

    def _residuals(self) -> Iterator[str]:
        found = self.found
        heading, *lines = sketch(found.fitted, found.residuals)
        yield wrapped(heading, self.width)
        yield from lines
        yield wrapped(str(found.farthest()), self.width)
