"""What a request wants computed, and what has been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from instructmining.inference.sessions import OF_POSITIONS
from instructmining.scorer.requests import Texts

Outputs: TypeAlias = Mapping[str, NDArray[Any]]  # (scored positions,), or (texts, …)


@dataclass(slots=True, eq=False)
class Work:
    """The texts of one request; its future has the outputs of each part."""

    parts: Sequence[Texts]
    future: Future[list[Outputs]] = field(default_factory=Future)
    arrived: float = 0.0  # seconds, monotonic
    ends: float = 0.0  # virtual time at which it would be done; the least is served first
    started: float | None = None  # when its first batch began
    left_tokens: int = field(init=False)
    left_texts: int = field(init=False)
    _values: list[dict[str, NDArray[Any]]] = field(init=False)
    _begins: list[NDArray[np.int64]] = field(init=False)

    def __post_init__(self) -> None:
        """Count the texts, and make room for their outputs."""
        self.left_tokens = sum(len(text.ids) for part in self.parts for text in part.texts)
        self.left_texts = sum(len(part.texts) for part in self.parts)
        self._values = [{} for _ in self.parts]
        self._begins = [
            np.cumsum([0, *(len(text.scored) for text in part.texts)], dtype=np.int64) for part in self.parts
        ]

    def give(self, part: int, texts: Sequence[int], outputs: Sequence[Outputs]) -> None:
        """Take the outputs of some texts.

        Args:
            part: their number among the parts.
            texts: their numbers in the part.
            outputs: of each text: values for its scored positions, or a single row.
        """
        for text, of_text in zip(texts, outputs, strict=True):
            for name, values in of_text.items():
                place = slice(*self._begins[part][text : text + 2]) if name in OF_POSITIONS else slice(text, text + 1)
                self._room(part, name, values)[place] = values
            self.left_tokens -= len(self.parts[part].texts[text].ids)
            self.left_texts -= 1

    def outputs(self) -> list[Outputs]:
        """Return the outputs of each part, once no text is left."""
        return list(self._values)

    def _room(self, part: int, name: str, values: NDArray[Any]) -> NDArray[Any]:
        if name not in self._values[part]:
            rows = int(self._begins[part][-1]) if name in OF_POSITIONS else len(self.parts[part].texts)
            self._values[part][name] = np.zeros((rows, *values.shape[1:]), dtype=values.dtype)
        return self._values[part][name]
