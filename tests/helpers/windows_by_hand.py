"""Streams without graphs, and windows of texts whose ids are written down."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from instructmining import Example
from instructmining.bundle import Role, RoleName
from instructmining.bundle.template import Template
from instructmining.indicators.base import Measurement
from instructmining.indicators.plan import Stream, TextKind
from instructmining.tokenizing.truncation import Tokens
from instructmining.tokenizing.windows import StreamTexts

EXAMPLE = Example.of("a", "b")


def role(name: RoleName) -> Role:
    path = Path(name)
    return Role(name, path / "model.onnx", path / "tokenizer.json", Template({}), 512, "fp32", {}, {}, None)


def stream(name: RoleName, text: TextKind, measures: tuple[Measurement, ...], *more: RoleName) -> Stream:
    return Stream(role(name), text, measures, (name, *more))


CONVERSATIONS = stream("perplexity", "conversation", ("conversation_nll", "reward"), "reward")
RESPONSES = stream("perplexity", "responses", ("response_nll",))
DOCUMENTS = stream("embedding", "document", ("embedding",))
NATURAL = stream("unieval", "naturalness", ("naturalness",))
COHERENT = stream("unieval", "coherence", ("coherence",))


def text(*ids: int, scored: Sequence[int] = (), truncated: bool = False) -> Tokens:
    return Tokens(np.array(ids, dtype=np.int64), np.array(scored, dtype=np.int64), truncated)


def part(stream: Stream, texts: list[Tokens], owners: Sequence[int] | None = None) -> StreamTexts:
    return StreamTexts(stream, texts, np.array(range(len(texts)) if owners is None else owners, dtype=np.int64))
