"""Compares a rule's selection with others: fine-tunes on each, in equal tokens and steps, and measures the losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from instructmining.errors import InputError
from instructmining.inference.devices import choose_devices
from instructmining.rules import Rule
from instructmining.writing.atomic import claimed, write_whole
from instructmining_experiments.comparing.comparison_plan import (
    COMPARISON,
    CompareOptions,
    ComparisonPlan,
    Known,
    Scoring,
    select,
)
from instructmining_experiments.comparing.figures import MethodFigures, figures_of, sentence
from instructmining_experiments.comparing.plot import drawing
from instructmining_experiments.comparing.selections import ALL, Selection
from instructmining_experiments.state.plan import Plan
from instructmining_experiments.state.pool import Pool
from instructmining_experiments.state.progress import Progress
from instructmining_experiments.state.runs import Result, RunFolder
from instructmining_experiments.state.settings import Begun, plan_digest
from instructmining_experiments.state.tables import as_csv
from instructmining_experiments.training.evaluation import base_role
from instructmining_experiments.training.laboratory import Laboratory, Work
from instructmining_experiments.training.sweep import recorded_rate
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.hub import resolve

COMPARISON_CSV = "comparison.csv"
COMPARISON_RUNS_CSV = "comparison-runs.csv"
COMPARISON_PLOT = "comparison.svg"


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a comparison, so far."""

    plan: ComparisonPlan
    figures: Sequence[MethodFigures]
    base: Mapping[str, float]  # loss before training, by evaluation set
    finished: int
    failed: Mapping[str, str]  # run → reason

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        return sentence(self.figures)

    def as_json(self) -> dict[str, object]:
        """Return everything but the rows."""
        plan = self.plan
        return {
            "rule": plan.rule,
            "candidates": {"rows": plan.candidates, "tokens": plan.candidate_tokens},
            "not_selected_from": dict(plan.left),
            "methods_left_out": list(plan.left_out_methods),
            "subset_tokens": plan.subset_tokens,
            "base_losses": dict(self.base),
            "methods": [_as_json(one, plan) for one in self.figures],
            "finished": self.finished,
            "failed": dict(self.failed),
            "found": self.sentence,
        }


def compare(
    folder: Path,
    files: Sequence[str],
    options: CompareOptions,
    *,
    rule: Rule,
    scoring: Scoring,
    work: Work,
    model: str | None = None,
    overwrite: bool = False,
) -> Comparison:
    """Select rows by each method, train and evaluate on each selection, and write the tables and the plot.

    Args:
        folder: of the experiment, whose runs were trained.
        files: new rows; none to select from the rows that the plan reserved.
        options: what to compare.
        rule: that is tested.
        scoring: of new rows.
        work: how.
        model: the base model, as ``train`` was given it; None for the same one of the hub.
        overwrite: replace another comparison.

    Raises:
        InputError: nothing was trained yet, the rows are too few, or a file is damaged.
        RuleError: the pool lacks a column of the rule.
        OutputError: the folder holds another comparison, or another process works in it.
        ExportError: the model cannot be found.
        DeviceError: the device does not work here.
    """
    plan = Plan.load(folder)
    with claimed(folder):
        begun, digest = Begun.load(folder), plan_digest(folder)
        if begun.plan_sha256 != digest:
            raise InputError(f"{folder}: its runs were trained by another plan; design another folder")
        rate = begun.settings.learning_rate or recorded_rate(folder)
        known = Known(folder, plan, Pool.of_plan(folder, plan), digest)
        drawn, pool = select(known, files, options, rule, scoring, overwrite=overwrite)
        device = choose_devices(work.device, 1)[0]
        checkpoint = resolve(model or _hub_id(begun, folder), report=work.report)
        Begun(checkpoint.source, begun.settings, device.kind, digest).is_kept(folder)
        of_plan = Laboratory.of(folder, plan, known.pool, base_role(folder), begun.settings, device)
        base = of_plan.base_losses(work.report)
        rows = {row for one in drawn.selections for row in one.rows}
        laboratory = of_plan.with_texts(folder / COMPARISON, pool, rows)
        return _Comparing(folder, plan, drawn, base, work).run(laboratory, checkpoint, rate)


def _hub_id(begun: Begun, folder: Path) -> str:
    if "digest" in begun.model:
        raise InputError(
            f"{folder}: its runs begin at a model in a folder, {begun.model['id']!r}; name it with --model"
        )
    return begun.model["id"]


@dataclass(frozen=True, slots=True)
class _Comparing:
    """One call of ``compare``."""

    folder: Path
    plan: Plan
    drawn: ComparisonPlan
    base: Mapping[str, float]
    work: Work

    def run(self, laboratory: Laboratory, checkpoint: Checkpoint, rate: float) -> Comparison:
        selections = self.drawn.selections
        matched = [one for one in selections if one.method != ALL]
        progress = Progress(len(selections), self.base[self.plan.evaluation[0].name], self.work.report)
        of_matched = laboratory.with_steps_for(matched)
        for one in selections:
            own = of_matched if one.method != ALL else laboratory.with_steps_for([one])
            own.run(checkpoint, one, rate, work=self.work, progress=progress)
            found = self._found()
            self._write(found)
        return found

    def _found(self) -> Comparison:
        results, failed = self._results()
        sets = [one.name for one in self.plan.evaluation]
        figures = figures_of(self.drawn.selections, results, sets, seed=self.plan.seed)
        return Comparison(self.drawn, figures, self.base, len(results), failed)

    def _results(self) -> tuple[dict[str, Result], dict[str, str]]:
        results, failed = {}, {}
        for one in self.drawn.selections:
            state = RunFolder.of(self.folder / COMPARISON, one.name)
            if (result := state.result()) is not None:
                results[one.name] = result
            elif (reason := state.failure()) is not None:
                failed[one.name] = reason
        return results, failed

    def _write(self, found: Comparison) -> None:
        table = as_csv(_HEADER, [_line(one, found) for one in found.figures])
        write_whole(self.folder / COMPARISON_CSV, table)
        results, failed = self._results()
        sets = [one.name for one in self.plan.evaluation]
        lines = [_run_line(one, results.get(one.name), failed.get(one.name), sets) for one in self.drawn.selections]
        header = [*_RUN_HEADER, *(f"loss.{name}" for name in sets)]
        write_whole(self.folder / COMPARISON_RUNS_CSV, as_csv(header, lines))
        if found.figures:
            write_whole(self.folder / COMPARISON_PLOT, drawing(found.figures, self.base))


_HEADER = [
    "evaluation_set", "method", "rows", "tokens", "response_tokens", "runs", "loss", "sd_of_runs",
    "minus_random", "minus_random_low", "minus_random_high",
    "minus_rule", "minus_rule_low", "minus_rule_high", "base_loss", "rows_of_files",
]  # fmt: skip
_RUN_HEADER = ["name", "method", "seed", "state", "rows", "tokens", "response_tokens", "steps", "seconds", "failure"]


def _line(one: MethodFigures, found: Comparison) -> list[object]:
    files = "; ".join(f"{file} {rows}" for file, rows in found.plan.from_files(one.method).items())
    bounds = [
        bound
        for difference in (one.minus_random, one.minus_rule)
        for bound in ([None] * 3 if difference is None else [difference.value, difference.low, difference.high])
    ]
    base = found.base[one.evaluation_set]
    about = [one.evaluation_set, one.method, one.rows, one.tokens, one.response_tokens, one.runs]
    return [*about, one.loss, one.deviation, *bounds, base, files]


def _run_line(one: Selection, result: Result | None, failure: str | None, sets: Sequence[str]) -> list[object]:
    stated = "finished" if result is not None else "failed" if failure is not None else "to come"
    line: list[object] = [one.name, one.method, one.seed, stated, len(one.rows), one.tokens]
    if result is None:
        return [*line, None, None, None, failure, *(None for _ in sets)]
    seconds = result.train_seconds + result.evaluation_seconds
    return [*line, result.scored, result.steps, seconds, None, *(result.losses[name] for name in sets)]


def _as_json(one: MethodFigures, plan: ComparisonPlan) -> dict[str, object]:
    figures = asdict(one)
    return {**figures, "loss": one.loss, "sd_of_runs": one.deviation, "rows_of_files": plan.from_files(one.method)}
