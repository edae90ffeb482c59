"""Token ids with the values that a role must give on any device; the exporter writes them, its gate and doctor read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from instructmining.batches import batches
from instructmining.errors import BundleError
from instructmining.records import Batch, Tokens
from instructmining.sessions import GraphSession

_BUDGET_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class References:
    """Texts as tokens, and the values of the original model in float32."""

    output: str  # the graph output that is compared: "nll", "reward" or "embedding"
    texts: list[Tokens]
    values: list[NDArray[np.float32]]  # by text: (n,) token NLLs, (1,) a reward, or (size,) an embedding

    def save(self, path: Path) -> None:
        """Write them as JSON."""
        rows = [
            {"ids": text.ids.tolist(), "scored": text.scored.tolist(), "values": value.tolist()}
            for text, value in zip(self.texts, self.values, strict=True)
        ]
        path.write_bytes(orjson.dumps({"output": self.output, "rows": rows}))

    @classmethod
    def load(cls, path: Path) -> References:
        """Read what :meth:`save` wrote.

        Raises:
            BundleError: it is not such a file.
        """
        try:
            content = orjson.loads(path.read_bytes())
            texts = [
                Tokens(np.array(row["ids"], dtype=np.int64), np.array(row["scored"], dtype=np.int64))
                for row in content["rows"]
            ]
            values = [np.array(row["values"], dtype=np.float32) for row in content["rows"]]
            if not texts:
                raise ValueError("it has no rows")  # no values are no proof
            return cls(content["output"], texts, values)
        except (OSError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path}: not a file of reference values: {error}") from error


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a graph is from the reference values; for embeddings the row figures are 1 − cosine."""

    rows: int
    row_error: float  # largest difference of a row's value: mean NLL, reward, 1 − cosine
    token_error: float | None  # largest difference of a token's NLL
    batch_difference: float  # largest difference of a row's value between its batch and the row alone

    def as_json(self) -> dict[str, object]:
        """The figures as the manifest holds them."""
        figures: dict[str, object] = {
            "rows": self.rows,
            "row_error": self.row_error,
            "batch_difference": self.batch_difference,
        }
        return figures if self.token_error is None else figures | {"token_error": self.token_error}


def agreement(references: References, session: GraphSession) -> Agreement:
    """Run the texts together and each alone, and compare both with the references."""
    together = _run(references, session, batches(references.texts, budget_tokens=_BUDGET_TOKENS))
    alone = _run(references, session, batches(references.texts, budget_tokens=1))
    pairs = list(zip(references.values, together, alone, strict=True))
    output = references.output
    token_errors = [
        np.abs(wanted - found).max(initial=0.0)
        for wanted, one, other in pairs
        for found in (one, other)
        if output == "nll"
    ]
    row_errors = [_distance(output, wanted, found) for wanted, one, other in pairs for found in (one, other)]
    # np.max and not max: a NaN in any row must show, and max forgets one that does not come first.
    return Agreement(
        rows=len(pairs),
        row_error=float(np.max(row_errors)),
        token_error=float(np.max(token_errors)) if token_errors else None,
        batch_difference=float(np.max([_distance(output, one, other) for _, one, other in pairs])),
    )


def _run(references: References, session: GraphSession, work: Iterable[Batch]) -> list[NDArray[np.float32]]:
    found: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(references.texts)
    for batch in work:
        values = session.run(batch, (references.output,))[references.output]
        for row, member in enumerate(batch.members):
            of_row = batch.scored[:, 0] == row if references.output == "nll" else slice(row, row + 1)
            found[member] = values[of_row].ravel()
    return found


def _distance(output: str, one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Difference of a row's value: of the means of NLLs, of rewards, or 1 − cosine of embeddings."""
    first, second = one.astype(np.float64), other.astype(np.float64)
    if output == "embedding":
        return float(1 - first @ second / (np.linalg.norm(first) * np.linalg.norm(second)))
    return float(abs(first.mean() - second.mean())) if len(first) else 0.0
