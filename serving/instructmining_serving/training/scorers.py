"""A scorer for every process of a training: opened where it is used, pickled as its settings."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from typing import TypeAlias

from instructmining.bundle import Bundle
from instructmining.bundle.demo import demo_folder
from instructmining.errors import DeviceError, InputError, RuleError
from instructmining.errors.arguments import shown
from instructmining.errors.names import no_such
from instructmining.indicators.plan import indicator_names, plan
from instructmining.inference.devices import choose_devices_for, cuda_problem
from instructmining.inference.executor import Job
from instructmining.knn.options import KnnOptions
from instructmining.reading.formats import FieldOptions
from instructmining.rules import Rule
from instructmining.scored.selection.conditions import Condition
from instructmining.scorer.scorer import Scorer
from instructmining.types import PAIR_COLUMNS, PREDICTION, Reject, ScoredRow, SourceRow
from instructmining_serving.joint import JointScoring, Outputs
from instructmining_serving.rows import window_of

Row: TypeAlias = Mapping[str, object]
RANK = "LOCAL_RANK"  # the number of a process on its machine, as torchrun and accelerate set it
_BASE = {name: column for column, names in PAIR_COLUMNS.items() for name in names}


@dataclass(frozen=True, slots=True)
class _Settings:
    """What a scorer is opened with."""

    bundle: Bundle
    rule: Rule | None
    indicators: tuple[str, ...]
    device: str
    knn: KnnOptions | None

    def pickled(self) -> _Settings:
        """Return the settings without what was cached in use, so that equal ones have equal bytes."""
        roles = {name: replace(role, template=replace(role.template)) for name, role in self.bundle.roles.items()}
        return replace(self, bundle=replace(self.bundle, roles=roles))

    def open(self) -> Scorer:
        """Open a scorer on the device of this process."""
        return Scorer.open(
            self.bundle, rule=self.rule, indicators=self.indicators, device=_device_here(self), knn=self.knn
        )


class TrainingScorer:
    """Scores batches of rows, in whatever process of a training; several rewards and filters can share one.

    The models are opened when they are first used, and again in another process: a copy there, by pickle or by fork,
    has the settings alone. ``datasets`` knows its results by these, with the bundle's digest.
    """

    def __init__(
        self,
        bundle: str | Path | Bundle | None = None,
        *,
        rule: str | Path | Rule | None = None,
        indicators: Sequence[str] | str = (),
        device: str = "auto",
        knn_against: str | None = None,
    ) -> None:
        """Check the bundle and the columns; opens no model.

        Args:
            bundle: a folder, or an open bundle; by default the demo bundle, if it is in the cache.
            rule: as for ``Scorer.open``.
            indicators: columns to compute in addition to the rule's terms.
            device: as for ``Scorer.open``; "cuda" and "auto" mean the GPU numbered LOCAL_RANK, if that is set.
            knn_against: a file whose rows are the neighbours; a knn column needs it, since a batch has few rows.

        Raises:
            BundleError: the bundle is damaged or lacks a role.
            RuleError: the rule cannot be read, a column is not known, or it needs neighbours and no file has them.
        """
        opened = bundle if isinstance(bundle, Bundle) else Bundle.open(demo_folder() if bundle is None else bundle)
        chosen = rule if isinstance(rule, Rule) or rule is None else Rule.load(rule)
        knn = None if knn_against is None else KnnOptions(against=knn_against)
        self._begin(_Settings(opened, chosen, tuple(indicator_names(indicators, opened)), device, knn))

    @classmethod
    def of(cls, scorer: Scorer) -> TrainingScorer:
        """Use a scorer that is open in this process; the caller closes it.

        Raises:
            RuleError: a column needs neighbours among the rows of a run.
        """
        made = cls.__new__(cls)
        indicators = tuple(column for column in scorer.columns if column != PREDICTION)
        devices = [device for device in scorer.devices if device.kind == "cuda"]
        device = f"cuda:{','.join(str(one.index) for one in devices)}" if devices else "cpu"
        made._begin(_Settings(scorer.bundle, scorer.rule, indicators, device, scorer.knn))
        made._use(scorer)
        return made

    def _begin(self, settings: _Settings) -> None:
        work = plan(settings.bundle, settings.rule, settings.indicators)
        self.columns = (
            *(indicator.column for indicator in work.indicators),
            *([PREDICTION] if settings.rule is not None else []),
        )
        knn = [column for column in self.columns if column.startswith("knn_")]
        if knn and (settings.knn is None or settings.knn.against is None):
            raise RuleError(
                f"{knn[0]} needs the neighbours of each row, and a batch has few rows; give knn_against, a file of "
                "rows to compare with, or leave the column out"
            )
        self._settings = settings
        self._opening = Lock()
        self._scoring: tuple[int, Scorer, JointScoring] | None = None  # with the process that it was opened in
        self._given = False  # whether somebody else closes the scorer

    def __getstate__(self) -> _Settings:
        """Return the settings; an open scorer stays here."""
        return self._settings.pickled()

    def __setstate__(self, state: _Settings) -> None:
        """Take the settings; opens no model."""
        self._begin(state)

    def check_columns(self, names: Sequence[str]) -> None:
        """Check that columns are computed.

        Raises:
            RuleError: one is not.
        """
        for name in names:
            if _BASE.get(name, name) not in self.columns:
                raise RuleError(f"this scorer has {no_such('column', name, self.columns)}; name it in its indicators")

    def score(self, rows: Sequence[Row], fields: FieldOptions) -> list[ScoredRow | Reject]:
        """Score rows, in order; the values of a row do not depend on the others.

        Args:
            rows: as of a JSON file.
            fields: how they are read.

        Returns:
            For each row its columns, or why it has none.

        Raises:
            InputError: the rows are in no known format.
            DeviceError: a graph fails.
        """
        if not rows:
            return []
        scorer, joint = self._open()
        (scored,) = joint.score([window_of(rows, fields)])
        if isinstance(scored, DeviceError):
            raise scored
        found: dict[int, ScoredRow | Reject] = {reject.line: reject for reject in scored.rejects}
        for row in scorer.rows(scored):
            assert row.example.row is not None  # read_examples keeps it
            found[row.example.row.line] = row
        return [found[line] for line in range(1, len(rows) + 1)]

    def close(self) -> None:
        """Free the models, but not of a scorer that was given."""
        with self._opening:
            if self._scoring is not None and not self._given and self._scoring[0] == os.getpid():
                self._scoring[1].close()
            self._scoring = None

    def _open(self) -> tuple[Scorer, JointScoring]:
        with self._opening:
            if self._scoring is None or self._scoring[0] != os.getpid():
                self._given = False
                self._scoring = _scoring(self._settings.open())
            return self._scoring[1:]

    def _use(self, scorer: Scorer) -> None:
        self._given = True
        self._scoring = _scoring(scorer)


def scorer_of(
    given: TrainingScorer | Scorer | Bundle | str | Path | None,
    columns: Sequence[str],
    rule: str | Path | Rule | None,
    device: str,
) -> TrainingScorer:
    """Return a scorer that computes these columns.

    Args:
        given: a scorer, or a bundle to open one of.
        columns: to compute; for the prediction a rule is needed, by default the bundle's.
        rule: of a new scorer.
        device: of a new scorer.

    Raises:
        RuleError: a column is not known or not computed, a rule is missing, or a scorer was given and so was a rule.
        BundleError: the bundle is damaged or lacks a role.
    """
    if isinstance(given, (TrainingScorer, Scorer)):
        if rule is not None or device != "auto":
            raise RuleError("a scorer has its rule and its device; give rule and device where you open it")
        made = given if isinstance(given, TrainingScorer) else TrainingScorer.of(given)
    else:
        bundle = given if isinstance(given, Bundle) else Bundle.open(demo_folder() if given is None else given)
        names = [_BASE.get(name, name) for name in columns]
        if PREDICTION in names and rule is None:
            rule = bundle.default_rule
        if PREDICTION in names and rule is None:
            raise RuleError(f"{PREDICTION} needs a rule, and {bundle.path} has no default; give rule")
        indicators = [name for name in names if name != PREDICTION]
        made = TrainingScorer(bundle, rule=rule, indicators=indicators, device=device)
    made.check_columns(columns)
    return made


def passes(row: ScoredRow, conditions: Sequence[Condition]) -> bool:
    """Return whether a row's columns fulfil all conditions; a column without a value fulfils none."""
    fields = SourceRow("columns", 1, 0, b"", row.columns)
    return all(bool(condition.passes([fields], condition.column)[0]) for condition in conditions)


def conditions_of(where: Sequence[str] | str) -> tuple[Condition, ...]:
    """Parse conditions on columns, such as "reward>=0.5".

    Raises:
        SelectionError: one has another form.
        InputError: they are no texts.
    """
    texts = [where] if isinstance(where, str) else where
    if not isinstance(texts, (list, tuple)):
        raise InputError(f"where is {shown(where)}, wanted a list of conditions: ['reward>=0.5']")
    return tuple(map(Condition.parse, texts))


def _scoring(scorer: Scorer) -> tuple[int, Scorer, JointScoring]:
    requests = scorer.requests()

    def compute(jobs: Sequence[Job]) -> Iterator[Outputs]:
        return (done.outputs for done in requests.executor.run(jobs))

    return os.getpid(), scorer, JointScoring(requests, compute, requests.embedded_others())


def _device_here(settings: _Settings) -> str:
    """Return the device of this process: on CUDA, where none is numbered, the one of its rank."""
    rank = os.environ.get(RANK, "")
    if settings.device not in {"auto", "cuda"} or not rank.isdecimal():
        return settings.device
    if settings.device == "cuda":
        return f"cuda:{rank}"
    roles = [stream.role for stream in plan(settings.bundle, settings.rule, settings.indicators).streams]
    if choose_devices_for(roles, "auto")[0].kind == "cuda" and cuda_problem(int(rank)) is None:
        return f"cuda:{rank}"
    return "auto"
