"""Our outputs on graphs as other exporters write them, made by hand here: no other exporter is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx_ir.tape import Tape

from instructmining.errors import ExportError
from instructmining_export.graphs.bidirectional import Pooling
from instructmining_export.graphs.graph_builder import GraphBuilder
from instructmining_export.graphs.tensors import save
from instructmining_export.via import tails

SIZE, ROWS, WIDTH = 16, 3, 12
OUTPUTS = ["nll", "best_token", "best_log_probability"]
Floats = NDArray[np.float32]
Inputs = Mapping[str, ir.Value]


def drawn(*shape: int, seed: int = 1) -> Floats:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


class Made:
    """An exported graph: nodes in opset 18, with shapes and documentation as exporters write them."""

    def __init__(self, *inputs: str) -> None:
        self.tape = Tape()
        shape = ir.Shape(["s43", "s53"])
        self.inputs = {name: ir.Value(name=name, shape=shape, type=ir.TensorType(ir.DataType.INT64)) for name in inputs}

    def weight(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        return self.tape.initializer(ir.tensor(array, name=name))

    def saved(self, folder: Path, **outputs: tuple[ir.Value, list[int | str]]) -> ir.Model:
        """Write it and read it again, with its weights on disk."""
        for name, (value, shape) in outputs.items():
            value.name, value.shape, value.type = name, ir.Shape(shape), ir.TensorType(ir.DataType.FLOAT)
        for node in self.tape.nodes:
            node.metadata_props["pkg.torch.onnx.stack_trace"] = "/home/someone/model.py"
        graph = ir.Graph(
            list(self.inputs.values()),
            [value for value, _ in outputs.values()],
            nodes=self.tape.nodes,
            initializers=self.tape.initializers,
            opset_imports={"": 18},
            name="exported",
        )
        ir.save(ir.Model(graph, ir_version=10), folder / "exported.onnx", external_data="exported.onnx.data")
        return ir.load(folder / "exported.onnx")


def no_weights(name: str) -> Floats:
    raise AssertionError(name)


def session(graph: GraphBuilder, folder: Path) -> ort.InferenceSession:
    folder = folder / "ours"
    folder.mkdir()
    return ort.InferenceSession(str(save(graph.model(), folder / "model.onnx")[0]), providers=["CPUExecutionProvider"])


# What follows the product of states and words: the nodes, and the same in NumPy.
BIAS = drawn(400, seed=3)
ENDINGS: Mapping[str, tuple[Callable[[Made, ir.Value], ir.Value], Callable[[Floats], Floats]]] = {
    "nothing": (lambda _made, value: value, lambda logits: logits),
    "a bias": (
        lambda made, value: made.tape.op("Add", [made.weight("bias", BIAS), value]),
        lambda logits: logits + BIAS,
    ),
    "a soft cap": (
        lambda made, value: made.tape.op(
            "Mul",
            [
                made.tape.op("Tanh", [made.tape.op("Div", [value, made.weight("by", np.float32([3]))])]),
                made.weight("cap", np.array(3, np.float32)),
            ],
        ),
        lambda logits: np.tanh(logits / 3) * 3,
    ),
    "a softmax": (
        lambda made, value: made.tape.op("LogSoftmax", [value], {"axis": -1}),
        lambda logits: logits,
    ),
}


def language_model(folder: Path, ending: str, *, words: int = 400, stored: str = "transposed") -> ir.Model:
    """States looked up by token, times the vocabulary matrix."""
    made = Made("input_ids", "attention_mask")
    states = made.tape.op("Gather", [made.weight("states", drawn(words, SIZE)), made.inputs["input_ids"]])
    states.name = "nll"  # a name that an output of ours takes
    table = made.weight("table", drawn(words, SIZE, seed=2) if stored == "transposed" else drawn(words, SIZE, seed=2).T)
    if stored == "transposed":
        table = made.tape.op("Transpose", [table], {"perm": [1, 0]})
    logits = ENDINGS[ending][0](made, made.tape.op("MatMul", [states, table]))
    return made.saved(folder, logits=(logits, ["s43", "s53", words]), hidden_states=(states, ["s43", "s53", SIZE]))


@pytest.mark.parametrize("stored", ["transposed", "as the product takes it"])
@pytest.mark.parametrize(("words", "ending"), [(6200, "nothing"), *((400, ending) for ending in ENDINGS)])
def test_likelihoods_are_those_of_the_exported_logits(tmp_path: Path, words: int, ending: str, stored: str) -> None:
    graph = tails.likelihoods(language_model(tmp_path, ending, words=words, stored=stored), no_weights)
    run = session(graph, tmp_path)
    assert [value.name for value in run.get_inputs()] == ["input_ids", "scored", "best_of"]
    ids = np.random.default_rng(4).integers(0, words, (ROWS, WIDTH))
    scored = np.array([(row, place) for row in range(ROWS) for place in range(2, WIDTH - row)])
    best_of = np.arange(0, len(scored), 3)
    nll, best, best_log = run.run(OUTPUTS, {"input_ids": ids, "scored": scored, "best_of": best_of})

    rows, places = scored.T
    logits = ENDINGS[ending][1](drawn(words, SIZE)[ids[rows, places - 1]] @ drawn(words, SIZE, seed=2).T)
    wanted = logits - np.log(np.exp(logits.astype(np.float64)).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(nll, -wanted[np.arange(len(scored)), ids[rows, places]], rtol=0, atol=2e-5)
    np.testing.assert_array_equal(best, wanted[best_of].argmax(axis=1))
    np.testing.assert_allclose(best_log, wanted[best_of].max(axis=1), rtol=0, atol=2e-5)


def shapes_of_products(graph: GraphBuilder, folder: Path) -> list[int]:
    """Return how many positions each product is computed for, of 2 rows of 5 tokens of which 1 is scored."""
    path = save(graph.model(), folder / "model.onnx")[0]
    model = ir.load(path)
    for node in model.graph:
        if node.op_type in {"MatMul", "Gemm"}:
            model.graph.outputs.append(node.outputs[0])
            node.outputs[0].type, node.outputs[0].shape = ir.TensorType(ir.DataType.FLOAT), None
    ir.save(model, folder / "probed.onnx")
    run = ort.InferenceSession(str(folder / "probed.onnx"), providers=["CPUExecutionProvider"])
    feeds = {"input_ids": np.ones((2, 5), np.int64), "scored": np.array([[1, 3]]), "best_of": np.array([0])}
    return [int(np.prod(value.shape[:-1])) for value in run.run(None, feeds)[len(OUTPUTS) :]]


@pytest.mark.parametrize(("ending", "rows"), [("nothing", 1), ("a bias", 1), ("a soft cap", 1), ("a softmax", 10)])
def test_logits_are_computed_at_scored_positions_alone_where_the_product_is_found(
    tmp_path: Path, ending: str, rows: int
) -> None:
    graph = tails.likelihoods(language_model(tmp_path, ending), no_weights)
    assert graph.multiply_adds == (
        {"token": 400 * SIZE, "scored": 0, "row": 0}
        if ending == "a softmax"
        else {"token": 0, "scored": 400 * SIZE, "row": 0}
    )
    assert shapes_of_products(graph, tmp_path) == [rows]


@pytest.mark.parametrize("stored", ["transposed", "as the product takes it"])
def test_the_table_is_stored_once_and_beside_the_graph(tmp_path: Path, stored: str) -> None:
    words = 6200
    graph = tails.likelihoods(language_model(tmp_path, "nothing", words=words, stored=stored), no_weights)
    path, data = save(graph.model(), tmp_path / "model.onnx")
    assert data.stat().st_size == 2 * words * SIZE * 4  # with the states
    assert path.stat().st_size < 2**15


def test_nothing_of_the_machine_that_exported_is_left(tmp_path: Path) -> None:
    graph = tails.likelihoods(language_model(tmp_path, "a bias"), no_weights)
    path = save(graph.model(), tmp_path / "model.onnx")[0]
    assert b"someone" in (tmp_path / "exported.onnx").read_bytes()
    assert b"someone" not in path.read_bytes()


def encoder(folder: Path, *inputs: str, output: str = "last_hidden_state") -> ir.Model:
    """States of token plus segment, and as the logit the sum of the first token's state."""
    made = Made("input_ids", "attention_mask", *inputs)
    states = made.tape.op("Gather", [made.weight("states", drawn(50, SIZE)), made.inputs["input_ids"]])
    if "token_type_ids" in inputs:
        kinds = made.weight("kinds", drawn(2, SIZE))
        states = made.tape.op("Add", [states, made.tape.op("Gather", [kinds, made.inputs["token_type_ids"]])])
    if output == "last_hidden_state":
        return made.saved(folder, last_hidden_state=(states, ["s43", "s53", SIZE]))
    total = made.tape.op("ReduceSum", [states, made.weight("axes", np.array([1, 2]))], {"keepdims": 0})
    logits = made.tape.op("Unsqueeze", [total, made.weight("last", np.array([1]))])
    return made.saved(folder, logits=(logits, ["s43", 1]))


IDS = np.array([[3, 9, 7, 9, 5], [4, 9, 6, 0, 0]])
MASK = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_an_embedding_is_pooled_over_the_tokens_of_a_row(tmp_path: Path, pooling: Pooling) -> None:
    run = session(tails.embedding(encoder(tmp_path, "token_type_ids"), no_weights, pooling=pooling), tmp_path)
    (found,) = run.run(["embedding"], {"input_ids": IDS, "attention_mask": MASK})
    states = drawn(50, SIZE)[IDS] + drawn(2, SIZE)[0]
    for row, length in enumerate((5, 3)):
        tokens = states[row, :length]
        pooled = {"mean": tokens.mean(axis=0), "cls": tokens[0], "last": tokens[-1]}[pooling]
        np.testing.assert_allclose(found[row], pooled / np.linalg.norm(pooled), rtol=0, atol=1e-6)


def test_a_pairs_second_text_is_marked_for_a_classifier(tmp_path: Path) -> None:
    model = encoder(tmp_path, "token_type_ids", output="logits")
    run = session(tails.classifier_reward(model, no_weights, separator=9), tmp_path)
    (found,) = run.run(["reward"], {"input_ids": IDS, "attention_mask": MASK})
    marks = np.array([[0, 0, 1, 1, 1], [0, 0, 1, 0, 0]])
    wanted = (drawn(50, SIZE)[IDS] + drawn(2, SIZE)[marks]).sum(axis=(1, 2))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4)


def test_a_decoders_reward_is_that_of_the_last_token(tmp_path: Path) -> None:
    head = {"score.weight": drawn(1, SIZE, seed=8)}
    run = session(tails.last_token_reward(encoder(tmp_path), head.__getitem__, head="score.weight"), tmp_path)
    positions = np.where(MASK == 1, np.arange(5), 0)
    (found,) = run.run(["reward"], {"input_ids": IDS, "position_ids": positions})
    wanted = drawn(50, SIZE)[[5, 6]] @ head["score.weight"][0]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)


def test_a_graph_with_an_input_that_the_engine_does_not_give_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the exported graph takes pixel_values; wanted none but input_ids, "):
        tails.embedding(encoder(tmp_path, "pixel_values"), no_weights, pooling="mean")


def test_a_graph_without_the_output_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="the exported graph gives last_hidden_state; wanted logits"):
        tails.classifier_reward(encoder(tmp_path), no_weights, separator=None)


def test_logits_over_an_unknown_number_of_words_are_refused(tmp_path: Path) -> None:
    model = language_model(tmp_path, "nothing")
    model.graph.outputs[0].shape = ir.Shape(["rows", "width", "words"])
    with pytest.raises(ExportError, match="does not say how many words its logits are over"):
        tails.likelihoods(model, no_weights)
