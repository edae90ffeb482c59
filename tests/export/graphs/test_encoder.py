"""BERT, its like and ModernBERT against transformers, on random weights and rows of unlike length."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    ModernBertConfig,
    MPNetConfig,
    MPNetForSequenceClassification,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)
from transformers_configs import changed

from instructmining.bundle import PrecisionName
from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs.bidirectional import (
    POOLINGS,
    BidirectionalBackbone,
    Pooling,
    build_embedding,
    build_reward,
)
from instructmining_export.graphs.encoder import PostNormEncoder
from instructmining_export.graphs.modernbert import ModernBert
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save

with warnings.catch_warnings():
    # Its module compiles as it is imported, and PyTorch's compiler warns of PyTorch's own deprecated parts.
    warnings.simplefilter("ignore", DeprecationWarning)
    from transformers import ModernBertForSequenceClassification

HIDDEN = 64
WORDS = 400
LAYERS = 2
PAD, SEPARATOR, FIRST_WORD = 1, 3, 5
LENGTHS = (40, 23, 11, 2, 1)  # tokens of the rows
MAX_LENGTH = 48
SPREAD = 0.1  # standard deviation of the weights
SHARED: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 512,
    "pad_token_id": PAD,
    "num_labels": 1,
}


@dataclass(frozen=True)
class Family:
    """How transformers and this project build one family's model."""

    backbone: type[BidirectionalBackbone]
    config: type[PretrainedConfig]
    model: type[PreTrainedModel]
    settings: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: object) -> Family:
        return Family(self.backbone, self.config, self.model, self.settings | changes)

    def filled(self, **changes: object) -> dict[str, Any]:
        """The config as transformers fills it in, then changed without its checks."""
        return changed(self.config(**SHARED | self.settings), **changes)


BERT = Family(PostNormEncoder, BertConfig, BertForSequenceClassification)
ROBERTA = Family(PostNormEncoder, RobertaConfig, RobertaForSequenceClassification, {"type_vocab_size": 1})
XLM = Family(PostNormEncoder, XLMRobertaConfig, XLMRobertaForSequenceClassification, {"type_vocab_size": 1})
CAMEMBERT = Family(PostNormEncoder, CamembertConfig, CamembertForSequenceClassification, {"type_vocab_size": 1})
MPNET = Family(PostNormEncoder, MPNetConfig, MPNetForSequenceClassification)
MODERN = Family(
    ModernBert,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    # 4 layers, so that windowed ones stand before and after one that sees all; a window of 4 to either side.
    {"num_hidden_layers": 4, "local_attention": 8, "reference_compile": False, "global_rope_theta": 5000.0},
)

CASES = {
    "bert": BERT,
    "bert with three kinds of segments": BERT.but(type_vocab_size=3),
    "bert with one kind of segment": BERT.but(type_vocab_size=1),
    "bert with wide heads": BERT.but(num_attention_heads=2, num_hidden_layers=3),
    "bert with as many positions as tokens": BERT.but(max_position_embeddings=MAX_LENGTH),
    "roberta": ROBERTA,
    "roberta with a second segment that is never used": ROBERTA.but(type_vocab_size=2),
    "roberta with another padding": ROBERTA.but(pad_token_id=4),
    "roberta with as many positions as tokens": ROBERTA.but(max_position_embeddings=MAX_LENGTH + PAD + 1),
    "xlm-roberta": XLM,
    "camembert": CAMEMBERT,
    "mpnet": MPNET,
    "mpnet with wide heads": MPNET.but(num_attention_heads=2),
    "modernbert": MODERN,
    "modernbert with its mean": MODERN.but(classifier_pooling="mean"),
    "modernbert with biases": MODERN.but(
        attention_bias=True, mlp_bias=True, norm_bias=True, classifier_bias=True, num_attention_heads=2
    ),
    "modernbert with a window in every second layer": MODERN.but(global_attn_every_n_layers=2, local_attention=3),
    "modernbert without windows": MODERN.but(global_attn_every_n_layers=1),
    "modernbert with windows beyond the longest text": MODERN.but(local_attention=128),
    "modernbert with linear positions": MODERN.but(rope_scaling={"rope_type": "linear", "factor": 4.0}),
}
every_case = pytest.mark.parametrize("case", CASES)


@dataclass(frozen=True)
class Reference:
    """A random model on disk, and what transformers says of the rows, each alone."""

    checkpoint: Checkpoint
    states: list[NDArray[np.float32]]  # (tokens, hidden) of each row
    reward: NDArray[np.float32]  # (rows,)


@dataclass(frozen=True)
class Inputs:
    """Rows padded on the right with 0, as the engine does it."""

    ids: NDArray[np.int64]
    mask: NDArray[np.int64]

    @classmethod
    def of(cls, rows: list[NDArray[np.int64]], *, width: int = 0) -> Inputs:
        width = max(width, *(len(row) for row in rows))
        ids = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
        mask = np.stack([np.pad(np.ones_like(row), (0, width - len(row))) for row in rows])
        return cls(ids, mask)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@cache
def texts() -> list[NDArray[np.int64]]:
    """Rows of words; those long enough are pairs, with a separator in the middle and at the end."""
    rng = np.random.default_rng(3)
    rows = [rng.integers(FIRST_WORD, WORDS, length) for length in LENGTHS]
    for row in rows[:3]:
        row[[len(row) // 3, -1]] = SEPARATOR
    return rows


def marks(row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Segments as BERT's tokenizer gives them: 1 after the first separator."""
    return np.minimum(np.cumsum(row == SEPARATOR) - (row == SEPARATOR), 1)


@cache
def reference(case: str, folder: Path) -> Reference:
    """The model of a case, made once; weights are random everywhere, since at 0 and 1 an error would not show."""
    family = CASES[case]
    model = family.model._from_config(family.config(**SHARED | family.settings), attn_implementation="eager").eval()
    torch.manual_seed(5)
    for name, parameter in model.named_parameters():
        norm = parameter.ndim == 1 and not name.endswith("bias")
        torch.nn.init.normal_(parameter, mean=1.0 if norm else 0.0, std=SPREAD)
    model.save_pretrained(folder / case)
    states, rewards = [], []
    with torch.inference_mode():
        for row in texts():
            ids = torch.from_numpy(row)[None]
            states.append(model.base_model(ids, torch.ones_like(ids))[0][0].numpy())
            pair = {"token_type_ids": torch.from_numpy(marks(row))[None]} if separator(case) else {}
            rewards.append(model(ids, torch.ones_like(ids), **pair).logits[0, 0].item())
    return Reference(Checkpoint(folder / case), states, np.array(rewards, dtype=np.float32))


def separator(case: str) -> int | None:
    """The one that splits the case's texts into pairs with marks; None for single texts."""
    return SEPARATOR if case.startswith("bert") and "one kind" not in case else None


@cache
def session(case: str, folder: Path, head: str, precision: PrecisionName = "fp32") -> ort.InferenceSession:
    """The graph of a case with a pooling or with ``reward``."""
    backbone = CASES[case].backbone.from_config(CASES[case].filled(), max_length=MAX_LENGTH)
    with reference(case, folder).checkpoint.weights() as weights:
        if head == "reward":
            tape = build_reward(backbone, weights, separator=SEPARATOR, precision=Precision(precision))
        else:
            pooling: Pooling = next(known for known in POOLINGS if known == head)
            tape = build_embedding(backbone, weights, pooling=pooling, precision=Precision(precision))
        path = save(tape.model(), folder / case / f"{head}-{precision}.onnx")[0]
    return opened(path)


def opened(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine does
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(made: ort.InferenceSession, inputs: Inputs) -> NDArray[np.float32]:
    """The graph's one output."""
    (values,) = made.run(None, {"input_ids": inputs.ids, "attention_mask": inputs.mask})
    return np.asarray(values, dtype=np.float32)


def pooled(states: list[NDArray[np.float32]], pooling: str) -> NDArray[np.float32]:
    by_pooling = {"mean": lambda row: row.mean(0), "cls": lambda row: row[0], "last": lambda row: row[-1]}
    vectors = np.stack([by_pooling[pooling](row) for row in states])
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


# Against transformers


@pytest.mark.parametrize("pooling", POOLINGS)
@every_case
def test_embeddings_are_those_of_transformers(case: str, pooling: Pooling, folder: Path) -> None:
    expected = pooled(reference(case, folder).states, pooling)
    assert np.max(expected @ expected.T - np.eye(len(LENGTHS))) < 0.999  # else there would be nothing to tell apart
    np.testing.assert_allclose(run(session(case, folder, pooling), Inputs.of(texts())), expected, atol=2e-6, rtol=0)


@every_case
def test_rewards_are_those_of_transformers(case: str, folder: Path) -> None:
    expected = reference(case, folder).reward
    assert np.std(expected) > 0.02
    np.testing.assert_allclose(run(session(case, folder, "reward"), Inputs.of(texts())), expected, atol=5e-6, rtol=0)


@pytest.mark.parametrize(("precision", "apart", "reward_apart"), [("fp16", 1e-5, 4e-3), ("int8", 5e-3, 0.1)])
@every_case
def test_fewer_bits_cost_little(
    case: str, folder: Path, precision: PrecisionName, apart: float, reward_apart: float
) -> None:
    expected = reference(case, folder)
    vectors = run(session(case, folder, "mean", precision), Inputs.of(texts()))
    cosines = np.sum(vectors * pooled(expected.states, "mean"), axis=1)
    assert np.max(1 - cosines) <= apart
    rewards = run(session(case, folder, "reward", precision), Inputs.of(texts()))
    assert 0 < np.abs(rewards - expected.reward).max() <= reward_apart


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 2e-6), ("fp16", 1e-3), ("int8", 1e-3)])
@pytest.mark.parametrize("head", ["mean", "reward"])
@every_case
def test_a_row_alone_equals_the_row_in_a_batch(
    case: str, head: str, folder: Path, precision: PrecisionName, tolerance: float
) -> None:
    made = session(case, folder, head, precision)
    together = run(made, Inputs.of(texts(), width=MAX_LENGTH))
    alone = np.concatenate([run(made, Inputs.of([row])) for row in texts()])
    np.testing.assert_allclose(together, alone, atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", ["bert", "bert with three kinds of segments"])
def test_the_second_text_of_a_pair_is_marked_for_bert_alone(case: str, folder: Path) -> None:
    backbone = CASES[case].backbone.from_config(CASES[case].filled(), max_length=MAX_LENGTH)
    with reference(case, folder).checkpoint.weights() as weights:
        path = save(build_reward(backbone, weights, separator=None).model(), folder / "single.onnx")[0]
    single = run(opened(path), Inputs.of(texts()))
    pairs = run(session(case, folder, "reward"), Inputs.of(texts()))
    assert np.all(np.abs(single - pairs)[:3] > 1e-3)  # rows 0 to 2 are pairs
    np.testing.assert_allclose(single[3:], pairs[3:], atol=2e-6, rtol=0)
    assert {name: CASES[name].backbone.from_config(CASES[name].filled(), max_length=8).types for name in CASES} == {
        name: CASES[name].settings.get("type_vocab_size", 2) if name.startswith("bert") else 1 for name in CASES
    }


# What onnxruntime runs


POST_NORM = {"Attention": 1, "SkipLayerNormalization": 2, "BiasGelu": 1}
PRE_NORM = {"Attention": 1, "SkipLayerNormalization": 2, "Gelu": 1, "RotaryEmbedding": 2}
FUSED = ("Attention", "SkipLayerNormalization", "LayerNormalization", "BiasGelu", "Gelu", "RotaryEmbedding")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize(
    ("case", "layer", "once"),
    [
        ("bert", POST_NORM, {"SkipLayerNormalization": 1}),
        ("roberta", POST_NORM, {"SkipLayerNormalization": 1}),
        ("mpnet", POST_NORM, {"SkipLayerNormalization": 1}),
        ("modernbert", PRE_NORM, {"LayerNormalization": 1}),
    ],
)
def test_every_layer_is_made_of_fused_operators(
    case: str, layer: Mapping[str, int], once: Mapping[str, int], precision: PrecisionName, folder: Path
) -> None:
    family = CASES[case]
    backbone = family.backbone.from_config(family.filled(), max_length=MAX_LENGTH)
    with reference(case, folder).checkpoint.weights() as weights:
        model = build_embedding(backbone, weights, pooling="mean", precision=Precision(precision)).model()
    found = Counter(node.op_type for node in model.graph)
    layers = family.settings.get("num_hidden_layers", LAYERS)
    wanted = Counter({name: count * layers for name, count in layer.items()}) + Counter(once)
    assert {name: found[name] for name in FUSED if found[name]} == dict(wanted)
    assert "Softmax" not in found
    assert found["MatMulIntegerToFloat" if precision == "int8" else "MatMul"] >= 4 * layers


@pytest.mark.parametrize(
    ("case", "in_a_layer", "beside"), [("bert", 10, 13), ("roberta", 10, 13), ("mpnet", 10, 20), ("modernbert", 13, 21)]
)
def test_little_is_left_beside_the_layers(case: str, in_a_layer: int, beside: int, folder: Path) -> None:
    family = CASES[case]
    backbone = family.backbone.from_config(family.filled(), max_length=MAX_LENGTH)
    with reference(case, folder).checkpoint.weights() as weights:
        nodes = len(list(build_embedding(backbone, weights, pooling="mean").model().graph))
    assert nodes <= family.settings.get("num_hidden_layers", LAYERS) * in_a_layer + beside


# Refusals


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("bert", {"model_type": "electra"}, "family 'electra' was given; wanted one of bert, roberta"),
        ("bert", {"hidden_act": "gelu_new"}, "hidden_act = 'gelu_new'"),
        ("roberta", {"hidden_act": "relu"}, "hidden_act = 'relu'"),
        ("bert", {"position_embedding_type": "relative_key"}, "position_embedding_type = 'relative_key'"),
        ("bert", {"is_decoder": True}, "is_decoder = True"),
        ("bert", {"num_attention_heads": 5}, "hidden_size = 64: wanted a multiple of num_attention_heads, 5"),
        ("roberta", {"pad_token_id": None}, "without pad_token_id"),
        ("mpnet", {"relative_attention_num_buckets": 64}, "relative_attention_num_buckets = 64"),
        ("bert", {"max_position_embeddings": 47}, "48 tokens for an encoder of 47 positions; give --max-length 47"),
        ("roberta", {"max_position_embeddings": 49}, "encoder of 47 positions; give --max-length 47 or less"),
        ("mpnet", {"max_position_embeddings": 49}, "encoder of 47 positions; give --max-length 47 or less"),
        ("modernbert", {"model_type": "bert"}, "family 'bert' was given; wanted one of modernbert"),
        ("modernbert", {"hidden_activation": "silu"}, "hidden_activation = 'silu'"),
        ("modernbert", {"max_position_embeddings": 47}, "encoder of 47 positions; give --max-length 47 or less"),
        ("modernbert", {"num_attention_heads": 5}, "hidden_size = 64: wanted a multiple of num_attention_heads, 5"),
        ("modernbert", {"rope_scaling": {"rope_type": "spiral"}}, "rotary embedding of type 'spiral'"),
    ],
)
def test_what_the_graph_does_not_have_is_refused(case: str, changes: dict[str, object], message: str) -> None:
    family = CASES[case]
    with pytest.raises(ExportError, match=message):
        family.backbone.from_config(family.filled(**changes), max_length=MAX_LENGTH)


def test_a_head_of_another_activation_is_refused_where_it_is_asked_for(folder: Path) -> None:
    backbone = ModernBert.from_config(MODERN.filled(classifier_activation="relu"), max_length=MAX_LENGTH)
    with reference("modernbert", folder).checkpoint.weights() as weights:
        assert build_embedding(backbone, weights, pooling="cls").model().graph.outputs[0].name == "embedding"
        with pytest.raises(ExportError, match="classifier_activation = 'relu'"):
            build_reward(backbone, weights, separator=None)


def test_a_modernbert_config_of_transformers_5_says_the_same() -> None:
    kinds = ["full_attention" if layer % 3 == 0 else "sliding_attention" for layer in range(4)]
    positions = {
        "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    left_out = {"global_attn_every_n_layers", "global_rope_theta", "local_rope_theta"}
    config = {name: value for name, value in MODERN.filled().items() if name not in left_out}
    later = ModernBert.from_config(config | {"layer_types": kinds, "rope_parameters": positions}, max_length=MAX_LENGTH)
    assert later == ModernBert.from_config(MODERN.filled(), max_length=MAX_LENGTH)
