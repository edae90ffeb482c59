"""Our own side, through public names, in a process like any peer's."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from protocol import Setting, Task, serve

from instructmining import Scorer, Statistics, read_examples
from instructmining.bundle import ROLES
from instructmining.inference.batching import Batching
from instructmining.writing.run_writer import RunWriter

NEIGHBOUR = 6


class Scores(Task):
    """Columns of rows in memory; texts are tokenized inside, which the peers' clocks leave out."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        self.column = material["column"]
        self.examples = list(read_examples(material["rows"]))
        self.scorer = Scorer.open(material["bundle"], indicators=[self.column], device="cpu")
        if material["calibrate"]:
            self.scorer.calibrate(self.examples)

    def run(self, setting: Setting) -> list[float]:  # noqa: ARG002
        counts = Statistics()
        column = [row.columns[self.column] for row in self.scorer.score(self.examples, statistics=counts)]
        self.facts = {
            "max_batch_tokens": dict(self.scorer.batching.max_batch_tokens),
            "tokens": counts.tokens.total(),
            "padded": counts.padded.total(),
            "scored": counts.scored.total(),
            "padding_share": counts.padding_share,
            "stages": {name: round(seconds, 4) for name, seconds in counts.seconds.items()},
            "busy": dict(counts.busy),
        }
        return column


class Job(Task):
    """File to file; the scorer is open. ``batches_of`` names a kind of device, in whose usual batches it scores."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        self.rows, self.out = material["rows"], material["out"]
        kind = material.get("batches_of")
        self.scorer = Scorer.open(
            material["bundle"],
            rule=material.get("rule_name"),
            indicators=material["indicators"],
            device="cpu",
            batching=Batching.usual(kind, ROLES) if kind else None,
        )
        if material.get("calibrate"):
            self.scorer.calibrate(list(read_examples(self.rows)))

    def run(self, setting: Setting) -> str:  # noqa: ARG002
        counts = Statistics()
        with RunWriter(self.out, overwrite=True) as writer:
            writer.begin()
            assert writer.journal is not None
            rows = read_examples(self.rows).windows(self.scorer.batching.window_rows)
            for window in self.scorer.score_windows(rows, statistics=counts, journal=writer.journal):
                writer.write(self.scorer.rows(window), window.rejects)
                if writer.journal.due:
                    writer.commit({"statistics": counts.as_json()})
            writer.finish({})
        self.facts = {
            "rows": counts.rows_scored,
            "tokens": counts.tokens.total(),
            "stages": dict(counts.seconds),
            "busy": dict(counts.busy),
        }
        return self.out


class Mtld(Task):
    """Of each response."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        self.texts = [example.turns[-1].text for example in read_examples(material["rows"])]

    def run(self, setting: Setting) -> list[float]:  # noqa: ARG002
        from instructmining.indicators.mtld import mtld  # noqa: PLC0415

        return [mtld(text) for text in self.texts]


class Neighbours(Task):
    """Exact distances to the sixth nearest other row."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        from instructmining.inference.sessions import ProductSession  # noqa: PLC0415
        from instructmining.knn.tiles import Products  # noqa: PLC0415

        self.vectors = np.load(material["vectors"])
        self.search = Products(ProductSession(), material["threads"])

    def run(self, setting: Setting) -> np.ndarray:  # noqa: ARG002
        from instructmining.knn.exact import kth_distances  # noqa: PLC0415

        return kth_distances(self.vectors, NEIGHBOUR, self.search)

    def values(self, result: np.ndarray) -> list[float]:
        return result.tolist()


class Latency(Task):
    """Calls of some rows each on a warm scorer; the values are the seconds of each call."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        examples = list(read_examples(material["rows"]))
        self.calls = [[examples[row] for row in call] for call in material["calls"]]
        self.scorer = Scorer.open(material["bundle"], indicators=["perplexity"], device="cpu", batches_at_once=1)

    def call(self, number: int) -> None:
        for _ in self.scorer.score(self.calls[number]):
            pass

    def run(self, setting: Setting) -> list[float]:  # noqa: ARG002
        seconds = []
        for number in range(len(self.calls)):
            begin = time.perf_counter()
            self.call(number)
            seconds.append(time.perf_counter() - begin)
        return seconds


class BareLatency(Latency):
    """The same tokens through onnxruntime alone, fed with arrays made before: the least that a call can take."""

    def __init__(self, material: dict[str, Any]) -> None:
        Task.__init__(self)
        import bare  # noqa: PLC0415

        texts = bare.texts(material["texts"])
        self.session = bare.open_session(Path(material["bundle"]), material["threads"])
        self.calls = [bare.feeds([texts[row] for row in call], self.session) for call in material["calls"]]

    def call(self, number: int) -> None:
        for feed in self.calls[number]:
            self.session.run(["nll"], feed)


class Peak(Task):
    """GFLOP/s of single products with constant weights in onnxruntime, of the language model's own shapes."""

    def __init__(self, material: dict[str, Any]) -> None:
        super().__init__()
        import bare  # noqa: PLC0415

        self.products = {shape: bare.Product(*shape, material["threads"]) for shape in bare.SHAPES}

    def run(self, setting: Setting) -> float:  # noqa: ARG002
        found = {shape: product.gflop_per_s() for shape, product in self.products.items()}
        self.facts = {"gflop_per_s": {"x".join(map(str, shape)): round(speed, 1) for shape, speed in found.items()}}
        return max(found.values())


TASKS = {
    "scores": Scores,
    "job": Job,
    "mtld": Mtld,
    "neighbours": Neighbours,
    "latency": Latency,
    "bare": BareLatency,
    "peak": Peak,
}

if __name__ == "__main__":
    serve(TASKS, ("instructmining", "onnxruntime-gpu", "onnxruntime", "tokenizers", "numpy"))
