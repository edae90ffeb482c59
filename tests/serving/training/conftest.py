from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instructmining import Scorer

PROMPTS = ["Name a colour.", "Name a colour.", "Count.", "Say hello."]
COMPLETIONS = ["Green is a colour.", "Red.", "One two three four five six seven.", "Hello there, how are you?"]


@pytest.fixture(scope="session")
def prompts() -> list[str]:
    return PROMPTS


@pytest.fixture(scope="session")
def completions() -> list[str]:
    return COMPLETIONS


@pytest.fixture(scope="session")
def scorer(small_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(small_bundle, indicators="reward,perplexity,mtld,output_length", device="cpu") as opened:
        yield opened


@pytest.fixture(scope="session")
def scored(scorer: Scorer) -> dict[str, list[float]]:
    """The columns of the prompts and completions, each row scored alone."""
    rows = [{"prompt": prompt, "response": text} for prompt, text in zip(PROMPTS, COMPLETIONS, strict=True)]
    found = [next(scorer.score([row])) for row in rows]
    return {column: [row.columns[column] or 0.0 for row in found] for column in scorer.columns}
