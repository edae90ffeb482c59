"""MTLD by lexicalrichness."""

from __future__ import annotations

from typing import Any

from lexicalrichness import LexicalRichness
from protocol import Setting, Task, pairs_of, serve


class Mtld(Task):
    """Of each response."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        self.texts = [response for _, response in pairs_of(material["rows"])]

    def run(self, setting: Setting) -> list[float]:  # noqa: ARG002
        return [LexicalRichness(text).mtld() for text in self.texts]


if __name__ == "__main__":
    serve({"mtld": Mtld}, ("lexicalrichness",))
