from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from instructmining_export.graphs import heads
from instructmining_export.graphs.graph_builder import GraphBuilder
from instructmining_export.graphs.tensors import save

SIZE, ROWS, WIDTH = 32, 3, 40
OUTPUTS = ["nll", "best_token", "best_log_probability"]


def weights(words: int) -> dict[str, NDArray[np.float32]]:
    """Hidden states by token id, and the vocabulary; logits deviate by 4, as those of trained models do."""
    rng = np.random.default_rng(2)
    states = rng.standard_normal((words, SIZE)).astype(np.float32)
    return {"states": states, "words": (rng.standard_normal((words, SIZE)) * 4 / SIZE**0.5).astype(np.float32)}


def saved(words: int, folder: Path, *, tied: bool = False) -> Path:
    graph = GraphBuilder("head", weights(words).__getitem__)
    input_ids, scored = graph.input("input_ids", "rows", "width"), graph.input("scored", "n", 2)
    shape, best_of = (words, SIZE), graph.input("best_of", "m")
    hidden = graph.embedding("words" if tied else "states", input_ids, shape=shape)
    found = heads.token_likelihoods(graph, hidden, input_ids, scored, best_of, output_embedding="words", shape=shape)
    graph.output("nll", found.nll)
    graph.output("best_token", found.best_token, ir.DataType.INT64)
    graph.output("best_log_probability", found.best_log_probability)
    return save(graph.model(), folder / "head.onnx")[0]


def session(words: int, folder: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(saved(words, folder)), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize(("words", "slices"), [(400, 1), (4096, 2), (6200, 3), (49_152, 8), (50_257, 8)])
def test_likelihoods_over_slices_are_those_over_all_words(words: int, slices: int, tmp_path: Path) -> None:
    ids = np.random.default_rng(4).integers(0, words, (ROWS, WIDTH))
    ids[0, :4] = (words - 1, 0, heads.slice_words(words) - 1, heads.slice_words(words) % words)  # a slice's ends
    scored = np.array([(row, place) for row in range(ROWS) for place in range(1, WIDTH)])
    best_of = np.arange(0, len(scored), 2)
    feeds = {"input_ids": ids, "scored": scored, "best_of": best_of}
    nll, best, best_log = session(words, tmp_path).run(OUTPUTS, feeds)

    made = weights(words)
    rows, places = scored.T
    logits = made["states"][ids[rows, places - 1]].astype(np.float64) @ made["words"].T.astype(np.float64)
    wanted = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    error = nll + wanted[np.arange(len(scored)), ids[rows, places]]
    assert np.abs(error).max() < 2e-5
    assert np.abs(error).mean() < 2e-6
    np.testing.assert_array_equal(best, wanted[best_of].argmax(axis=1))
    np.testing.assert_allclose(best_log, wanted[best_of].max(axis=1), rtol=0, atol=1e-5)
    assert -(-words // heads.slice_words(words)) == slices


def test_no_scored_position_gives_no_value(tmp_path: Path) -> None:
    ids = np.ones((2, 5), dtype=np.int64)
    none = np.zeros((0, 2), dtype=np.int64)
    for values in session(6200, tmp_path).run(OUTPUTS, {"input_ids": ids, "scored": none, "best_of": none[:, 0]}):
        assert values.shape == (0,)


@pytest.mark.parametrize(("tied", "tables"), [(True, 1), (False, 2)])
def test_slices_lie_in_the_one_stored_table(tied: bool, tables: int, tmp_path: Path) -> None:
    words = 6200
    path = saved(words, tmp_path, tied=tied)
    assert path.with_suffix(".onnx.data").stat().st_size == tables * words * SIZE * 4

    graph = ir.load(path).graph
    made = weights(words)
    begins = range(0, words, heads.slice_words(words))
    slices = [value for name, value in graph.initializers.items() if ".rows_" in name]
    for begin, value in zip(begins, slices, strict=True):
        assert isinstance(value.const_value, ir.ExternalTensor)
        stored = value.const_value.numpy()
        np.testing.assert_array_equal(stored, made["words"][begin : begin + heads.slice_words(words)])
    assert ("words" in graph.initializers) == tied
