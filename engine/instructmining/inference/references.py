"""Reference outputs of a role on any device; written by the exporter, read by its gate and by doctor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.errors import BundleError
from instructmining.inference.batching import Batch, batches
from instructmining.inference.sessions import GraphSession
from instructmining.rules.correlation import ranks
from instructmining.tokenizing.truncation import Tokens

_BUDGET_TOKENS = 1024
_Values: TypeAlias = list[NDArray[np.float32]]  # by text


@dataclass(frozen=True, slots=True)
class References:
    """Texts as tokens, with the float32 outputs of the original model."""

    output: str  # the graph output to compare: "nll", "reward", "embedding" or "yes"
    texts: list[Tokens]
    values: list[NDArray[np.float32]]  # by text: (n,) token NLLs, (1,) a reward, or (size,) an embedding

    def save(self, path: Path) -> None:
        """Write the references as JSON."""
        rows = [
            {"ids": text.ids, "scored": text.scored, "values": np.ascontiguousarray(value)}
            for text, value in zip(self.texts, self.values, strict=True)
        ]
        path.write_bytes(orjson.dumps({"output": self.output, "rows": rows}, option=orjson.OPT_SERIALIZE_NUMPY))

    def every(self, step: int) -> References:
        """Return each ``step``-th text with its values."""
        return References(self.output, self.texts[::step], self.values[::step])

    @classmethod
    def load(cls, path: Path) -> References:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: the file is no such file.
        """
        try:
            content = orjson.loads(path.read_bytes())
            texts = [
                Tokens(np.array(row["ids"], dtype=np.int64), np.array(row["scored"], dtype=np.int64))
                for row in content["rows"]
            ]
            values = [np.array(row["values"], dtype=np.float32) for row in content["rows"]]
            if not texts:
                raise ValueError("it has no rows")  # without values nothing would be compared
            return cls(content["output"], texts, values)
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path}: not a file of reference values: {error}") from error


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a graph is from the reference values; for embeddings, row figures are 1 − cosine."""

    rows: int
    row_error: float  # largest difference of a row's value: mean NLL, reward, 1 − cosine, UniEval probability
    token_error: float | None  # largest difference of a token's NLL; None for outputs that have none
    batch_difference: float  # largest difference between a row's value in its batch and alone
    mean_error: float  # difference of the mean over all values: tokens for NLL, rows for the others
    shift: float | None  # of rewards and probabilities: mean_error in standard deviations of the references
    rank_correlation: float  # Spearman's, of the rows' values; for embeddings, of the cosines between rows

    def as_json(self) -> dict[str, object]:
        """Return the figures as the manifest stores them."""
        figures: dict[str, object] = {
            "rows": self.rows,
            "row_error": self.row_error,
            "batch_difference": self.batch_difference,
            "mean_error": self.mean_error,
            "rank_correlation": self.rank_correlation,
        }
        others = {"token_error": self.token_error, "shift": self.shift}
        return figures | {name: value for name, value in others.items() if value is not None}

    def beyond(self, bounds: Bounds) -> list[str]:
        """Return the figures that exceed a bound, each with its bound; empty where all hold."""
        limits = {
            "row_error": (self.row_error, bounds.row_error),
            "token_error": (self.token_error or 0.0, bounds.token_error),
            "batch_difference": (self.batch_difference, bounds.batch_difference),
            "mean_error": (self.mean_error if self.shift is None else 0.0, bounds.mean_error),
            "shift": (self.shift or 0.0, bounds.shift),
        }
        # This form puts a NaN beyond every bound.
        broken = [
            f"{name} {value:.2e} (at most {limit:.0e})" for name, (value, limit) in limits.items() if not value <= limit
        ]
        if not self.rank_correlation >= bounds.rank_correlation:
            broken.append(f"rank_correlation {self.rank_correlation:.6f} (at least {bounds.rank_correlation})")
        return broken


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a graph of one precision may differ; beyond it an export is refused, and doctor reports it."""

    batch_difference: float
    row_error: float = math.inf
    token_error: float = math.inf
    mean_error: float = math.inf  # of NLL and 1 − cosine
    shift: float = math.inf
    rank_correlation: float = -1.0

    def beside(self, figures: Mapping[str, object]) -> str:
        """Format the figures of a manifest that have a bound, each with its bound."""
        parts = []
        for name, limit in asdict(self).items():
            value = figures.get(name)
            if isinstance(value, (int, float)) and math.isfinite(limit) and limit > -1:
                word = "at least" if name == "rank_correlation" else "at most"
                parts.append(f"{name} {value:.6g} ({word} {limit:g})")
        return ", ".join(parts)


BOUNDS: Mapping[str, Bounds] = {
    "fp32": Bounds(batch_difference=1e-5, row_error=1e-4, token_error=1e-3),
    # A mean NLL that is off by 1e-3 is a perplexity off by one in a thousand.
    "fp16": Bounds(batch_difference=1e-3, mean_error=1e-3, shift=0.01, rank_correlation=0.9999),
    "int8": Bounds(batch_difference=1e-3, mean_error=0.02, shift=0.05, rank_correlation=0.995),
}


def agreement(references: References, session: GraphSession) -> Agreement:
    """Run the texts in batches and each alone, and compare both with the references."""
    return agreements([references], session)[0]


def agreements(references: Sequence[References], session: GraphSession) -> list[Agreement]:
    """Compare several outputs of one graph over the same texts, in one pass."""
    texts = references[0].texts
    outputs = [reference.output for reference in references]
    together = _run(texts, outputs, session, batches(texts, max_batch_tokens=_BUDGET_TOKENS))
    alone = _run(texts, outputs, session, batches(texts, max_batch_tokens=1))
    return [_compare(reference, together[reference.output], alone[reference.output]) for reference in references]


def _compare(references: References, together: _Values, alone: _Values) -> Agreement:
    pairs = list(zip(references.values, together, alone, strict=True))
    output = references.output
    token_errors = [
        np.abs(wanted - found).max(initial=0.0)
        for wanted, one, other in pairs
        for found in (one, other)
        if output == "nll"
    ]
    row_errors = [_distance(output, wanted, found) for wanted, one, other in pairs for found in (one, other)]
    mean_error = _mean_error(output, references.values, together)
    # np.max, not max: it propagates a NaN in any row, while max ignores one after the first.
    return Agreement(
        rows=len(pairs),
        row_error=float(np.max(row_errors)),
        token_error=float(np.max(token_errors)) if token_errors else None,
        batch_difference=float(np.max([_distance(output, one, other) for _, one, other in pairs])),
        mean_error=mean_error,
        shift=_shift(mean_error, references.values) if output in {"reward", "yes"} else None,
        rank_correlation=_rank_correlation(
            _comparable(output, references.values, references.values), _comparable(output, references.values, together)
        ),
    )


def _mean_error(output: str, wanted: _Values, found: _Values) -> float:
    if output == "embedding":
        return float(np.mean([_distance(output, *pair) for pair in zip(wanted, found, strict=True)]))
    first, second = (np.concatenate(values).astype(np.float64) for values in (wanted, found))
    return float(abs(first.mean() - second.mean()))


def _shift(mean_error: float, wanted: _Values) -> float:
    return mean_error / max(float(np.concatenate(wanted).std(dtype=np.float64)), 1e-30) if mean_error else 0.0


def _comparable(output: str, shaped: _Values, values: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """Return one number per row that has one; for embeddings, one per pair of rows."""
    if output == "embedding":
        vectors = np.stack(values).astype(np.float64)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return (vectors @ vectors.T)[np.triu_indices(len(vectors), 1)]
    return np.array([value.mean(dtype=np.float64) for value, shape in zip(values, shaped, strict=True) if len(shape)])


def _rank_correlation(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Spearman's: Pearson's correlation of the ranks, equal values sharing their mean rank; 1 where nothing varies."""
    if not (np.isfinite(one).all() and np.isfinite(other).all()):
        return math.nan
    first, second = ranks(one), ranks(other)
    if first.std() == 0.0 or second.std() == 0.0:
        return float(first.std() == second.std())
    return float(np.corrcoef(first, second)[0, 1])


def _run(
    texts: Sequence[Tokens], outputs: Sequence[str], session: GraphSession, work: Iterable[Batch]
) -> dict[str, _Values]:
    found: dict[str, _Values] = {output: [np.empty(0, dtype=np.float32)] * len(texts) for output in outputs}
    for batch in work:
        for output, values in session.run(batch, outputs).items():
            for row, member in enumerate(batch.members):
                of_row = batch.scored[:, 0] == row if output == "nll" else slice(row, row + 1)
                found[output][member] = values[of_row].ravel()
    return found


def _distance(output: str, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the difference of a row's value: of mean NLLs, of rewards, or 1 − cosine of embeddings."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    if output == "embedding":
        return float(1 - first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return float(abs(first.mean() - second.mean())) if len(first) else 0.0
