"""A bundle whose graphs compute nothing: the same tokenizers, templates, inputs and outputs, and zeros come out.

What scoring costs over such a bundle is the host's own part: reading, formatting, tokenizing, batching, writing.
``python -m benchmarks.zeros BUNDLE OUT`` writes one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from benchmarks.seeded import SIZE

INPUTS = {  # as in the bundle's contract
    "input_ids": ["rows", "width"],
    "position_ids": ["rows", "width"],
    "attention_mask": ["rows", "width"],
    "scored": ["n", 2],
    "best_of": ["m"],
}
OUTPUTS = ("nll", "reward", "embedding", "yes")  # that the engine reads


def make(bundle: Path, out: Path) -> Path:
    """Write a copy of a bundle with such graphs, unless ``out`` holds one already.

    Args:
        bundle: a folder with manifest.json.
        out: the new folder.
    """
    if (out / "manifest.json").is_file():
        return out
    manifest = json.loads((bundle / "manifest.json").read_bytes())
    for_cuda = {role.pop("cuda_graph", None) for role in manifest["roles"].values()}
    graphs = {role["graph"] for role in manifest["roles"].values()}
    files = {}
    for name, entry in manifest["files"].items():
        if name in for_cuda:
            continue
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if name in graphs:
            ir.save(zeros(bundle / name), target)
            files[name] = {"bytes": target.stat().st_size, "sha256": hashlib.sha256(target.read_bytes()).hexdigest()}
        elif not any(name.startswith(graph) for graph in graphs):  # the graphs' weights stay behind
            shutil.copyfile(bundle / name, target)
            files[name] = entry
    manifest |= {"name": f"{manifest['name']}, zeros", "note": "gives zeros: made to measure the host", "files": files}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    return out


def zeros(path: Path) -> ir.Model:
    """A model with the inputs and outputs of the one at ``path``, which are those of the bundle's contract.

    Args:
        path: an ``.onnx`` file.
    """
    graph = ir.load(path).graph
    inputs = {
        value.name: ir.Value(name=value.name, shape=ir.Shape(INPUTS[value.name]), type=ir.TensorType(ir.DataType.INT64))
        for value in graph.inputs
        if value.name is not None
    }
    tape = Tape()
    of_rows = _nothing(tape, inputs["input_ids"])
    outputs = []
    for value in (value for value in graph.outputs if value.name in OUTPUTS):
        if value.name == "nll":
            output = _nothing(tape, inputs["scored"])
            shape = ["n"]
        elif value.name == "embedding":
            vector = tape.initializer(ir.tensor(np.zeros((1, SIZE), dtype=np.float32), name="vector"))
            axis = tape.initializer(ir.tensor(np.array([1], dtype=np.int64), name="axis"))
            output = tape.op("Add", [tape.op("Unsqueeze", [of_rows, axis]), vector])
            shape = ["rows", SIZE]
        else:
            output = tape.op("Identity", [of_rows])
            shape = ["rows"]
        output.name, output.shape, output.type = value.name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        outputs.append(output)
    new = ir.Graph(
        list(inputs.values()),
        outputs,
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 18},
        name="zeros",
    )
    return ir.Model(new, ir_version=10, producer_name="instructmining")


def _nothing(tape: Tape, value: ir.Value) -> ir.Value:
    """Zeros, float32, one for each row of an integer matrix."""
    axes = tape.initializer(ir.tensor(np.array([1], dtype=np.int64), name=f"axes_of_{value.name}"))
    zero = tape.initializer(ir.tensor(np.zeros(1, dtype=np.float32), name=f"zero_of_{value.name}"))
    sums = tape.op("ReduceSum", [value, axes], {"keepdims": 0})
    return tape.op("Mul", [tape.op("Cast", [sums], {"to": ir.DataType.FLOAT}), zero])


if __name__ == "__main__":
    print(make(Path(sys.argv[1]), Path(sys.argv[2])))
