"""Inputs that were scored before: which columns are kept, and what computed them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import orjson

from instructmining.errors import RuleError
from instructmining.knn.options import KnnOptions
from instructmining.reading.example_reader import ExampleReader
from instructmining.reading.small_files import read_small
from instructmining.rules import PRESETS
from instructmining.scorer.scorer import Scorer
from instructmining.types import COLUMNS, KNN_COLUMNS, PREDICTION


@dataclass(frozen=True, slots=True)
class _EarlierRun:
    """What the run file next to a scored input says."""

    path: str
    bundle: str | None  # digest; None if no run file states it
    bundle_name: str
    rule: str | None  # digest
    rule_id: str
    knn: object  # the settings of its neighbours


class KeptColumns:
    """The columns that every input already has, if all of them were scored before.

    Attributes:
        names: columns that are not computed again.
    """

    def __init__(
        self, reader: ExampleReader, inputs: Sequence[str], knn: KnnOptions, *, recompute: bool, limit: int | None
    ) -> None:
        """Look at the first rows of all inputs; the reader then rejects rows that lack a kept column.

        Args:
            reader: reads the inputs.
            inputs: their paths.
            knn: options of this run's neighbours; distances with other options are not kept.
            recompute: compute all columns again.
            limit: rows that are read.

        Raises:
            InputError: an input cannot be read, or its rows are in no known format.
        """
        there = reader.look()
        self._ignored_in_vain = reader.ignored_in_vain
        self._runs = [_earlier_run(path) for path in inputs] if there else []
        same_neighbours = limit is None and [run.knn for run in self._runs] == [neighbours_as_json(knn)]
        computed_again = frozenset() if same_neighbours else frozenset(KNN_COLUMNS.values())
        self._columns = [column for column in COLUMNS if column in there and column != PREDICTION]
        self._predicted = PREDICTION in there
        self._recompute = recompute
        self.names = frozenset() if recompute else frozenset(self._columns) - computed_again
        reader.keep(self.names)

    def asked(
        self, indicators: str | None, rule: str | None, default_rule: str | None
    ) -> tuple[str | None, str | None]:
        """Return the indicators and the rule to compute, with the columns that are computed again.

        Raises:
            RuleError: predictions are to be computed again, but their rule is not known.
        """
        if not self._recompute or not self._columns:
            return indicators, rule
        if rule is None and indicators is None:
            rule = default_rule
        if rule is None and self._predicted:
            ids = {run.rule_id for run in self._runs}
            rule = ids.pop() if len(ids) == 1 else None
            if rule not in PRESETS:
                raise RuleError("the rows have predictions, and --recompute needs their rule; give --rule")
        if indicators is not None and indicators.strip() == "all":
            return indicators, rule
        return ",".join([*([indicators] if indicators else []), *self._columns]), rule

    def say(self, scorer: Scorer, *, say: Callable[[str], None], warn: Callable[[str], None]) -> None:
        """Say which columns are kept, if another bundle or rule computed them, and which --ignore has no effect."""
        for missing in self._ignored_in_vain:
            warn(f"caution: --ignore: in the first rows: {missing}")
        runs = self._runs
        if self.names:
            names = ", ".join(column for column in self._columns if column in self.names)
            say(f"kept: {names} (--recompute computes them again)")
            bundles = sorted({run.bundle_name for run in runs if run.bundle not in {None, scorer.bundle.digest}})
            if bundles:
                warn(f"caution: they were computed with another bundle: {', '.join(bundles)}")
            if unknown := [run.path for run in runs if run.bundle is None]:
                warn(f"caution: the bundle that computed them is not known for {', '.join(unknown)}: no run file")
        if self._predicted and scorer.rule is not None:
            rules = sorted({run.rule_id for run in runs if run.rule not in {None, scorer.rule.digest}})
            if rules:
                say(
                    f"predictions of the rule {', '.join(map(repr, rules))} are replaced by those of {scorer.rule.id!r}"
                )


def _earlier_run(path: str) -> _EarlierRun:
    try:
        run = orjson.loads(read_small(f"{path}.run.json"))
    except (OSError, orjson.JSONDecodeError):
        run = {}
    found = [run.get(name) if isinstance(run, dict) else None for name in ("bundle", "rule")]
    bundle, rule = (value if isinstance(value, dict) else {} for value in found)
    identity = run.get("identity") if isinstance(run, dict) else None
    knn = identity.get("knn") if isinstance(identity, dict) else None
    digests = [value.get("digest") for value in (bundle, rule)]
    bundle_digest, rule_digest = (digest if isinstance(digest, str) else None for digest in digests)
    return _EarlierRun(path, bundle_digest, repr(bundle.get("name")), rule_digest, str(rule.get("id")), knn)


def neighbours_as_json(knn: KnnOptions) -> dict[str, object]:
    """Return the settings of the neighbours as in the run file, without how the rows of another file are read."""
    named: dict[str, object] = asdict(replace(knn, against_options=None, against_fields=None))
    return {name: value for name, value in named.items() if not name.startswith("against_")}
