from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import orjson
import pytest
from made_up_runs import INDICATORS, lines_of, plan_of, write_runs

from instructmining.errors import FittingError, InputError
from instructmining.rules import Rule
from instructmining_experiments.fitting.quarter import held_out_runs
from instructmining_experiments.fitting.rule_fit import FIGURES, RULE, FitOptions, fit_rule
from instructmining_experiments.state.plan import PLAN, Plan
from instructmining_experiments.state.settings import SETTINGS, Begun, Settings, plan_digest

PLANTED = {"perplexity": 0.02, "ifd": -0.01}


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    plan = plan_of(40, replicates=8, seed=1, reward="made-up/reward")
    return write_runs(tmp_path / "planted", plan, lines_of(plan, PLANTED, seed=1))


def test_a_planted_effect_is_found_with_its_sign_and_size(planted: Path) -> None:
    found = fit_rule(planted, FitOptions(bootstrap=300))
    assert found.verdict.found
    assert found.verdict.text.startswith("found: the rule predicts 10 held-out runs better than the mean of the 30 ")
    worth = {one.name: one for one in found.worth}
    assert {name: one.state for name, one in worth.items()} == {
        "output_length": "not chosen",
        "perplexity": "chosen",
        "reward": "not chosen",
        "ifd": "chosen",
    }
    effects = [(worth[name].effect, worth[name].spread, unit) for name, unit in (("perplexity", 1.0), ("ifd", 0.05))]
    scaled = [effect / spread * unit for effect, spread, unit in effects if effect is not None and spread is not None]
    assert scaled == pytest.approx([0.02, -0.01], abs=0.005)
    assert worth["reward"].alone_interval is not None
    assert worth["reward"].alone_interval[0] < 0 < worth["reward"].alone_interval[1]


def test_of_forty_experiments_without_an_effect_few_find_one(tmp_path: Path) -> None:
    found = []
    for seed in range(40):
        plan = plan_of(40, seed=seed)
        folder = write_runs(tmp_path / str(seed), plan, lines_of(plan, {}, seed=seed))
        one = fit_rule(folder, FitOptions(bootstrap=0))
        found.append(one.verdict.found)
        warned = one.rule.provenance["warnings"]
        assert isinstance(warned, list)
        assert (one.verdict.text in warned) is not one.verdict.found
    assert sum(found) <= 4  # 2.5 % of many are expected, some more of small quarters


def test_the_held_out_runs_are_those_of_the_plan_whatever_the_losses_are(tmp_path: Path) -> None:
    plan = plan_of(24, seed=2)
    lines = lines_of(plan, PLANTED)
    apart = held_out_runs(plan)
    first = fit_rule(write_runs(tmp_path, plan, lines), FitOptions(bootstrap=0))
    assert first.held_out == apart
    assert first.fit.runs.labels == tuple(run.name for run in plan.runs if run.name not in apart)
    # Other losses of held-out runs change nothing that is fitted.
    others = [line | {"loss": 9.0 + at} if line["name"] in apart else line for at, line in enumerate(lines)]
    second = fit_rule(write_runs(tmp_path, plan, others), FitOptions(bootstrap=0))
    assert second.rule.terms == first.rule.terms
    assert second.scores != first.scores
    # Runs to come are counted, and the others stay where they are.
    third = fit_rule(write_runs(tmp_path, plan, lines[:-3]), FitOptions(bootstrap=0))
    assert third.missing == ("r022", "r023", "r024")
    assert set(third.held_out) == set(apart) - set(third.missing)


def test_a_rule_of_one_term_is_tested_for_every_indicator(planted: Path) -> None:
    found = fit_rule(planted, FitOptions(terms=("ifd", "reward"), bootstrap=0))
    assert list(found.scores) == ["rule", *INDICATORS, "mean"]
    assert {one.name: one.state for one in found.worth if one.state == "not considered"} == {
        "output_length": "not considered",
        "perplexity": "not considered",
    }
    plan = Plan.load(planted)
    apart = held_out_runs(plan)
    lines = {str(line["name"]): line for line in lines_of(plan, PLANTED, seed=1)}
    fitted = [line for name, line in lines.items() if name not in apart and "-" not in name]
    x, y = (np.array([float(str(line[name])) for line in fitted]) for name in ("perplexity", "loss"))
    slope, constant = np.polyfit(x, np.log(y), 1)
    errors = [
        math.log(float(str(lines[name]["loss"]))) - constant - slope * float(str(lines[name]["perplexity"]))
        for name in apart
    ]
    assert found.scores["perplexity"].squared_error == pytest.approx(np.mean(np.square(errors)))


def test_a_repeated_call_writes_the_same_bytes_and_the_rule_is_one(planted: Path) -> None:
    written = []
    for _ in range(2):
        found = fit_rule(planted, FitOptions(bootstrap=100, licences=("cc-by-4.0", "apache-2.0")))
        written.append([(planted / name).read_bytes() for name in (RULE, FIGURES)])
    assert written[0] == written[1]
    assert sorted(path.name for path in planted.iterdir()) == ["fit.json", "plan.json", "rule.json", "runs.csv"]
    rule = Rule.load(planted / RULE)
    assert (rule.id, rule.terms, rule.reward_model) == ("planted", found.rule.terms, None)
    means = {name: np.full(2, 1.0) for name in rule.terms}
    assert rule.predict(means).shape == (2,)
    experiment = rule.provenance["experiment"]
    assert isinstance(experiment, dict)
    assert experiment["found"] is True
    assert experiment["plan_sha256"] == plan_digest(planted)
    assert experiment["held_out_runs"] == list(found.held_out)
    assert experiment["files"] == [{"name": "pool.jsonl", "sha256": "c" * 64, "rows": 42}]
    assert experiment["evaluation_set"] == "held_out"
    assert experiment["licences"] == ["cc-by-4.0", "apache-2.0"]
    assert experiment["model"] is None
    figures = orjson.loads((planted / FIGURES).read_bytes())
    assert figures["rule"] == orjson.loads((planted / RULE).read_bytes())
    assert figures["runs"]["replicates"] == [f"r{number:03d}-2" for number in range(1, 9)]


def test_the_rule_names_the_reward_model_where_it_has_the_term_and_the_model_that_was_trained(tmp_path: Path) -> None:
    plan = plan_of(24, reward="made-up/reward")
    folder = write_runs(tmp_path, plan, lines_of(plan, {"reward": 0.05}))
    begun = Begun({"id": "a/model", "licence": "apache-2.0"}, Settings(), "cpu", plan_digest(folder))
    begun.keep(folder)
    rule = fit_rule(folder, FitOptions(terms=("reward",), rule_id="mine", bootstrap=0)).rule
    assert (rule.id, rule.reward_model) == ("mine", "made-up/reward")
    experiment = rule.provenance["experiment"]
    assert isinstance(experiment, dict)
    assert experiment["model"] == begun.model
    Begun(begun.model, Settings(), "cpu", "0" * 64).keep(folder)
    with pytest.raises(InputError, match=f"{SETTINGS}: its runs were trained by another plan"):
        fit_rule(folder, FitOptions())


def test_indicators_that_tell_nothing_are_left_out_and_said(tmp_path: Path) -> None:
    plan = plan_of(24)
    lines = [line | {"reward": 0.25, "ifd": ""} for line in lines_of(plan, PLANTED)]
    folder = write_runs(tmp_path, plan, lines)
    found = fit_rule(folder, FitOptions(bootstrap=0))
    assert {one.name: one.state for one in found.worth if one.spread is None} == {
        "reward": "same in all runs",
        "ifd": "empty",
    }
    assert list(found.scores) == ["rule", "output_length", "perplexity", "mean"]
    with pytest.raises(FittingError, match="no indicator differs between the fitted runs: reward, ifd"):
        fit_rule(folder, FitOptions(terms=("reward", "ifd")))
    with pytest.raises(FittingError, match=r"plan.json: no indicator 'perplexty'; did you mean 'perplexity'"):
        fit_rule(folder, FitOptions(terms=("perplexty",)))


def test_few_held_out_runs_tell_nothing_and_too_few_are_an_error(tmp_path: Path) -> None:
    plan = plan_of(8)
    lines = lines_of(plan, PLANTED, noise=1e-4)
    found = fit_rule(write_runs(tmp_path, plan, lines), FitOptions(bootstrap=0))
    assert not found.verdict.found
    assert "2 held-out runs are too few to tell; 5 are needed, so about 20 subsets" in found.verdict.text
    write_runs(tmp_path, plan, lines[:4])
    with pytest.raises(InputError, match=r"of 8 subsets, . to fit and . held out have a loss; a fit needs at least 5 "):
        fit_rule(tmp_path, FitOptions())


def test_what_size_of_experiment_would_tell_is_said(tmp_path: Path) -> None:
    plan = plan_of(24, seed=3)
    folder = write_runs(tmp_path, plan, lines_of(plan, {"perplexity": 0.006}, seed=4))
    verdict = fit_rule(folder, FitOptions(terms=("perplexity",), choose="all", bootstrap=0)).verdict
    assert not verdict.found
    assert "in 80% of experiments 18 fitted runs show a correlation of 0.62 of a mean and the loss" in verdict.text
    assert 0 < verdict.observed_r2 < 0.5
    assert verdict.subsets_needed is not None
    assert verdict.text.endswith(f"would need about {verdict.subsets_needed:,} subsets")
    assert verdict.subsets_needed > 100


def test_a_plan_that_is_missing_or_was_edited_is_one_clear_error(planted: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no plan.json"):
        fit_rule(tmp_path / "nowhere", FitOptions())
    (planted / PLAN).write_bytes((planted / PLAN).read_bytes().replace(b'"seed": 1,', b'"seed": 2,', 1))
    with pytest.raises(InputError, match="was edited after it was written"):
        fit_rule(planted, FitOptions())


def test_fitting_loads_none_of_the_libraries_that_train() -> None:
    code = "import sys, instructmining_experiments.fitting.rule_fit; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "onnx_ir"} & set(done.stdout.split())
