"""DeBERTa-v2 and v3 against transformers, on random weights and rows of unlike length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from instructmining.bundle import PrecisionName
from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.bidirectional import build_embedding, build_reward
from instructmining_export.graphs.deberta import Deberta, RelativePositions
from instructmining_export.graphs.graph_builder import DeviceKind
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save

WORDS = 300
HIDDEN = 64
LAYERS = 2
SEPARATOR = 2
MAX_LENGTH = 64
LENGTHS = (60, 40, 23, 11, 1)  # tokens of the rows; 60 is beyond all distances that have a bucket of their own
V3: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "intermediate_size": 96,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_LENGTH,
    "relative_attention": True,
    "position_buckets": 8,
    "max_relative_positions": -1,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
    "position_biased_input": False,
    "num_labels": 1,
    "initializer_range": 0.15,
    "pad_token_id": 0,
}
V2 = {
    "share_att_key": False,
    "norm_rel_ebd": "none",
    "position_buckets": -1,
    "position_biased_input": True,
    "type_vocab_size": 2,
}
CASES: dict[str, dict[str, Any]] = {
    "v3": {},
    "v2 with a row for each distance and its own projections": V2,
    "one kind of segment": {"type_vocab_size": 1},
    "queries meet positions": {"pos_att_type": ["c2p"]},
    "keys meet positions": {"pos_att_type": ["p2c"], "share_att_key": False},
    "texts beyond the farthest distance": {"position_buckets": 16, "max_position_embeddings": 32},
    "no buckets and texts beyond the table": {"position_buckets": -1, "max_relative_positions": 20},
    "relative attention without its kinds": {"pos_att_type": None},
    "absolute positions alone": {"relative_attention": False, "position_biased_input": True},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("deberta")


def filled(**changes: object) -> dict[str, Any]:
    """A config of v3 as transformers fills it in, then changed without its checks."""
    config: dict[str, Any] = DebertaV2Config(**V3).to_dict()
    return config | changes


@cache
def made(folder: Path, case: str) -> tuple[DebertaV2ForSequenceClassification, Checkpoint]:
    """A classifier whose biases and norms are random too, so that none can be left out, and its files."""
    torch.manual_seed(0)
    model = DebertaV2ForSequenceClassification(DebertaV2Config(**V3 | CASES[case])).eval()
    for name, tensor in model.named_parameters():
        if "LayerNorm" in name or "bias" in name:
            torch.nn.init.normal_(tensor, mean=1.0 if "LayerNorm.weight" in name else 0.0, std=0.2)
    into = folder / case.replace(" ", "-")
    model.save_pretrained(into)
    return model, Checkpoint(into)


def opened(
    folder: Path, case: str, precision: PrecisionName = "fp32", *, reward: bool = True, device: DeviceKind = "cpu"
) -> ort.InferenceSession:
    """A session on the graph of a case; what onnxruntime makes of the graph is written beside it."""
    model, checkpoint = made(folder, case)
    backbone = Deberta.from_config(model.config.to_dict(), max_length=MAX_LENGTH)
    with checkpoint.weights() as weights:
        if reward:
            parts: Any = {"separator": SEPARATOR, "precision": Precision(precision), "device": device}
            tape = build_reward(backbone, weights, **parts)
        else:
            tape = build_embedding(backbone, weights, pooling="mean", precision=Precision(precision))
        path = save(tape.model(), checkpoint.folder / f"{precision}.onnx")[0]
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine does
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_name("optimized.onnx"))
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def batch(*lengths: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Random ids and their mask, each row with a separator in its first half."""
    random = np.random.default_rng(0)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    ids = random.integers(3, WORDS, mask.shape) * mask
    ids[np.arange(len(lengths)), np.array(lengths) // 3] = SEPARATOR
    return ids, mask


def run(session: ort.InferenceSession, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
    return np.asarray(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])


def reference(
    model: DebertaV2ForSequenceClassification, ids: NDArray[np.int64], mask: NDArray[np.int64]
) -> NDArray[np.float32]:
    found = ids == SEPARATOR
    segments = np.minimum(np.cumsum(found, axis=1) - found, model.config.type_vocab_size - 1) * mask
    kinds = {"token_type_ids": torch.from_numpy(segments)} if model.config.type_vocab_size > 1 else {}
    with torch.no_grad():
        logits = model(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask), **kinds).logits
    return np.asarray(logits[:, 0].numpy())


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("case", CASES)
def test_rewards_are_those_of_transformers(folder: Path, case: str, device: DeviceKind) -> None:
    session = opened(folder, case, device=device)
    for lengths in (LENGTHS, (17,), (2, 1), (1,)):
        ids, mask = batch(*lengths)
        rewards = run(session, ids, mask)
        assert rewards.shape == (len(lengths),)
        np.testing.assert_allclose(rewards, reference(made(folder, case)[0], ids, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["v3", "v2 with a row for each distance and its own projections"])
@pytest.mark.parametrize(("precision", "within"), [("fp16", 5e-3), ("int8", 0.2)])
def test_rewards_stay_close_in_narrow_numbers(folder: Path, case: str, precision: PrecisionName, within: float) -> None:
    ids, mask = batch(*LENGTHS)
    rewards = run(opened(folder, case, precision), ids, mask)
    np.testing.assert_allclose(rewards, reference(made(folder, case)[0], ids, mask), rtol=0, atol=within)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_padded_row_has_the_reward_it_has_alone(folder: Path, precision: PrecisionName) -> None:
    session = opened(folder, "v3", precision)
    ids, mask = batch(*LENGTHS)
    together = run(session, ids, mask)
    alone = [
        run(session, ids[row : row + 1, :length], mask[row : row + 1, :length])[0] for row, length in enumerate(LENGTHS)
    ]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-5)


def test_hidden_states_are_those_of_transformers_without_a_head(folder: Path) -> None:
    ids, mask = batch(*LENGTHS)
    with torch.no_grad():
        base = made(folder, "v3")[0].deberta
        states = base(torch.from_numpy(ids), attention_mask=torch.from_numpy(mask)).last_hidden_state.numpy()
    mean = (states * mask[:, :, None]).sum(axis=1)
    wanted = mean / np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(run(opened(folder, "v3", reward=False), ids, mask), wanted, rtol=0, atol=2e-6)


def test_large_scores_of_hidden_keys_do_not_come_through(folder: Path) -> None:
    model, checkpoint = made(folder, "v3")
    backbone = Deberta.from_config(model.config.to_dict(), max_length=MAX_LENGTH)
    with checkpoint.weights() as weights:

        def loud(name: str) -> NDArray[np.float32]:
            return weights(name) * np.float32(300 if "query_proj" in name or "key_proj" in name else 1)

        path = save(build_reward(backbone, loud, separator=None).model(), folder / "loud.onnx")[0]
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ids, mask = batch(30, 12)
    alone = run(session, ids[1:, :12], mask[1:, :12])
    np.testing.assert_allclose(run(session, ids, mask)[1:], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("case", ["v3", "v2 with a row for each distance and its own projections"])
def test_positions_are_projected_once_and_attention_is_fused(folder: Path, case: str, precision: PrecisionName) -> None:
    opened(folder, case, precision)
    path = made(folder, case)[1].folder / "optimized.onnx"
    ops = Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)
    per_layer = {"Attention": 1, "BiasGelu": 1, "SkipLayerNormalization": 2, "GatherElements": 2}
    per_layer |= {"FusedMatMul": 2, "Split": 1, "Transpose": 2}
    head = {"BiasGelu": 1}  # of the pooler
    assert {op: ops[op] for op in per_layer} == {op: n * LAYERS + head.get(op, 0) for op, n in per_layer.items()}
    assert ops["LayerNormalization"] == 1  # the embeddings'; that of the relative positions is a constant
    # Query, key and value; output; two of the feed-forward. The pooler is one more, in float32.
    assert ops["MatMulIntegerToFloat" if precision == "int8" else "MatMul"] == 4 * LAYERS + (precision != "int8")
    assert ops["Gemm"] == 1  # the classifier's


def test_the_file_holds_no_weight_twice(folder: Path) -> None:
    model, checkpoint = made(folder, "v3")
    opened(folder, "v3")
    stored = (checkpoint.folder / "fp32.onnx.data").stat().st_size
    assert stored < 4 * sum(tensor.numel() for tensor in model.parameters()) + 20_000  # alignment, constants


def test_types_are_the_segments_that_the_embeddings_know() -> None:
    assert Deberta.from_config(filled(), max_length=MAX_LENGTH).types == 0
    assert Deberta.from_config(filled(type_vocab_size=2), max_length=MAX_LENGTH).types == 2


def test_near_distances_have_a_row_each_and_far_ones_share() -> None:
    positions = RelativePositions.from_config(filled(), max_length=MAX_LENGTH)
    rows = positions.rows()
    middle = MAX_LENGTH - 1
    assert rows[middle - 4 : middle + 5].tolist() == list(range(4, 13))
    assert len(set(rows.tolist())) == 15
    assert rows[-1] == 15
    assert (np.diff(rows) >= 0).all()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model_type", "deberta"),
        ("hidden_act", "relu"),
        ("conv_kernel_size", 3),
        ("embedding_size", 32),
        ("attention_head_size", 8),
        ("pooler_hidden_size", 32),
        ("pos_att_type", ["p2c", "p2p"]),
    ],
)
def test_a_setting_that_the_graph_does_not_have_is_refused_by_name(setting: str, value: object) -> None:
    with pytest.raises(ExportError, match="family 'deberta'" if setting == "model_type" else setting):
        Deberta.from_config(filled(**{setting: value}), max_length=MAX_LENGTH)


def test_texts_beyond_the_absolute_positions_are_refused() -> None:
    config = filled(position_biased_input=True)
    with pytest.raises(ExportError, match=f"--max-length {MAX_LENGTH}"):
        Deberta.from_config(config, max_length=MAX_LENGTH + 1)


def test_another_pooler_is_refused_where_there_is_a_reward(folder: Path) -> None:
    backbone = Deberta.from_config(filled(pooler_hidden_act="tanh"), max_length=MAX_LENGTH)
    with made(folder, "v3")[1].weights() as weights:
        assert build_embedding(backbone, weights, pooling="cls").products
        with pytest.raises(ExportError, match="pooler_hidden_act 'tanh'"):
            build_reward(backbone, weights, separator=SEPARATOR)
