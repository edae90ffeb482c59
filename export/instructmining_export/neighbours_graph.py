"""Writes the engine's graphs for nearest neighbours: inner products, and the k largest of each query."""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir
from onnx_ir.tape import Tape


def build() -> ir.Model:
    """Build the graph of the k largest inner products.

    Inputs float32 ``queries`` (q, size), ``points`` (p, size) and int64 ``k`` (1,); outputs ``values`` float32 (q, k),
    descending, and ``indices`` int64 (q, k).
    """
    queries, points = _vectors("queries", "q"), _vectors("points", "p")
    k = ir.Value(name="k", shape=ir.Shape([1]), type=ir.TensorType(ir.DataType.INT64))
    tape = Tape()
    products = tape.op("Gemm", [queries, points], {"transB": 1})
    values, indices = tape.op_multi_out("TopK", [products, k], {"axis": 1, "largest": 1, "sorted": 1}, num_outputs=2)
    values.name, values.type = "values", ir.TensorType(ir.DataType.FLOAT)
    indices.name, indices.type = "indices", ir.TensorType(ir.DataType.INT64)
    graph = ir.Graph(
        [queries, points, k], [values, indices], nodes=tape.nodes, opset_imports={"": 18}, name="neighbours"
    )
    return ir.Model(graph, ir_version=10, producer_name="instructmining")


def build_products() -> ir.Model:
    """Build the graph of all inner products.

    Inputs float32 ``queries`` (q, size) and ``points`` (p, size); output float32 ``products`` (q, p).
    """
    queries, points = _vectors("queries", "q"), _vectors("points", "p")
    tape = Tape()
    products = tape.op("Gemm", [queries, points], {"transB": 1})
    products.name, products.type = "products", ir.TensorType(ir.DataType.FLOAT)
    graph = ir.Graph([queries, points], [products], nodes=tape.nodes, opset_imports={"": 18}, name="products")
    return ir.Model(graph, ir_version=10, producer_name="instructmining")


def _vectors(name: str, rows: str) -> ir.Value:
    return ir.Value(name=name, shape=ir.Shape([rows, "size"]), type=ir.TensorType(ir.DataType.FLOAT))


if __name__ == "__main__":
    from instructmining import knn

    folder = Path(knn.__path__[0])
    ir.save(build(), folder / "neighbours.onnx")
    ir.save(build_products(), folder / "products.onnx")
