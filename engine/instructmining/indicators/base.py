"""What an indicator is: a column, the measurements it needs, and a function over a window of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from instructmining.bundle import RoleName
from instructmining.types import Column, Measurements

Question: TypeAlias = Literal["naturalness", "coherence", "understandability"]  # names of the unieval template
QUESTIONS: tuple[Question, ...] = get_args(Question)
Measurement: TypeAlias = (
    Literal["prompt_tokens", "response_tokens", "conversation_nll", "response_nll", "reward", "embedding"] | Question
)
# The role that gives each measurement; the token counts come from the manifest's length tokenizer.
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
class RowIndicator:
    """An indicator of each row by itself."""

    column: str
    needs: tuple[Measurement, ...]
    compute: Callable[[Measurements], Column]


@dataclass(frozen=True, slots=True)
class CorpusIndicator:
    """An indicator of each row among all rows of the run: the distance to its k-th nearest neighbour."""

    column: str
    needs: tuple[Measurement, ...]
    k: int  # a run of k rows or fewer has no such neighbour


Indicator: TypeAlias = RowIndicator | CorpusIndicator
