"""A user's script, which a test type-checks in strict mode; never run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from pathlib import Path

from instructmining import (
    Bundle,
    Comparison,
    Description,
    Example,
    Extras,
    Fit,
    InstructMiningError,
    KnnOptions,
    Reject,
    Rescoring,
    Rule,
    ScoredRow,
    Scorer,
    Selection,
    SelectionOptions,
    Statistics,
    Turn,
    compare,
    describe,
    fit,
    read_examples,
    rescore,
    select,
)


def rows() -> Iterator[dict[str, object]]:
    yield {"prompt": "Name a colour.", "response": "Green."}


def scored(bundle: Path | None) -> list[ScoredRow]:
    rejects: list[Reject] = []
    counts = Statistics()
    knn = KnnOptions(metric="cosine")
    with Scorer.open(bundle, rule="paper-v1", indicators=["mtld"], device="cpu", knn=knn) as scorer:
        found = list(scorer.score(rows(), on_reject=rejects.append, statistics=counts))
        found += scorer.score([{"instruction": "a", "output": "b"}])
        found += scorer.score(read_examples(["a.jsonl", Path("b.parquet")], on_reject=rejects.append))
        found += scorer.score(read_examples([{"instruction": "a", "output": "b"}]))
        found += scorer.score([Example.of("a", "b"), Example((Turn("user", "a"), Turn("assistant", "b")))])
        for row in scorer.score(Example.of(text, "b") for text in ("a", "c")):
            value: float | int | None = row.columns["mtld"]
            texts: tuple[str, ...] = (*row.truncated, *row.notes.values(), *row.example.response_texts)
            assert value is None or texts
    return found


def tables(rule: Rule) -> tuple[Selection, Description, Comparison, Rescoring, Fit]:
    selection = select("scored.jsonl", "best.jsonl", SelectionOptions(top=10), extras=Extras(explain="why.jsonl"))
    kept: int = selection.kept
    default: str | None = Bundle.open("bundle").default_rule
    assert kept or default
    found = fit("runs.csv", terms=["mtld"])
    return selection, describe("a.jsonl"), compare("a.jsonl", "b.jsonl"), rescore("a.jsonl", "b.jsonl", rule), found


try:
    Scorer.open().close()
    Turn("robot", "x")  # type: ignore[arg-type]
    Turn("user", "x").text = "y"  # type: ignore[misc]
except (InstructMiningError, FrozenInstanceError) as error:
    raise SystemExit(str(error)) from error
