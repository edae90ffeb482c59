"""onnxruntime with nothing around it: a bundle's graph fed by hand, and single products."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from onnx_ir.tape import Tape

BUDGET_TOKENS = 512  # padded tokens of a batch, the usual one on a CPU
# Rows, size and columns of SmolLM2-135M's products: attention, the gated layers, the vocabulary.
SHAPES = ((512, 576, 576), (512, 576, 1536), (512, 1536, 576), (512, 576, 49152))
_PRODUCT_S = 0.4


def texts(path: str) -> list[dict[str, Any]]:
    with Path(path).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def open_session(bundle: Path, threads: int) -> ort.InferenceSession:
    """The graph of the perplexity role with onnxruntime's defaults."""
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(
        str(bundle / manifest["roles"]["perplexity"]["graph"]), options, providers=["CPUExecutionProvider"]
    )


def feeds(rows: list[dict[str, Any]], session: ort.InferenceSession) -> list[dict[str, np.ndarray]]:
    """Padded batches, longest first, of what the graph takes."""
    rows = sorted(rows, key=lambda row: -len(row["ids"]))
    batches: list[list[dict[str, Any]]] = []
    for row in rows:
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0]["ids"]) > BUDGET_TOKENS:
            batches.append([])
        batches[-1].append(row)
    wanted = {value.name for value in session.get_inputs()}
    made = []
    for batch in batches:
        # The response's last token is predicted, not read, but the graph takes its id as the target.
        width = max(len(row["ids"]) for row in batch)
        ids = np.zeros((len(batch), width), dtype=np.int64)
        mask = np.zeros_like(ids)
        for place, row in enumerate(batch):
            ids[place, : len(row["ids"])] = row["ids"]
            mask[place, : len(row["ids"])] = 1
        scored = [(place, at) for place, row in enumerate(batch) for at in range(row["response"], len(row["ids"]))]
        feed = {
            "input_ids": ids,
            "position_ids": np.arange(width) * mask,
            "attention_mask": mask,
            "scored": np.array(scored, dtype=np.int64),
            "best_of": np.zeros(0, dtype=np.int64),
        }
        made.append({name: array for name, array in feed.items() if name in wanted})
    return made


class Product:
    """x (rows, size) times constant weights (size, columns), as a graph of its own."""

    def __init__(self, rows: int, size: int, columns: int, threads: int) -> None:
        rng = np.random.default_rng(0)
        tape = Tape()
        x = ir.Value(name="x", shape=ir.Shape([rows, size]), type=ir.TensorType(ir.DataType.FLOAT))
        weights = ir.tensor(rng.standard_normal((size, columns), dtype=np.float32), name="weights")
        y = tape.op("MatMul", [x, tape.initializer(weights, name="weights")])
        y.name, y.type, y.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([rows, columns])
        graph = ir.Graph([x], [y], nodes=tape.nodes, initializers=tape.initializers, opset_imports={"": 18}, name="one")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Several are open in this process: one that waits must not take a core from the one that computes.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = ort.InferenceSession(
            ir.to_proto(ir.Model(graph, ir_version=10)).SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
        )
        self.feed = {"x": rng.standard_normal((rows, size), dtype=np.float32)}
        self.operations = 2 * rows * size * columns

    def gflop_per_s(self) -> float:
        """The median of runs, and of at least five."""
        self.session.run(["y"], self.feed)
        seconds: list[float] = []
        while len(seconds) < 5 or sum(seconds) < _PRODUCT_S:
            begin = time.perf_counter()
            self.session.run(["y"], self.feed)
            seconds.append(time.perf_counter() - begin)
        return self.operations / median(seconds) / 1e9
