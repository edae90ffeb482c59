"""The result of ``experiment fit`` as text."""

from __future__ import annotations

from collections.abc import Iterator

from instructmining.rules.fitting import Coefficient
from instructmining.scored.aligning import aligned, wrapped
from instructmining_experiments.fitting.quarter import MEAN, Score
from instructmining_experiments.fitting.rule_fit import THE_RULE, RuleFit
from instructmining_experiments.fitting.worth import NOTHING, State, Worth

_WORDS: dict[State, str] = {
    "chosen": "chosen",
    "sign not known": "chosen; its sign is not known",
    "not chosen": "not chosen",
    "not considered": "not considered",
    "same in all runs": "left out: the same in all fitted runs",
    "empty": "left out: has no value",
}


def as_text(found: RuleFit, width: int | None = None) -> str:
    """Return the result as text; the first line says in a sentence what was found.

    Args:
        found: the rule with its test.
        width: most characters of a line; None for no limit.
    """
    blocks = [
        wrapped(found.verdict.text, width),
        "\n".join(wrapped(line, width, indent=12) for line in _heading(found)),
        aligned(list(_scores(found)), width),
        aligned([_HEAD, *(_coefficient(term) for term in (found.fit.intercept, *found.fit.coefficients))], width),
        aligned(list(_indicators(found)), width),
        wrapped(_worth_nothing(found), width),
    ]
    return "\n\n".join(blocks)


def _heading(found: RuleFit) -> Iterator[str]:
    runs = found.plan.runs
    subsets = sum(run.kind != "replicate" for run in runs)
    repeated = len(found.runs.names) - len(found.fit.runs) - len(found.held_out)
    yield (
        f"runs        {subsets} subsets: {len(found.fit.runs)} fitted, {len(found.held_out)} held out; "
        f"{repeated} of {len(runs) - subsets} replicates have a loss"
    )
    if found.missing:
        yield f"missing     {len(found.missing)} have no loss: {', '.join(found.missing)}"
    yield f"losses      on {found.plan.evaluation[0].name}; {_noise(found)}"
    yield f"chosen by   {found.fit.choose}: {found.fit.how}"
    quality = found.fit.quality
    nested = "" if quality.nested_loo_r2 is None else f", nested {quality.nested_loo_r2:.3f}"
    yield f"fitted      R2 {quality.r2:.3f}, leave-one-out R2 {quality.loo_r2:.3f}{nested}"


def _noise(found: RuleFit) -> str:
    noise = found.noise
    between = "" if noise.between is None else f"log loss differs by {noise.between:.3g} between subsets (SD), "
    if noise.noise is None or noise.interval is None:
        return (
            f"{between}by an unknown part of it for chance: no replicate has a loss beside the run that it repeats, so "
            "the largest R2 that a rule can reach is not known"
        )
    least, most = noise.interval
    said = (
        f"{between}by {noise.noise:.3g} between runs on the same rows (95 % {least:.3g} to {most:.3g}, "
        f"{noise.freedom} degrees of freedom)"
    )
    if noise.most_r2 is None or noise.most_r2_interval is None:
        return said
    low, high = noise.most_r2_interval
    return f"{said}: a rule can reach an R2 of {noise.most_r2:.3f} at most ({low:.3f} to {high:.3f})"


def _scores(found: RuleFit) -> Iterator[tuple[str, ...]]:
    yield (f"on {len(found.held_out)} held-out runs", "squared error", "R2", "Spearman", "mean's − its", "95 %")
    for score in found.scores.values():
        yield (
            _label(score),
            f"{score.squared_error:.3g}",
            "-" if score.r2 is None else f"{score.r2:.3f}",
            "-" if score.spearman is None else f"{score.spearman:.2f}",
            "" if score.rule == MEAN else f"{score.saved:.2g}",
            _interval(score.saved_interval),
        )


def _label(score: Score) -> str:
    return {THE_RULE: "the rule", MEAN: "mean of the fitted runs"}.get(score.rule, f"{score.rule} alone")


_HEAD = ("", "coefficient", "std. error", "p", "95 % interval", "bootstrap 95 %", "VIF")


def _coefficient(term: Coefficient) -> tuple[str, ...]:
    return (
        term.name,
        f"{term.value:.4g}",
        f"{term.standard_error:.3g}",
        f"{term.p:.2g}",
        _interval(term.interval),
        _interval(term.bootstrap_interval),
        "" if term.vif is None else f"{term.vif:.2f}",
    )


def _indicators(found: RuleFit) -> Iterator[tuple[str, ...]]:
    yield ("log loss per SD of set means", "", "SD", "in the rule", "95 %", "alone", "95 %")
    for one in found.worth:
        yield (
            one.name,
            _WORDS[one.state],
            "" if one.spread is None else f"{one.spread:.3g}",
            _effect(one.effect),
            _interval(one.effect_interval),
            _effect(one.alone),
            _interval(one.alone_interval),
        )


def _worth_nothing(found: RuleFit) -> str:
    if not found.verdict.found:
        return "worth nothing, as far as this rule shows: every indicator, since it was not found"
    nothing = [one for one in found.worth if one.state in NOTHING]
    if not nothing:
        return "worth something in this rule: every indicator that was considered"
    return f"worth nothing in this rule, as far as these runs show: {', '.join(map(_named, nothing))}"


def _named(one: Worth) -> str:
    return f"{one.name} ({'its sign is not known' if one.state == 'sign not known' else one.state})"


def _effect(value: float | None) -> str:
    return "" if value is None else f"{value:+.3g}"


def _interval(bounds: tuple[float, float] | None) -> str:
    return "" if bounds is None else f"{bounds[0]:.3g} to {bounds[1]:.3g}"
