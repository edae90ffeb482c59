from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from instructmining import knn
from instructmining.bundle import PrecisionName
from instructmining_cli import machine
from instructmining_export import neighbours_graph, peak_graphs

PEAKS, NEIGHBOURS = (Path(package.__path__[0]) for package in (machine, knn))
PRECISIONS = get_args(PrecisionName)


def fixed() -> ort.SessionOptions:
    """Four rows and a weight of 16 by 16; integers without saturation, as in the engine's sessions."""
    options = ort.SessionOptions()
    options.add_free_dimension_override_by_name("rows", 4)
    options.add_free_dimension_override_by_name("size", 16)
    options.add_session_config_entry("session.x64quantprecision", "1")
    return options


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_shipped_products_with_weights_are_what_the_script_writes(precision: PrecisionName, tmp_path: Path) -> None:
    ir.save(peak_graphs.build(precision), tmp_path / "graph.onnx")
    assert (tmp_path / "graph.onnx").read_bytes() == (PEAKS / f"peak_{precision}.onnx").read_bytes()


def test_the_shipped_inner_products_are_what_the_script_writes(tmp_path: Path) -> None:
    ir.save(neighbours_graph.build_products(), tmp_path / "products.onnx")
    assert (tmp_path / "products.onnx").read_bytes() == (NEIGHBOURS / "products.onnx").read_bytes()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_with_fixed_dimensions_one_product_with_a_constant_is_left(precision: PrecisionName, tmp_path: Path) -> None:
    options = fixed()
    options.optimized_model_filepath = str(tmp_path / "folded.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(PEAKS / f"peak_{precision}.onnx", options, providers=["CPUExecutionProvider"])
    left = [node.op_type for node in ir.load(tmp_path / "folded.onnx").graph]
    product = "MatMulIntegerToFloat" if precision == "int8" else "MatMul"
    assert [operator for operator in left if operator != "Cast"] == [product]  # a CPU multiplies fp16 in float32


@pytest.mark.parametrize(("precision", "error"), [("fp32", 1e-5), ("fp16", 2e-2), ("int8", 1e-5)])
def test_the_product_is_that_of_the_weights_described(precision: PrecisionName, error: float) -> None:
    angles = (np.arange(256, dtype=np.float32) * np.float32(12.9898)).reshape(16, 16)
    weights = np.sin(angles).astype(np.float64)
    rng = np.random.default_rng(3)
    if precision == "int8":
        x = rng.integers(0, 256, size=(4, 16), dtype=np.uint8)
        wanted = (x.astype(np.float64) - 128) / 127 @ (np.trunc(weights * 127) / 127)
    else:
        x = rng.normal(size=(4, 16)).astype(np.float32 if precision == "fp32" else np.float16)
        wanted = x.astype(np.float64) @ weights
    session = ort.InferenceSession(PEAKS / f"peak_{precision}.onnx", fixed(), providers=["CPUExecutionProvider"])
    (found,) = session.run(["y"], {"x": x})
    np.testing.assert_allclose(found.astype(np.float64), wanted, atol=error)
