from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from small_bundle import SMALL_DECODER, random_weights

from instructmining.inference.batching import batches
from instructmining.tokenizing.truncation import Tokens
from instructmining_export import calibration
from instructmining_export.calibration import Calibration, calibrate
from instructmining_export.graphs import causal
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save

OUTLIER = "layernorm.weight"  # one of whose dimensions is far larger than the others


def weights(name: str) -> NDArray[np.float32]:
    tensor = random_weights(1)(name)
    if name.endswith(OUTLIER):
        tensor = tensor.copy()
        tensor[3] *= 30
    return tensor


def texts() -> list[Tokens]:
    rng = np.random.default_rng(2)
    return [Tokens(rng.integers(5, 380, size), np.arange(1, size)) for size in rng.integers(2, 60, 60)]


@pytest.fixture(scope="module")
def found() -> Calibration:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "cpu_threads", lambda: 1)
        return calibrate(causal.build(SMALL_DECODER, weights, vocabulary=True, reward=None), texts())


def nll(precision: Precision, folder: Path) -> NDArray[np.float32]:
    path = save(causal.build(SMALL_DECODER, weights, vocabulary=True, reward=None, precision=precision).model(), folder)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(str(path[0]), options, providers=["CPUExecutionProvider"])
    names = {value.name for value in session.get_inputs()}
    values = []
    for batch in batches(texts(), max_batch_tokens=512):
        feeds = {
            "input_ids": batch.ids,
            "position_ids": batch.positions,
            "scored": batch.scored,
            "best_of": batch.scored[:0, 0],
        }
        values.append(session.run(["nll"], {name: feeds[name] for name in feeds if name in names})[0])
    return np.concatenate(values)


def test_every_product_is_looked_at(found: Calibration) -> None:
    per_layer = 4  # query, key and value together; output; gate; up; down
    assert len(found.worst_first) == 2 * (per_layer + 1) + 1
    assert set(found.worst_first) == set(found.smoothing) == set(found.inputs)


def test_a_dimension_that_stands_out_is_divided(found: Calibration) -> None:
    (key,) = [key for key in found.smoothing if key.startswith("layers.0.self_attn.q_proj")]
    scales = found.smoothing[key]
    assert scales[3] == scales.max()
    assert scales[3] > 5 * np.median(scales)
    assert np.exp(np.log(scales).mean()) == pytest.approx(1.0, rel=1e-3)


def test_products_on_one_input_share_its_scales(found: Calibration) -> None:
    gate, up = (found.smoothing[f"layers.1.mlp.{part}_proj.weight"] for part in ("gate", "up"))
    np.testing.assert_array_equal(gate, up)


def test_what_is_found_makes_integers_more_exact(found: Calibration, tmp_path: Path) -> None:
    exact = nll(Precision(), tmp_path / "fp32.onnx")

    def error(precision: Precision) -> float:
        return float(np.sqrt(np.mean((nll(precision, tmp_path / "int8.onnx") - exact) ** 2)))

    plain = error(Precision("int8"))
    smoothed = error(Precision("int8", smoothing=found.smoothing))
    together = error(Precision("int8", smoothing=found.smoothing, inputs=found.inputs))
    assert smoothed < 0.8 * plain
    assert together < plain
    kept = Precision("int8", frozenset({*found.worst_first, "embed_tokens.weight.rows"}), found.smoothing)
    assert error(kept) < 1e-5 * np.abs(exact).max()
