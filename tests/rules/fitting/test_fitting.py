from __future__ import annotations

import csv
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import polars as pl
import pytest
import statsmodels.api as sm
from numpy.typing import NDArray
from paths import ROOT
from scipy.stats import binom
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneOut, cross_val_predict
from statsmodels.stats.outliers_influence import OLSInfluence, variance_inflation_factor

from instructmining import Rule, fit
from instructmining.errors import FittingError
from instructmining.rules.fitting import Fit

RUNS = ROOT / "examples" / "runs.csv"
TRUE = Rule.load("paper-v3")
UNIEVAL = ("naturalness", "coherence", "understandability")

Columns = dict[str, NDArray[np.float64]]


def example_columns() -> Columns:
    with RUNS.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "name"}


def simulated(seed: int, *, runs: int = 60, noise: float = 0.01) -> Columns:
    """Runs of which the rule paper-v3 is true, with normal errors of log loss."""
    rng = np.random.default_rng(seed)
    means = {"reward": rng.normal(1.0, 0.5, runs)}
    means |= {name: rng.normal(0.85, 0.05, runs) for name in UNIEVAL}
    return means | {"loss": np.exp(TRUE.predict(means) + rng.normal(0.0, noise, runs))}


def statsmodels_fit(columns: Columns, terms: tuple[str, ...]) -> sm.regression.linear_model.RegressionResults:
    design = np.column_stack([np.ones(len(columns["loss"])), *(columns[term] for term in terms)])
    return sm.OLS(np.log(columns["loss"]), design).fit()


def coefficients(found: Fit, figure: str) -> NDArray[np.float64]:
    return np.array([getattr(coefficient, figure) for coefficient in (found.intercept, *found.coefficients)])


# The figures


def test_every_figure_is_that_of_statsmodels() -> None:
    columns = example_columns()
    terms = tuple(name for name in columns if name != "loss")
    found, wanted = fit(RUNS, choose="all"), statsmodels_fit(columns, terms)
    assert tuple(coefficient.name for coefficient in found.coefficients) == terms
    close = {"rel": 1e-10, "abs": 1e-12}
    assert coefficients(found, "value") == pytest.approx(wanted.params, **close)
    assert coefficients(found, "standard_error") == pytest.approx(wanted.bse, **close)
    assert coefficients(found, "t") == pytest.approx(wanted.tvalues, **close)
    assert coefficients(found, "p") == pytest.approx(wanted.pvalues, **close)
    assert coefficients(found, "interval") == pytest.approx(wanted.conf_int(), **close)
    inflation = [variance_inflation_factor(wanted.model.exog, at) for at in range(1, len(terms) + 1)]
    assert [coefficient.vif for coefficient in found.coefficients] == pytest.approx(inflation, **close)
    figures = (wanted.rsquared, wanted.rsquared_adj, wanted.fvalue, wanted.f_pvalue, wanted.aic, wanted.bic)
    got = found.quality
    assert (got.r2, got.adjusted_r2, got.f, got.f_p, got.aic, got.bic) == pytest.approx(figures, **close)
    assert got.residual_sd == pytest.approx(np.sqrt(wanted.mse_resid), **close)
    assert found.residuals == pytest.approx(wanted.resid, **close)
    assert found.left_out_residuals == pytest.approx(OLSInfluence(wanted).resid_press, **close)


def test_cross_validated_r2_is_that_of_scikit_learn() -> None:
    columns = simulated(1)
    values, target = np.column_stack([columns[name] for name in TRUE.terms]), np.log(columns["loss"])
    predicted = cross_val_predict(LinearRegression(), values, target, cv=LeaveOneOut())
    found = fit(columns, terms=tuple(TRUE.terms), choose="all").quality
    assert found.loo_r2 == pytest.approx(r2_score(target, predicted), rel=1e-9)
    assert found.loo_error == pytest.approx(np.sqrt(np.mean((target - predicted) ** 2)), rel=1e-9)
    assert found.nested_loo_r2 is None


def test_bootstrap_intervals_are_percentiles_over_runs_drawn_again_and_again() -> None:
    columns = simulated(2, runs=30)
    found = fit(columns, choose="all", bootstrap=300, seed=5)
    design = np.column_stack([np.ones(30), *(columns[coefficient.name] for coefficient in found.coefficients)])
    target = np.log(columns["loss"])
    draws = np.random.default_rng(5).integers(30, size=(300, 30))
    fits = np.array([np.linalg.lstsq(design[drawn], target[drawn])[0] for drawn in draws])
    wanted = np.percentile(fits, [2.5, 97.5], axis=0).T
    assert coefficients(found, "bootstrap_interval") == pytest.approx(wanted, rel=1e-6)
    assert fit(columns, choose="all", bootstrap=300, seed=5).rule == found.rule
    assert fit(columns, choose="all", bootstrap=300, seed=6).coefficients != found.coefficients
    assert fit(columns, choose="all", bootstrap=0).intercept.bootstrap_interval is None


# The choice of terms


def brute_force(columns: Columns, names: tuple[str, ...]) -> dict[tuple[str, ...], tuple[float, float]]:
    """Adjusted R² and PRESS of every subset, by statsmodels."""
    found = {}
    for terms in (terms for size in range(1, len(names) + 1) for terms in combinations(names, size)):
        result = statsmodels_fit(columns, terms)
        found[terms] = result.rsquared_adj, float(np.sum(OLSInfluence(result).resid_press ** 2))
    return found


def test_the_best_subset_is_that_of_trying_all() -> None:
    columns = example_columns()
    names = ("mtld", "perplexity", "reward", *UNIEVAL)
    wanted = brute_force(columns, names)
    for choose, rank in (("loo", lambda terms: wanted[terms][1]), ("adjusted-r2", lambda terms: -wanted[terms][0])):
        found = fit(columns, terms=names, choose=choose, bootstrap=0)
        order = sorted(wanted, key=rank)
        assert tuple(found.rule.terms) == order[0]
        assert [subset.terms for subset in found.search] == order
        assert [subset.adjusted_r2 for subset in found.search] == pytest.approx([wanted[terms][0] for terms in order])
        runs = len(columns["loss"])
        press = [subset.loo_error**2 * runs for subset in found.search]
        assert press == pytest.approx([wanted[terms][1] for terms in order])


def test_nine_terms_are_511_fits() -> None:
    found = fit(RUNS, bootstrap=0)
    assert len(found.search) == 511
    assert found.rule.provenance["choose"]["subsets"] == 511  # type: ignore[index]


def test_the_papers_way_drops_the_least_significant_term_until_all_are_significant() -> None:
    columns = example_columns()
    left = tuple(name for name in columns if name != "loss")
    wanted = [left]
    while (p := statsmodels_fit(columns, left).pvalues[1:]).max() >= 0.05:
        left = tuple(name for at, name in enumerate(left) if at != p.argmax())
        wanted.append(left)
    found = fit(RUNS, choose="paper", bootstrap=0)
    assert [subset.terms for subset in found.search] == wanted
    assert tuple(found.rule.terms) == left
    assert len(wanted) > 3
    r2 = [subset.r2 for subset in found.search]
    assert r2 == sorted(r2, reverse=True)  # so that the highest R² says nothing


def test_the_papers_way_is_validated_with_its_choice_inside() -> None:
    columns = simulated(4, runs=16, noise=0.03)
    target, errors, kept = np.log(columns["loss"]), [], set()
    for run in range(16):
        others = {name: np.delete(values, run) for name, values in columns.items()}
        left = tuple(TRUE.terms)
        while left and (p := statsmodels_fit(others, left).pvalues[1:]).max() >= 0.05:
            left = tuple(name for at, name in enumerate(left) if at != p.argmax())
        kept.add(left)
        result = statsmodels_fit(others, left)
        errors.append(target[run] - result.params @ [1.0, *(columns[name][run] for name in left)])
    assert len(kept) > 1
    found = fit(columns, terms=tuple(TRUE.terms), choose="paper", bootstrap=0)
    wanted = 1 - np.sum(np.square(errors)) / np.sum((target - target.mean()) ** 2)
    assert found.quality.nested_loo_r2 == pytest.approx(wanted, rel=1e-9)


def test_terms_of_no_effect_look_worse_when_the_search_is_validated_too() -> None:
    rng = np.random.default_rng(12)
    names = ("reward", "mtld", "knn_6", *UNIEVAL)
    gaps = []
    for _ in range(10):
        columns = {name: rng.normal(size=40) for name in names} | {"loss": np.exp(rng.normal(0, 0.01, 40))}
        quality = fit(columns, bootstrap=0).quality
        assert quality.nested_loo_r2 is not None
        gaps.append((quality.r2, quality.loo_r2, quality.nested_loo_r2))
    r2, loo, nested = np.mean(gaps, axis=0)
    assert r2 > 0.05  # of noise
    assert nested < 0
    assert nested < loo < r2


# Simulation


def test_the_true_rule_is_found_where_there_is_next_to_no_noise() -> None:
    found = fit(simulated(0, noise=1e-9), bootstrap=0)
    assert set(found.rule.terms) >= set(TRUE.terms)
    found = fit(simulated(0, noise=1e-9), terms=tuple(TRUE.terms), choose="all")
    assert dict(found.rule.terms) == pytest.approx(dict(TRUE.terms), abs=1e-6)
    assert found.rule.intercept == pytest.approx(TRUE.intercept, abs=1e-6)
    assert found.quality.r2 == pytest.approx(1.0)


def coverage(simulations: int, bootstrap: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For each coefficient of the true rule, how often its intervals held the true value."""
    held, resampled = np.zeros(5, dtype=np.int64), np.zeros(5, dtype=np.int64)
    for seed in range(simulations):
        found = fit(simulated(seed), terms=tuple(TRUE.terms), choose="all", bootstrap=bootstrap, seed=seed)
        for at, coefficient in enumerate((found.intercept, *found.coefficients)):
            true = TRUE.terms.get(coefficient.name, TRUE.intercept)
            held[at] += coefficient.interval[0] <= true <= coefficient.interval[1]
            if coefficient.bootstrap_interval is not None:
                resampled[at] += coefficient.bootstrap_interval[0] <= true <= coefficient.bootstrap_interval[1]
    return held, resampled


def test_the_intervals_hold_the_true_coefficients_as_often_as_they_say() -> None:
    # 475 of 500 are expected; the count of an honest interval is outside of 458 to 489 once in 1,000.
    held, _ = coverage(500, 0)
    low, high = binom.interval(0.999, 500, 0.95)
    assert (low, high) == (458, 489)
    assert np.all((held >= low) & (held <= high)), held


def test_bootstrap_intervals_hold_the_true_coefficients_a_little_less_often() -> None:
    # Percentile intervals of 60 runs held them in 93.7 % of 2,000 simulations (docs/fitting.md).
    _, resampled = coverage(200, 500)
    low, high = binom.interval(0.999, 200, 0.937)
    assert np.all((resampled >= low) & (resampled <= high)), resampled


# The rule


def test_the_rule_file_predicts_what_statsmodels_predicts(tmp_path: Path) -> None:
    columns = example_columns()
    found = fit(RUNS, terms=["reward", *UNIEVAL], choose="all", reward_model="org/model", rule_id="mine")
    found.rule.save(tmp_path / "rule.json")
    rule = Rule.load(tmp_path / "rule.json")
    result = statsmodels_fit(columns, ("reward", *UNIEVAL))
    assert rule.predict(columns) == pytest.approx(result.predict(), abs=1e-12)
    assert (rule.id, rule.reward_model) == ("mine", "org/model")
    assert replace(rule, digest="") == replace(found.rule, provenance=rule.provenance)


def test_the_provenance_says_everything_and_survives_the_file(tmp_path: Path) -> None:
    found = fit(RUNS, reward_model="org/model")
    found.rule.save(tmp_path / "rule.json")
    said = json.loads((tmp_path / "rule.json").read_bytes())["provenance"]
    assert said == json.loads(json.dumps(found.rule.provenance))
    assert said["runs"]["count"] == 129
    assert said["considered"] == [name for name in example_columns() if name != "loss"]
    assert said["choose"]["by"] == "loo"
    assert said["bootstrap"] == {"of": "runs, percentiles", "resamples": 2000, "used": 2000, "seed": 0}
    assert said["quality"]["loo_r2"] == found.quality.loo_r2
    assert said["coefficients"]["reward"]["p"] == found.coefficients[0].p
    assert len(said["subsets"]) == 10
    assert said["warnings"] == list(found.warnings)
    assert set(said["versions"]) == {"instructmining", "numpy", "statsmodels"}
    for term, (least, greatest) in said["ranges"].items():
        values = example_columns()[term]
        assert (least, greatest) == (values.min(), values.max())


def test_a_set_outside_the_fitted_range_is_told() -> None:
    rule = fit(RUNS, terms=["reward", "mtld"], choose="all", bootstrap=0).rule
    inside = {name: float(values.mean()) for name, values in example_columns().items()}
    assert rule.outside_range(inside) == ()
    (told,) = rule.outside_range(inside | {"reward": 4.0})
    assert str(told) == "reward is 4, the rule's runs had 0.1143 to 1.588"


def test_tables_of_other_libraries_give_the_same_rule() -> None:
    columns = simulated(3)
    wanted = fit(columns)
    for table in (pd.DataFrame(columns), pl.DataFrame(columns), pl.DataFrame(columns).to_arrow()):
        assert fit(table).rule == wanted.rule


# Warnings


def test_collinear_terms_are_told_by_their_variance_inflation_and_the_condition_number() -> None:
    columns = simulated(5)
    columns["coherence"] = columns["naturalness"] + np.random.default_rng(0).normal(0, 1e-3, 60)
    told = fit(columns, terms=tuple(TRUE.terms), choose="all").warnings
    assert any(
        re.match(r"collinear: the variance inflation factor of naturalness is [\d.]+, over 10", it) for it in told
    )
    assert any(re.match(r"collinear: the condition number is [\d.]+, over 30", it) for it in told)
    assert not any("collinear" in it for it in fit(simulated(5), terms=tuple(TRUE.terms), choose="all").warnings)


@pytest.mark.parametrize(("runs", "few"), [(39, True), (40, False)])
def test_fewer_than_ten_runs_a_term_are_told(runs: int, few: bool) -> None:
    told = fit(simulated(6, runs=runs), terms=tuple(TRUE.terms), choose="all").warnings
    assert ("few runs: 39 for 4 terms considered, fewer than 10 per term" in told) is few


def test_a_term_without_effect_has_an_unknown_sign() -> None:
    columns = simulated(7) | {"mtld": np.random.default_rng(1).normal(70, 5, 60)}
    told = fit(columns, terms=[*TRUE.terms, "mtld"], choose="all").warnings
    assert "the sign of mtld is not known: its bootstrap interval contains 0" in told
    assert not any("understandability" in it for it in told)


def test_a_choice_made_on_the_same_runs_is_told() -> None:
    said = "the terms were chosen on these runs: standard errors, p-values and intervals are too small"
    assert said in fit(RUNS, bootstrap=0).warnings
    assert said not in fit(RUNS, choose="all", bootstrap=0).warnings


def test_a_rule_that_predicts_no_better_than_the_mean_is_told() -> None:
    rng = np.random.default_rng(2)
    columns = {"mtld": rng.normal(size=30), "loss": np.exp(rng.normal(size=30))}
    (told,) = [it for it in fit(columns, choose="all").warnings if "no better" in it]
    assert told.startswith("the rule predicts left-out runs no better than their mean does: R2 -0.")
    assert not any("no better" in it for it in fit(simulated(0)).warnings)


def test_a_run_that_alone_decides_a_coefficient_is_told() -> None:
    columns = simulated(8, runs=20) | {"knn_6": np.array([0.5] * 19 + [0.6])}
    found = fit(columns, terms=["reward", "knn_6"], choose="all", bootstrap=400)
    assert "run 20 alone determines a coefficient; the leave-one-out errors are not defined" in found.warnings
    left_out = 400 - found.resamples
    assert f"{left_out} of 400 resamples do not determine all coefficients: left out" in found.warnings
    assert left_out == pytest.approx(400 * (19 / 20) ** 20, rel=0.3)
    assert "knn_6" not in fit(columns, bootstrap=0).rule.terms


def test_a_column_that_others_make_up_is_passed_over_by_the_search_and_told() -> None:
    columns = simulated(9)
    columns["mtld"] = 2 * columns["reward"] + 1
    found = fit(columns, bootstrap=0)
    assert not {"mtld", "reward"} <= set(found.rule.terms)
    assert "some of the terms considered are exact combinations of others; subsets that contain one were skipped" in (
        found.warnings
    )


def test_a_reward_without_its_model_is_told() -> None:
    said = "the rule has the term reward but names no reward model; give it with --reward-model"
    assert said in fit(RUNS, terms=["reward"], choose="all", bootstrap=0).warnings
    assert said not in fit(RUNS, terms=["reward"], choose="all", bootstrap=0, reward_model="org/model").warnings


# Errors


@pytest.mark.parametrize(
    ("runs", "options", "message"),
    [
        (4, {}, "4 runs for 4 terms are too few; wanted at least 5 runs$"),
        (7, {"choose": "all"}, "7 runs for 4 terms are too few; wanted at least 8 runs, or fewer terms"),
        (7, {"choose": "paper"}, "wanted at least 8 runs, or fewer terms"),
        (20, {"choose": "best"}, "choose is 'best', wanted one of loo, adjusted-r2, paper, all"),
        (20, {"bootstrap": -1}, "bootstrap is -1 and seed 0, wanted neither below 0"),
        (20, {"seed": -1}, "bootstrap is 2000 and seed -1, wanted neither below 0"),
    ],
)
def test_what_cannot_be_fitted_is_said(runs: int, options: dict[str, object], message: str) -> None:
    with pytest.raises(FittingError, match=message):
        fit(simulated(0, runs=runs), **options)  # type: ignore[arg-type]


def test_few_runs_are_searched_in_small_subsets_only() -> None:
    found = fit(simulated(0, runs=6), bootstrap=0)
    assert max(len(subset.terms) for subset in found.search) == 2
    assert "subsets of more than 2 terms were not searched: the runs are too few" in found.warnings


def test_too_many_terms_to_search_are_refused_and_taken_whole() -> None:
    rng = np.random.default_rng(0)
    columns = {f"term_{at}": rng.normal(size=40) for at in range(13)} | {"loss": rng.uniform(0.9, 1.1, 40)}
    terms = [name for name in columns if name != "loss"]
    with pytest.raises(FittingError, match="13 terms have 8,191 subsets; name at most 12 of them, or take 'all'"):
        fit(columns, terms=terms)
    assert len(fit(columns, terms=terms, choose="all", bootstrap=0).rule.terms) == 13


@pytest.mark.parametrize("choose", ["all", "paper"])
def test_collinear_terms_that_must_all_be_taken_are_refused(choose: str) -> None:
    columns = simulated(9)
    columns["mtld"] = 2 * columns["reward"] + 1
    with pytest.raises(FittingError, match="is a combination of the others; name fewer terms"):
        fit(columns, choose=choose)  # type: ignore[arg-type]


def test_the_papers_way_may_leave_nothing() -> None:
    rng = np.random.default_rng(3)
    columns = {"mtld": rng.normal(size=30), "knn_6": rng.normal(size=30), "loss": np.exp(rng.normal(size=30))}
    with pytest.raises(FittingError, match=r"none of mtld, knn_6 has a p-value below 0\.05: no term is left"):
        fit(columns, choose="paper")


def test_without_statsmodels_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "statsmodels.regression.linear_model", None)
    with pytest.raises(FittingError, match=r"pip install 'instructmining\[fit\]'"):
        fit(RUNS)


# The command


def test_the_command_writes_a_rule_that_loads_and_reports_on_standard_output(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "ours.json"
    assert run("fit", RUNS, "-o", out, "--terms", "reward, mtld", "--choose", "all", "--seed", "3") == 0
    shown = capsys.readouterr()
    rule = Rule.load(out)
    wanted = fit(RUNS, terms=["reward", "mtld"], choose="all", seed=3, rule_id="ours")
    assert (rule.id, rule.intercept, rule.terms) == ("ours", wanted.rule.intercept, wanted.rule.terms)
    assert f"R2                             {wanted.quality.r2:.3f}\n" in shown.out
    for coefficient in wanted.coefficients:
        assert re.search(rf"^{coefficient.name} +{coefficient.value:.4g} ", shown.out, re.MULTILINE)
    assert [line for line in shown.err.splitlines() if line.startswith("warning: ")] == [
        f"warning: {it}" for it in wanted.warnings
    ]
    assert [file.name for file in tmp_path.iterdir()] == ["ours.json"]


def test_score_takes_the_rule(run: Callable[..., int], small_bundle: Path, tmp_path: Path) -> None:
    rule, out = tmp_path / "rule.json", tmp_path / "out.jsonl"
    assert run("fit", RUNS, "-o", rule, "--terms", "reward,output_length", "--choose", "all", "--bootstrap", "0") == 0
    alpaca = ROOT / "examples" / "alpaca.json"
    assert run("score", alpaca, "-o", out, "--bundle", small_bundle, "--device", "cpu", "--rule", rule) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    fitted = Rule.load(rule)
    for row in rows:
        wanted = fitted.intercept + sum(weight * row[term] for term, weight in fitted.terms.items())
        assert row["predicted_log_loss"] == pytest.approx(wanted, abs=1e-12)
    assert len(rows) == 8


def test_the_json_holds_every_subset_and_every_run(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, figures = tmp_path / "rule.json", tmp_path / "figures.json"
    assert run("fit", RUNS, "-o", out, "--figures", figures, "--id", "mine") == 0
    said = json.loads(figures.read_bytes())
    assert said["rule"] == json.loads(out.read_bytes())
    assert said["rule"]["id"] == "mine"
    assert len(said["subsets"]) == 511
    assert [line["run"] for line in said["runs"]][:2] == ["mix-001", "mix-002"]
    for line in said["runs"]:
        assert np.log(line["loss"]) - line["fitted_log_loss"] == pytest.approx(line["residual"], abs=1e-12)
    capsys.readouterr()
    assert run("fit", RUNS, "-o", out, "--json", "--id", "mine", "--overwrite") == 0
    assert json.loads(capsys.readouterr().out) == said


def test_the_plot_has_a_point_for_each_run_where_its_residual_is(run: Callable[..., int], tmp_path: Path) -> None:
    plot = tmp_path / "residuals.svg"
    assert run("fit", RUNS, "-o", tmp_path / "rule.json", "--plot", plot, "--choose", "all", "--bootstrap", "0") == 0
    found = fit(RUNS, choose="all", bootstrap=0)
    points = ElementTree.parse(plot).findall(".//{*}circle")
    heights = np.array([float(point.attrib["cy"]) for point in points])
    assert np.corrcoef(heights, found.residuals)[0, 1] == pytest.approx(-1.0, abs=1e-4)
    across = np.array([float(point.attrib["cx"]) for point in points])
    assert np.corrcoef(across, found.fitted)[0, 1] == pytest.approx(1.0, abs=1e-4)
    assert points[0][0].text == f"mix-001: {found.residuals[0]:+.5f}"


@pytest.mark.parametrize("name", ["rule.json", "figures.json", "residuals.svg"])
def test_files_that_exist_are_kept_without_overwrite(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / name).write_text("mine")
    command = ("fit", RUNS, "-o", tmp_path / "rule.json", "--figures", tmp_path / "figures.json")
    command += ("--plot", tmp_path / "residuals.svg", "--bootstrap", "10", "--choose", "all")
    assert run(*command) == 1
    assert f"{name}: exists; give --overwrite to replace it" in capsys.readouterr().err
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "mine")]
    assert run(*command, "--overwrite") == 0
    assert len(list(tmp_path.iterdir())) == 3


def test_the_runs_file_is_never_replaced(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs.csv"
    runs.write_bytes(RUNS.read_bytes())
    assert run("fit", runs, "-o", runs, "--overwrite") == 1
    assert "which this command reads; name another output" in capsys.readouterr().err
    assert runs.read_bytes() == RUNS.read_bytes()


@pytest.mark.parametrize(
    "options",
    [
        ("--plot", "residuals.png"),
        ("--choose", "best"),
        ("--bootstrap", "-1"),
        ("--figures", "rule.json"),
    ],
)
def test_wrong_usage_ends_with_code_2(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("fit", RUNS, "-o", "rule.json", *options) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_takes_no_file_is_refused_before_the_work(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", tmp_path / "absent.csv", "-o", tmp_path) == 1
    assert "is a folder; name a file" in capsys.readouterr().err


def test_a_folder_for_the_rule_is_made(run: Callable[..., int], tmp_path: Path) -> None:
    out = tmp_path / "new" / "rule.json"
    assert run("fit", RUNS, "-o", out, "--bootstrap", "10") == 0
    assert Rule.load(out).id == "rule"
    assert [path.name for path in out.parent.iterdir()] == ["rule.json"]


def test_faults_of_the_runs_end_with_code_1_and_no_rule(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs.csv"
    runs.write_text("reward,loss\n1,0.9\n2,zero\n")
    assert run("fit", runs, "-o", tmp_path / "rule.json") == 1
    error = capsys.readouterr().err
    assert error == "error: runs.csv, line 3, column 'loss': 'zero', wanted a finite number\n"
    assert not (tmp_path / "rule.json").exists()


# The example and the documentation


def test_the_example_runs_are_those_that_the_script_simulates(tmp_path: Path) -> None:
    again = tmp_path / "runs.csv"
    subprocess.run([sys.executable, str(ROOT / "examples" / "simulate_runs.py"), str(again)], check=True)
    assert again.read_bytes() == RUNS.read_bytes()


def test_every_figure_of_the_documentation_is_what_its_command_prints(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "docs" / "fitting.md").read_text(encoding="utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    shown = re.findall(r"```sh\n\S*instructmining (fit [^`]*?)```\n+```text\n(.*?)```", text, re.DOTALL)
    assert len(shown) >= 2
    for command, wanted in shown:
        assert run(*shlex.split(command.replace("\\\n", " "))) == 0
        printed = capsys.readouterr()
        assert printed.out + "".join(f"{line}\n" for line in printed.err.splitlines()) == wanted
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (wanted,) = re.findall(r"```python\n.*?```\n+```text\n(.*?)```", text, re.DOTALL)
    with redirect_stdout(io.StringIO()) as out:
        exec(code, {})
    assert out.getvalue() == wanted


def test_the_report_fits_the_terminal(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("fit", RUNS, "-o", tmp_path / "ours.json", "--choose", "all", "--bootstrap", "99") == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
