"""The language model alone: perplexity in fp32 and in int8, and the latency of single calls."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from statistics import mean, median
from typing import Any

import numpy as np

from benchmarks.peers.comparing import against, measured, ours_scores
from benchmarks.peers.lines import Entry, Line, Run, check_close
from benchmarks.peers.material import Material
from benchmarks.peers.rounds import Side, Timed, found_settings, in_turn, opened

WITHIN = 1e-4  # of mean NLL
CALLS = {1: 12, 8: 3}  # rows of a call → calls a round


def perplexity(run: Run) -> Entry:
    """Tokens to the mean NLL of each response in float32, and the share of the machine's matrix-product peak."""
    full, kept, ctranslate2 = "transformers, all logits", "transformers, logits_to_keep", "CTranslate2 float32"
    entry = Entry("perplexity")

    def sides(material: Material) -> list[Side]:
        ours = ours_scores(material, "perplexity", calibrate=bool(run.rounds))
        keeping = _transformers(kept, material, keep=True)
        if not run.rounds:  # all logits come from the same model
            return [ours, keeping, _ctranslate2(ctranslate2, run, material, "float32")]
        peak = Side("peak", "ours", "ours", "peak", {"threads": material.threads})
        whole = _transformers(full, material, keep=False)
        return [ours, whole, keeping, _ctranslate2(ctranslate2, run, material, "float32"), peak]

    def check(timed: dict[str, Timed]) -> None:
        ours = [math.log(value) for value in timed["ours"].values]
        for name in (full, kept, ctranslate2):
            if name in timed:
                entry.facts[f"largest difference, {name}"] = check_close(name, timed[name].values, ours, WITHIN)

    timed, missing = measured(run, sides, check, every=True)
    entry.timed = list(timed.values())
    targets = ((full, 2.7), (kept, 2.7), (ctranslate2, 1.5))
    entry.lines = against(run, "perplexity fp32", timed, targets, missing)
    if run.rounds:
        entry.lines.append(_share_of_peak(run, timed, entry))
    return entry


def int8(run: Run) -> Entry:
    """The same in int8, with the error of each side against transformers in float32."""
    theirs, exact = "CTranslate2 int8", "transformers float32"
    entry = Entry("int8")

    def sides(material: Material) -> list[Side]:
        ours = ours_scores(material, "perplexity", calibrate=bool(run.rounds), bundle=str(material.int8_bundle))
        return [ours, _ctranslate2(theirs, run, material, "int8")]

    timed, missing = measured(run, sides, lambda _: None)
    entry.timed = list(timed.values())
    entry.lines = against(run, "perplexity int8", timed, ((theirs, 1.8),), missing)
    with opened([_transformers(exact, run.material, keep=True)], run.pythons) as (workers, absent):
        if exact in absent:
            entry.lines.append(Line("perplexity int8, error", exact, None, note=absent[exact]))
            return entry
        wanted = workers[exact].run(workers[exact].settings[0], values=True)["values"]
    texts = [json.loads(line) for line in run.material.texts.read_text(encoding="utf-8").splitlines()]
    weights = [len(text["ids"]) - text["response"] for text in texts]
    errors = {"ours": _errors([math.log(value) for value in timed["ours"].values], wanted, weights)}
    if theirs in timed:
        errors[theirs] = _errors(timed[theirs].values, wanted, weights)
    entry.facts["errors of mean NLL"] = errors
    said = "; ".join(f"{name}: {_say_errors(of)}" for name, of in errors.items())
    bound = abs(errors[theirs]["shift"]) if theirs in errors else None
    shift = abs(errors["ours"]["shift"])
    entry.lines.append(Line("perplexity int8, shift of mean NLL", theirs, shift, bound, "", at_most=True, note=said))
    return entry


def latency(run: Run) -> Entry:
    """Calls of 1 and of 8 rows on a warm scorer beside the bare session on the same tokens."""
    material, entry = run.material, Entry("latency")
    for rows, calls in CALLS.items():
        order = list(range(material.rows))
        material_of = {
            "rows": str(material.real_rows),
            "texts": str(material.texts),
            "bundle": str(material.bundle),
            "threads": material.threads,
            "calls": [[order[(call * 5 + row) % len(order)] for row in range(rows)] for call in range(calls)],
        }
        sides = [Side(name, "ours", "ours", name, material_of) for name in ("latency", "bare")]
        with opened(sides, run.pythons) as (workers, _):
            timed = found_settings(workers, search=bool(run.rounds))
            in_turn(workers, timed, run.rounds, every=True)
        for of in timed.values():
            of.side = f"{of.side}, {rows} rows"
            entry.timed.append(of)
        for share, title in ((0.5, "p50"), (0.95, "p95")):
            if run.rounds:
                entry.lines.append(_latency_line(rows, share, title, *timed.values()))
    return entry


def _transformers(name: str, material: Material, *, keep: bool) -> Side:
    chosen = {**_causal(material), "checkpoint": str(material.checkpoint), "keep": keep}
    return Side(name, "python", "causal_transformers", "perplexity", chosen)


def _ctranslate2(name: str, run: Run, material: Material, compute_type: str) -> Side:
    python = run.pythons.get("ctranslate2")
    model = str(material.ctranslate2(python, compute_type)) if python else ""
    chosen = {**_causal(material), "model": model, "compute_type": compute_type}
    return Side(name, "ctranslate2", "causal_ctranslate2", "perplexity", chosen)


def _causal(material: Material) -> dict[str, Any]:
    return {"texts": str(material.texts), "threads": material.threads}


def _share_of_peak(run: Run, timed: dict[str, Timed], entry: Entry) -> Line:
    """Products with weights of the tokens that are no padding; attention's own and all else count as time alone."""
    what, against = "perplexity fp32, share of the matrix-product peak", "onnxruntime's own products"
    manifest = json.loads((run.material.bundle / "manifest.json").read_bytes())
    each = manifest["roles"]["perplexity"].get("multiply_adds")
    if each is None:
        return Line(what, against, None, 75, "%", note="the bundle does not say how many products its graph has")
    ours, peak = timed["ours"], timed["peak"]
    shares = []
    for seconds, facts, best in zip(ours.seconds, ours.facts, peak.every, strict=True):
        operations = 2 * (each["token"] * facts["tokens"] + each["scored"] * facts["scored"])
        shares.append(100 * operations / seconds / 1e9 / best)
    entry.facts["peak GFLOP/s of each round"] = [round(best, 1) for best in peak.every]
    note = f"peak {median(peak.every):.0f} GFLOP/s; padding {100 * ours.facts[-1]['padding_share']:.1f} %"
    return Line(what, against, median(shares), 75, "%", note=note)


def _latency_line(rows: int, share: float, title: str, ours: Timed, bare: Timed) -> Line:
    """At most 1.15 times the bare session's, or a millisecond more; the calls of all rounds together."""

    def of(timed: Timed) -> float:
        return float(np.quantile(np.concatenate(timed.every), share, method="inverted_cdf"))

    own, least = of(ours), of(bare)
    within = own - least <= 1e-3
    note = f"{1e3 * own:.1f} ms against {1e3 * least:.1f} ms"
    target = max(1.15, own / least) if within else 1.15
    return Line(f"latency of {rows} rows, {title}", "bare session", own / least, target, at_most=True, note=note)


def _errors(found: Sequence[float], exact: Sequence[float], weights: Sequence[int]) -> dict[str, float]:
    """Of mean NLL: the shift of all tokens' mean, and the mean and the largest of the rows' absolute errors."""
    differences = np.array(found) - np.array(exact)
    return {
        "shift": float(np.average(differences, weights=weights)),
        "shift_of_rows": mean(differences.tolist()),
        "mean": float(np.abs(differences).mean()),
        "largest": float(np.abs(differences).max()),
    }


def _say_errors(errors: dict[str, float]) -> str:
    return (
        f"shift {errors['shift']:+.4f} over tokens, {errors['shift_of_rows']:+.4f} over rows, mean {errors['mean']:.4f}"
    )
