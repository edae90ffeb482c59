"""What an indicator is: a column, the measurements it needs, and a function over a window of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from instructmining.bundle import RoleName
from instructmining.types import Column, Example, Position, Reject

Question: TypeAlias = Literal["naturalness", "coherence", "understandability"]  # names of the unieval template
QUESTIONS: tuple[Question, ...] = get_args(Question)
Measurement: TypeAlias = (
    Literal["prompt_tokens", "response_tokens", "conversation_nll", "response_nll", "reward", "embedding"] | Question
)
# The role that computes each measurement; token counts come from the manifest's length tokenizer.
MEASURED_BY: dict[Measurement, RoleName] = {
    "conversation_nll": "perplexity",
    "response_nll": "perplexity",
    "reward": "reward",
    "embedding": "embedding",
    "naturalness": "unieval",
    "coherence": "unieval",
    "understandability": "unieval",
}


@dataclass(frozen=True, slots=True)
class LikelihoodSums:
    """Negative log likelihood, summed over each row's scored tokens."""

    total: NDArray[np.float64]  # (rows,) in nats
    tokens: NDArray[np.int64]  # (rows,) number of scored tokens, 0 where there are none


@dataclass(slots=True)
class Measurements:
    """What was counted and computed for a window of rows, read by the indicators; None where no column needs it.

    The two sides of a pair are consecutive rows here.
    """

    examples: list[Example]
    prompt_tokens: NDArray[np.int64] | None = None  # (rows,)
    response_tokens: NDArray[np.int64] | None = None  # (rows,)
    conversation_nll: LikelihoodSums | None = None  # of the response tokens, each given everything before it
    response_nll: LikelihoodSums | None = None  # of the response tokens from the second on, each response alone
    reward: NDArray[np.float64] | None = None  # (rows,)
    embedding: NDArray[np.float32] | None = None  # (rows, size) unit vectors
    answers: dict[str, NDArray[np.float64]] = field(default_factory=dict)  # question → (rows,) p(Yes) in 0..1
    truncated: list[list[str]] = field(default_factory=list)  # (rows,) roles whose text was truncated
    places: list[int] = field(default_factory=list)  # (rows,) places among all rows read for the window
    rejects: list[tuple[int, Reject]] = field(default_factory=list)  # in order, with their places
    end: Position | None = None  # position of the window's last row, good or bad


@dataclass(frozen=True, slots=True)
class RowIndicator:
    """An indicator that depends on each row alone."""

    column: str
    needs: tuple[Measurement, ...]
    compute: Callable[[Measurements], Column]


@dataclass(frozen=True, slots=True)
class CorpusIndicator:
    """An indicator that depends on all rows of the run: the distance to the k-th nearest neighbour."""

    column: str
    needs: tuple[Measurement, ...]
    k: int  # needs more than k rows in the run


Indicator: TypeAlias = RowIndicator | CorpusIndicator
