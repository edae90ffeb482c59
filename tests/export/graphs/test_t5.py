"""T5 as a yes-or-no scorer: the graph against transformers, one row against many, and what it refuses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention
from transformers_configs import untie

from instructmining.bundle import PrecisionName
from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import t5, tensors
from instructmining_export.graphs.precision import Precision
from instructmining_export.transformers_versions import graph_settings

YES, NO = 7, 9
WORDS = 300
MAX_LENGTH = 256
LENGTHS = (200, 40, 23, 11, 2, 1)
CHANGES: dict[str, dict[str, Any]] = {
    "v1.1": {},
    "relu and tied": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "heads wider than the model": {"d_kv": 24},
    "fewer decoder layers": {"num_decoder_layers": 1},
    "more decoder layers": {"num_decoder_layers": 3},
    "near buckets": {"relative_attention_num_buckets": 16, "relative_attention_max_distance": 20},
    "another start": {"decoder_start_token_id": 5},
}
Tokens = tuple[NDArray[np.int64], NDArray[np.int64]]  # ids and mask, each (rows, width)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(**changes: object) -> T5Config:
    """A small T5 v1.1 with what is asked for changed."""
    sizes = {"vocab_size": WORDS, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
    kind = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0}
    return T5Config(**sizes | kind | changes)


def random_model(folder: Path, **changes: object) -> T5ForConditionalGeneration:
    """A saved model whose answers lie far apart and depend on positions; norms are random too."""
    torch.manual_seed(3)
    model = T5ForConditionalGeneration(config(**changes)).eval()
    untie(model)
    for name, parameter in model.named_parameters():
        if "layer_norm" in name:
            torch.nn.init.normal_(parameter, mean=1, std=0.3)
        elif "shared" in name or "relative_attention_bias" in name:
            torch.nn.init.normal_(parameter)
        else:
            # Scores are not scaled by the size of a head; smaller queries do what scaling would. What the decoder takes
            # from the text weighs more than its own constant state.
            factor = 0.15 if name.endswith(".q.weight") else 4.0 if name.endswith("EncDecAttention.o.weight") else 1.0
            torch.nn.init.normal_(parameter, std=factor * parameter.shape[1] ** -0.5)
    if graph_settings(model.config)["tie_word_embeddings"]:
        torch.nn.init.normal_(model.shared.weight)
    model.save_pretrained(folder)
    return model


def batch(lengths: tuple[int, ...] = LENGTHS) -> Tokens:
    """Random rows, right-padded with 0."""
    generator = np.random.default_rng(0)
    mask = (np.arange(max(lengths)) < np.array(lengths)[:, None]).astype(np.int64)
    return generator.integers(3, WORDS, mask.shape) * mask, mask


def reference(model: T5ForConditionalGeneration, tokens: Tokens) -> NDArray[np.float32]:
    """Each row alone through transformers: p(yes) over p(yes) + p(no), float32 (rows,)."""
    answers = []
    start = torch.tensor([[model.config.decoder_start_token_id]])
    for ids, mask in zip(*tokens, strict=True):
        row = torch.from_numpy(ids[: mask.sum()][None])
        with torch.no_grad():
            logits = model(input_ids=row, attention_mask=torch.ones_like(row), decoder_input_ids=start).logits[0, 0]
        answers.append(torch.softmax(logits[[YES, NO]], 0)[0].item())
    return np.array(answers, dtype=np.float32)


def graph(folder: Path, settings: T5Config, precision: PrecisionName = "fp32") -> ort.InferenceSession:
    """A session on the graph of the model in the folder."""
    model = t5.T5.from_config(graph_settings(settings), max_length=MAX_LENGTH)
    with Checkpoint(folder).weights() as weights:
        built = t5.build(model, weights, yes=YES, no=NO, precision=Precision(precision))
        path = tensors.save(built.model(), folder / f"{precision}.onnx")[0]
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine does
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def answer(session: ort.InferenceSession, tokens: Tokens) -> NDArray[np.float32]:
    """What the graph says of a batch, (rows,)."""
    result: NDArray[np.float32] = session.run(["yes"], {"input_ids": tokens[0], "attention_mask": tokens[1]})[0]
    return result


def each_alone(session: ort.InferenceSession, tokens: Tokens) -> NDArray[np.float32]:
    """What the graph says of each row without padding and without the others."""
    rows = [(ids[None, : mask.sum()], mask[None, : mask.sum()]) for ids, mask in zip(*tokens, strict=True)]
    return np.concatenate([answer(session, row) for row in rows])


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_the_graph_says_what_transformers_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    model = random_model(tmp_path, **changes)
    tokens = batch()
    wanted = reference(model, tokens)
    session = graph(tmp_path, model.config)
    found = answer(session, tokens)
    assert found.dtype == np.float32
    assert np.ptp(wanted) > 0.1
    assert np.abs(wanted - 0.5).min() < 0.45, "some answer is not saturated"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    np.testing.assert_allclose(each_alone(session, tokens), found, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("precision", "within"), [("fp16", 5e-3), ("int8", 5e-2)])
def test_fewer_bits_stay_close_and_do_not_depend_on_the_batch(
    tmp_path: Path, precision: PrecisionName, within: float
) -> None:
    model = random_model(tmp_path)
    tokens = batch()
    session = graph(tmp_path, model.config, precision)
    found = answer(session, tokens)
    np.testing.assert_allclose(found, reference(model, tokens), rtol=0, atol=within)
    np.testing.assert_allclose(each_alone(session, tokens), found, rtol=0, atol=1e-3)


def test_in_fp16_the_feed_forward_stays_in_float32_where_trained_models_overflow(tmp_path: Path) -> None:
    """By the graph's types: on the CPU onnxruntime takes out casts to float16 and back, and nothing would overflow."""
    settings = random_model(tmp_path).config
    model = t5.T5.from_config(graph_settings(settings), max_length=MAX_LENGTH)
    with Checkpoint(tmp_path).weights() as weights:
        built = t5.build(model, weights, yes=YES, no=NO, precision=Precision("fp16"))
    model_graph = built.model().graph
    kinds = {name: value.dtype for name, value in model_graph.initializers.items()}
    assert {str(kind) for name, kind in kinds.items() if ".wo." in name} == {"FLOAT"}
    assert {str(kind) for name, kind in kinds.items() if ".wi_" in name} == {"FLOAT16"}
    names = {node: [value.name or "" for value in node.inputs if value is not None] for node in model_graph}
    inputs = [node.inputs[0] for node, used in names.items() if any(".wo." in name for name in used)]
    producers = [value.producer() for value in inputs if value is not None]
    assert [node.op_type for node in producers if node is not None] == ["Mul"] * 4, "the gated product is not cast"


def test_padding_is_not_looked_at_however_large_the_scores_are(tmp_path: Path) -> None:
    """onnxruntime hides padding by -10,000 of its own accord, and T5 does not scale its scores."""
    model = random_model(tmp_path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".q.weight"):
                parameter.mul_(3e4)
    model.save_pretrained(tmp_path)
    ids, mask = batch()
    session = graph(tmp_path, model.config)
    other = np.where(mask == 1, ids, 8)
    np.testing.assert_array_equal(answer(session, (ids, mask)), answer(session, (other, mask)))


@pytest.mark.parametrize("changes", [{}, {"feed_forward_proj": "relu"}], ids=["gated", "plain"])
def test_every_layer_is_of_fused_operators(changes: dict[str, Any]) -> None:
    settings = config(num_layers=5, num_decoder_layers=3, **changes)
    weights = {name: part.detach().numpy() for name, part in T5ForConditionalGeneration(settings).state_dict().items()}
    model = t5.T5.from_config(graph_settings(settings), max_length=MAX_LENGTH)
    built = t5.build(model, weights.__getitem__, yes=YES, no=NO).model()
    counts = Counter(node.op_type for node in built.graph)
    gated = not changes
    assert counts["Attention"] == 5 + 3
    assert counts["SkipSimplifiedLayerNormalization"] == 5 * 2 + 3 * 3
    assert counts["SimplifiedLayerNormalization"] == 2
    assert counts["FastGelu"] == (5 + 3 if gated else 0)
    # Encoder: q, k, v, o and the feed-forward. Decoder: v, o; q, k, v, o; and the feed-forward.
    assert counts["MatMul"] == (5 * (4 + 3) + 3 * (2 + 4 + 3) if gated else 5 * (4 + 2) + 3 * (2 + 4 + 2))
    assert counts["Gemm"] == 1
    assert counts["Cast"] == 2, "only the head in float64 is cast"


@pytest.mark.parametrize(("buckets", "furthest"), [(32, 128), (16, 20), (8, 64), (32, 1000), (64, 256)])
def test_buckets_are_those_of_transformers(buckets: int, furthest: int) -> None:
    offsets = np.arange(-3000, 3001)
    wanted = T5Attention._relative_position_bucket(
        torch.from_numpy(offsets), num_buckets=buckets, max_distance=furthest
    )
    np.testing.assert_array_equal(t5.relative_buckets(offsets, buckets, furthest), wanted.numpy())


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"feed_forward_proj": "gated-silu"}, "dense_act_fn 'silu'"),
        ({"feed_forward_proj": "gelu"}, "dense_act_fn 'gelu'"),
        ({"decoder_start_token_id": None}, "decoder_start_token_id"),
    ],
)
def test_what_the_graph_does_not_do_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ExportError, match=named):
        t5.T5.from_config(graph_settings(config(**changes)), max_length=MAX_LENGTH)


def test_another_family_is_refused() -> None:
    with pytest.raises(ExportError, match="umt5"):
        t5.T5.from_config(graph_settings(config()) | {"model_type": "umt5"}, max_length=MAX_LENGTH)


def test_an_answer_outside_the_vocabulary_is_refused(tmp_path: Path) -> None:
    model = t5.T5.from_config(graph_settings(random_model(tmp_path).config), max_length=MAX_LENGTH)
    with Checkpoint(tmp_path).weights() as weights, pytest.raises(ExportError, match=str(WORDS)):
        t5.build(model, weights, yes=YES, no=WORDS)


def test_a_vocabulary_of_another_size_than_the_config_says_is_refused(tmp_path: Path) -> None:
    settings = graph_settings(random_model(tmp_path).config) | {"vocab_size": WORDS + 28}
    model = t5.T5.from_config(settings, max_length=MAX_LENGTH)
    with Checkpoint(tmp_path).weights() as weights, pytest.raises(ExportError, match=r"lm_head.weight: found shape"):
        t5.build(model, weights, yes=YES, no=NO)
