"""Writes the small graphs with which ``bench`` measures a device's peak: one product with weights in each precision.

``python -m instructmining_export.peak_graphs cli/instructmining_cli/machine`` writes the shipped files.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
from onnx_ir.tape import Tape

from instructmining.bundle import PRECISIONS, PrecisionName
from instructmining_export.graphs.graph_builder import CONTRIB

_STEP = 12.9898  # between the angles whose sines are the weights; makes neighbouring weights unrelated
_INPUTS = {"fp32": ir.DataType.FLOAT, "fp16": ir.DataType.FLOAT16, "int8": ir.DataType.UINT8}


def build(precision: PrecisionName) -> ir.Model:
    """Build the graph: input ``x`` (rows, size), uint8 for int8; output ``y`` (rows, size), x times weights.

    ``y`` is float32 for int8, which uses the operator of int8 bundles. The weights are computed from ``size`` rather
    than stored: if both dimensions are fixed when the session opens, onnxruntime folds them into a constant and lays it
    out like a model's weights.
    """
    kind = _INPUTS[precision]
    x = ir.Value(name="x", shape=ir.Shape(["rows", "size"]), type=ir.TensorType(kind))
    tape = Tape()

    def constant(name: str, value: float, dtype: type[np.generic]) -> ir.Value:
        return tape.initializer(ir.tensor(np.array(value, dtype=dtype), name=name), name=name)

    size = tape.op("Shape", [x], {"start": 1, "end": 2})
    shape = tape.op("Concat", [size, size], {"axis": 0})
    count = tape.op("ReduceProd", [shape], {"keepdims": 0})
    numbers = tape.op("Range", [constant("zero", 0, np.int64), count, constant("one", 1, np.int64)])
    angles = tape.op(
        "Mul", [tape.op("Cast", [numbers], {"to": int(ir.DataType.FLOAT)}), constant("step", _STEP, np.float32)]
    )
    weights = tape.op("Reshape", [tape.op("Sin", [angles]), shape])
    if precision == "int8":
        scale, zero = constant("scale", 1 / 127, np.float32), constant("zero_point", 128, np.uint8)
        levels = tape.op("Mul", [weights, constant("levels", 127, np.float32)])
        whole = tape.op("Cast", [levels], {"to": int(ir.DataType.INT8)})
        y = tape.op("MatMulIntegerToFloat", [x, whole, scale, scale, zero], domain=CONTRIB)
    else:
        y = tape.op("MatMul", [x, tape.op("Cast", [weights], {"to": int(kind)}) if precision == "fp16" else weights])
    y.name, y.type = "y", ir.TensorType(ir.DataType.FLOAT if precision == "int8" else kind)
    graph = ir.Graph(
        [x],
        [y],
        nodes=tape.nodes,
        initializers=tape.initializers,
        opset_imports={"": 18, CONTRIB: 1},
        name=f"peak_{precision}",
    )
    return ir.Model(graph, ir_version=10, producer_name="instructmining")


if __name__ == "__main__":
    import sys

    for name in PRECISIONS:
        ir.save(build(name), Path(sys.argv[1]) / f"peak_{name}.onnx")
