"""Templates as lists of pieces, in the manifest's form."""

from __future__ import annotations

from typing import Any


def chatml() -> dict[str, Any]:
    """ChatML without an added system turn, for the conversations of perplexity and reward roles.

    Every turn closes with ``<|im_end|>``, on whose state a reward head reads the whole conversation; it is not
    scored.
    """

    def turn(role: str) -> list[list[str]]:
        return [["special", "<|im_start|>"], ["literal", f"{role}\n"], ["content", ""], ["special", "<|im_end|>"]]

    return {
        "turns": {role: turn(role) for role in ("system", "user", "assistant", "tool")},
        "separator": [["literal", "\n"]],
    }


def sentence(start: str, end: str) -> dict[str, Any]:
    """One plain text between the encoder's start and end tokens."""
    return {"turns": {}, "start": [["special", start]], "end": [["special", end]]}
