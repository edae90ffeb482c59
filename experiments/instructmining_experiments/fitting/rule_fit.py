"""Fits a rule to three quarters of an experiment's runs, and tests it on the last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import orjson

from instructmining.errors import FittingError, InputError
from instructmining.errors.names import no_such
from instructmining.reading.values import utf8
from instructmining.rules import Rule
from instructmining.rules.fitting import Fit, fit
from instructmining.rules.fitting.term_choice import SPARE_RUNS, Choose
from instructmining.writing.atomic import claimed, write_whole
from instructmining_experiments.fitting.finished import Finished
from instructmining_experiments.fitting.noise_floor import NoiseFloor
from instructmining_experiments.fitting.quarter import Score, held_out_runs, scores
from instructmining_experiments.fitting.verdict import Verdict
from instructmining_experiments.fitting.worth import Worth, worth_of
from instructmining_experiments.state.plan import PLAN, Plan
from instructmining_experiments.state.settings import SETTINGS, Begun, plan_digest
from instructmining_experiments.state.tables import RUNS_CSV

RULE = "rule.json"
FIGURES = "fit.json"
THE_RULE = "rule"  # its name among the scores
LEAST_FITTED = 1 + SPARE_RUNS
LEAST_HELD_OUT = 2
_INDENTED = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How to fit."""

    terms: tuple[str, ...] | None = None  # indicators to consider; None for all of the plan's
    choose: Choose = "loo"
    bootstrap: int = 2000  # resamples of the fitted runs, for the intervals of the coefficients
    rule_id: str | None = None  # None for the folder's name
    licences: tuple[str, ...] = ()  # of the rows


@dataclass(frozen=True, slots=True)
class RuleFit:
    """A rule that was fitted to three quarters of the runs, with how well it predicts the others."""

    plan: Plan
    fit: Fit
    rule: Rule  # the fit's, with the experiment in its provenance
    runs: Finished  # all that have a loss
    held_out: tuple[str, ...]  # with a loss
    missing: tuple[str, ...]  # of all runs, those without a loss: failed or to come
    noise: NoiseFloor
    scores: Mapping[str, Score]  # the rule first, then rules of one term, then the mean
    worth: tuple[Worth, ...]
    verdict: Verdict

    def as_json(self) -> dict[str, object]:
        """Return all figures; they depend on the plan, the runs and the options alone."""
        found = self.fit
        return {
            "rule": self.rule.as_json(),
            "runs": {
                "fitted": list(found.runs.labels),
                "held_out": list(self.held_out),
                "replicates": [run.name for run in self.plan.runs if run.replicates and run.name in self.runs.names],
                "without_a_loss": list(self.missing),
            },
            "noise": self.noise.as_json(),
            "held_out": [asdict(score) for score in self.scores.values()],
            "indicators": [asdict(one) for one in self.worth],
            **self.verdict.as_json(),
        }


def fit_rule(folder: str | Path, options: FitOptions) -> RuleFit:
    """Fit a rule to three quarters of the runs, test it on the others, and write ``rule.json`` and ``fit.json``.

    Reads the plan and ``runs.csv``; ``training.json``, where it is there, names the model. The same files and options
    give the same bytes.

    Args:
        folder: of the experiment.
        options: how.

    Raises:
        InputError: there is no plan or it was edited, ``runs.csv`` is missing or is not of this plan, or too few runs
            have a loss.
        FittingError: a term is not known, a cell is no number, or no rule can be estimated.
        OutputError: the disk refuses a file, or another process works in the folder.
    """
    folder = Path(folder)
    plan = Plan.load(folder)
    with claimed(folder):
        runs = Finished.read(folder, plan)
        found = _fitted(folder, plan, runs, options)
        write_whole(folder / RULE, found.rule.content())
        write_whole(folder / FIGURES, orjson.dumps(found.as_json(), option=_INDENTED))
        return found


def _fitted(folder: Path, plan: Plan, runs: Finished, options: FitOptions) -> RuleFit:
    subsets = [run.name for run in plan.runs if run.kind != "replicate"]
    apart = held_out_runs(plan)
    held_out, fitted = runs.only(apart), runs.only([name for name in subsets if name not in apart])
    _check_enough(folder, fitted, held_out, subsets=len(subsets))
    alone = {term: _fit(plan, fitted, replace(options, terms=(term,), choose="all"), term) for term in fitted.varying}
    chosen = _fit(plan, fitted, replace(options, terms=_terms(plan, fitted, options)), _name(folder, options))
    rules = {THE_RULE: chosen.rule, **{term: one.rule for term, one in alone.items()}}
    found = scores(fitted, held_out, rules, seed=plan.seed)
    noise = NoiseFloor.of(plan, runs)
    verdict = Verdict.of(found[THE_RULE], chosen, held_out=len(held_out.names))
    experiment = {
        "found": verdict.found,
        "conclusion": verdict.text,
        "held_out": [asdict(score) for score in found.values()],
        "held_out_runs": list(held_out.names),
        "noise": noise.as_json(),
        **_origin(folder, plan, runs),
        "licences": list(options.licences),
    }
    return RuleFit(
        plan=plan,
        fit=chosen,
        rule=_rule(plan, chosen, verdict, experiment),
        runs=runs,
        held_out=held_out.names,
        missing=tuple(run.name for run in plan.runs if run.name not in runs.names),
        noise=noise,
        scores=found,
        worth=worth_of(plan, fitted, chosen, alone),
        verdict=verdict,
    )


def _check_enough(folder: Path, fitted: Finished, held_out: Finished, *, subsets: int) -> None:
    has, apart = len(fitted.names), len(held_out.names)
    if has < LEAST_FITTED or apart < LEAST_HELD_OUT:
        raise InputError(
            f"{folder}: of {subsets} subsets, {has} to fit and {apart} held out have a loss; a fit needs at least "
            f"{LEAST_FITTED} and {LEAST_HELD_OUT}; train more runs, or design an experiment of more"
        )


def _terms(plan: Plan, fitted: Finished, options: FitOptions) -> tuple[str, ...]:
    """Return the indicators to consider: those that are asked for and vary."""
    asked = plan.indicators if options.terms is None else options.terms
    if unknown := [term for term in asked if term not in plan.indicators]:
        raise FittingError(f"{PLAN}: {no_such('indicator', unknown, plan.indicators)}")
    found = tuple(dict.fromkeys(term for term in asked if term in fitted.varying))
    if not found:
        raise FittingError(f"{RUNS_CSV}: no indicator differs between the fitted runs: {', '.join(asked)}")
    return found


def _fit(plan: Plan, fitted: Finished, options: FitOptions, name: str) -> Fit:
    return fit(
        fitted.columns(),
        terms=options.terms,
        choose="all" if options.terms is not None and len(options.terms) == 1 else options.choose,  # nothing to choose
        bootstrap=options.bootstrap,
        seed=plan.seed,
        rule_id=name,
        reward_model=plan.reward_model,
    )


def _name(folder: Path, options: FitOptions) -> str:
    return options.rule_id or utf8(folder.resolve().name)


def _rule(plan: Plan, chosen: Fit, verdict: Verdict, experiment: Mapping[str, object]) -> Rule:
    rule = chosen.rule
    warnings = [*([] if verdict.found else [verdict.text]), *chosen.warnings]
    provenance = {**rule.provenance, "warnings": warnings, "experiment": dict(experiment)}
    reward_model = plan.reward_model if "reward" in rule.terms else None
    return replace(rule, reward_model=reward_model, provenance=provenance)


def _origin(folder: Path, plan: Plan, runs: Finished) -> dict[str, object]:
    """Return what was trained on what, without the paths of one machine.

    Raises:
        InputError: the runs were trained by another plan.
    """
    begun = Begun.load(folder) if (folder / SETTINGS).exists() else None
    digest = plan_digest(folder)
    if begun is not None and begun.plan_sha256 != digest:
        raise InputError(f"{folder / SETTINGS}: its runs were trained by another plan; fit them in their own folder")
    return {
        "plan_sha256": digest,
        "runs_sha256": runs.sha256,
        "seed": plan.seed,
        "model": None if begun is None else dict(begun.model),
        "evaluation_set": plan.evaluation[0].name,
        "files": [{"name": Path(file.path).name, "sha256": file.sha256, "rows": file.rows} for file in plan.files],
    }
