"""Mean NLL of responses by CTranslate2's ``score_batch``."""

from __future__ import annotations

from typing import Any

import ctranslate2
import numpy as np
from protocol import Setting, Task, serve, texts_of


class Perplexity(Task):
    """Batches are made by the library, which sorts by length; threads work on one batch or each on its own."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        threads = material["threads"]
        self.texts = texts_of(material)
        self.folder, self.compute_type = material["model"], material["compute_type"]
        sizes = (
            {"max_batch_size": 1},
            {"max_batch_size": 4},
            {"max_batch_size": 512, "batch_type": "tokens"},
            {"max_batch_size": 1024, "batch_type": "tokens"},
        )
        spread = ({"inter_threads": 1, "intra_threads": threads}, {"inter_threads": threads, "intra_threads": 1})
        self.settings = [{**threading, **size} for threading in spread[: 1 + (threads > 1)] for size in sizes]
        self.opened: tuple[int, int] | None = None
        self.model: ctranslate2.Generator | None = None

    def open(self, inter_threads: int, intra_threads: int) -> ctranslate2.Generator:
        """Kept from run to run; the search for settings warms it up."""
        if self.opened != (inter_threads, intra_threads):
            self.model = ctranslate2.Generator(
                self.folder,
                compute_type=self.compute_type,
                inter_threads=inter_threads,
                intra_threads=intra_threads,
            )
            self.opened = (inter_threads, intra_threads)
            self.facts = {"compute_type": self.model.compute_type}
        return self.model

    def run(self, setting: Setting) -> list[float]:
        batching = {name: value for name, value in setting.items() if not name.endswith("_threads")}
        model = self.open(setting["inter_threads"], setting["intra_threads"])
        scores = model.score_batch([text["tokens"] for text in self.texts], **batching)
        return [
            -float(np.mean(score.log_probs[text["response"] - 1 :]))
            for score, text in zip(scores, self.texts, strict=True)
        ]


if __name__ == "__main__":
    serve({"perplexity": Perplexity}, ("ctranslate2",))
