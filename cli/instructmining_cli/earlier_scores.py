"""Inputs that were scored before: which columns stay as they are, and what computed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from instructmining.errors import RuleError
from instructmining.reading.examples import ExampleReader
from instructmining.records import COLUMNS, PREDICTION
from instructmining.rules import PRESETS
from instructmining.scorer import Scorer


@dataclass(frozen=True, slots=True)
class _EarlierRun:
    """What the run file beside a scored input says."""

    path: str
    bundle: str | None  # digest; None where no run file says it
    bundle_name: str
    rule: str | None  # digest
    rule_id: str


class EarlierScores:
    """The columns that all inputs were scored with before; none where one was not.

    Attributes:
        kept: those that are not computed again.
    """

    def __init__(self, reader: ExampleReader, inputs: Sequence[str], *, recompute: bool) -> None:
        """Look at the first rows of all inputs; from now on the reader refuses rows that lack what is kept.

        Args:
            reader: of the inputs.
            inputs: as they were given.
            recompute: whether all columns are computed again.

        Raises:
            InputError: an input cannot be read, or its rows are in no known format.
        """
        first = reader.first_rows()
        reader.check(first)
        there = reader.earlier_columns(first)
        self._columns = [column for column in COLUMNS if column in there and column != PREDICTION]
        self._predicted = PREDICTION in there
        self._recompute = recompute
        self._runs = [_earlier_run(path) for path in inputs] if self._columns or self._predicted else []
        self.kept = frozenset() if recompute else frozenset(self._columns)
        reader.keep(self.kept)

    def asked(self, indicators: str | None, rule: str | None) -> tuple[str | None, str | None]:
        """The indicators and the rule to compute: with what is computed again.

        Raises:
            RuleError: predictions are computed again, and by which rule is not known.
        """
        if not self._recompute or not self._columns or (indicators is None and rule is None):
            return indicators, rule
        if rule is None and self._predicted:
            ids = {run.rule_id for run in self._runs}
            rule = ids.pop() if len(ids) == 1 else None
            if rule not in PRESETS:
                raise RuleError(
                    "the rows have predictions, which --recompute computes again: give their rule by --rule"
                )
        if indicators is not None and indicators.strip() == "all":
            return indicators, rule
        return ",".join([*([indicators] if indicators else []), *self._columns]), rule

    def say(self, scorer: Scorer, say: Callable[[str], None]) -> None:
        """Say which columns are kept, and where another bundle or rule computed them."""
        runs = self._runs
        if self.kept:
            say(f"kept as they are: {', '.join(self._columns)} (--recompute computes them again)")
            bundles = sorted({run.bundle_name for run in runs if run.bundle not in {None, scorer.bundle.digest}})
            if bundles:
                say(f"caution: they were computed with the bundle {', '.join(bundles)}, which is not this one")
            if unknown := [run.path for run in runs if run.bundle is None]:
                say(f"caution: which bundle computed them is not known for {', '.join(unknown)}: no run file")
        if self._predicted and scorer.rule is not None:
            rules = sorted({run.rule_id for run in runs if run.rule not in {None, scorer.rule.digest}})
            if rules:
                say(
                    f"predictions of the rule {', '.join(map(repr, rules))} are replaced by those of {scorer.rule.id!r}"
                )


def _earlier_run(path: str) -> _EarlierRun:
    try:
        run = orjson.loads(Path(f"{path}.run.json").read_bytes())
    except (OSError, orjson.JSONDecodeError):
        run = {}
    found = [run.get(name) if isinstance(run, dict) else None for name in ("bundle", "rule")]
    bundle, rule = (value if isinstance(value, dict) else {} for value in found)
    return _EarlierRun(path, bundle.get("digest"), repr(bundle.get("name")), rule.get("digest"), str(rule.get("id")))
