"""Every family of causal decoders against transformers, on random weights and rows of unlike length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    GPTNeoXModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)
from transformers_configs import changed

from instructmining.bundle import PrecisionName
from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.graphs import causal
from instructmining_export.graphs.causal import CausalBackbone, LinearHead
from instructmining_export.graphs.decoder import GatedDecoder
from instructmining_export.graphs.gpt2 import GPT2
from instructmining_export.graphs.gpt_neox import GPTNeoX
from instructmining_export.graphs.graph_builder import DeviceKind
from instructmining_export.graphs.precision import Precision
from instructmining_export.graphs.tensors import save

HIDDEN = 64
WORDS = 400
MAX_LENGTH = 96
LENGTHS = (40, 23, 11, 2, 1)  # tokens of the rows
SPREAD = 0.1  # standard deviation of the weights: losses differ by about a nat from token to token
SHARED: dict[str, Any] = {
    "vocab_size": WORDS,
    "hidden_size": HIDDEN,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GATED: dict[str, Any] = SHARED | {"intermediate_size": 96, "num_key_value_heads": 2, "head_dim": 16}
NEOX: dict[str, Any] = SHARED | {"intermediate_size": 128, "num_attention_heads": 2, "rotary_pct": 0.5}
GPT_2: dict[str, Any] = SHARED
WIDE_HEADS: dict[str, Any] = {"hidden_size": 128, "head_dim": 32}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64}
LONG_ROPE = {"type": "longrope", "short_factor": [1.0 + i / 8 for i in range(8)], "long_factor": [4.0] * 8}


@dataclass(frozen=True)
class Family:
    """How transformers and this project build one family's model."""

    backbone: type[CausalBackbone]
    config: type[PretrainedConfig]
    model: type[PreTrainedModel]
    settings: dict[str, Any]
    changes: dict[str, Any] = field(default_factory=dict)

    def but(self, **changes: object) -> Family:
        return Family(self.backbone, self.config, self.model, self.settings, self.changes | changes)

    def made(self) -> PretrainedConfig:
        """The config; transformers 5 writes into the dictionaries it is given."""
        return self.config(**deepcopy(self.settings | self.changes))

    def filled(self, **changes: object) -> dict[str, Any]:
        """The config as transformers fills it in, then changed without its checks."""
        return changed(self.made(), **changes)


LLAMA = Family(GatedDecoder, LlamaConfig, LlamaForCausalLM, GATED)
MISTRAL = Family(GatedDecoder, MistralConfig, MistralForCausalLM, GATED)
QWEN2 = Family(GatedDecoder, Qwen2Config, Qwen2ForCausalLM, GATED)
QWEN3 = Family(GatedDecoder, Qwen3Config, Qwen3ForCausalLM, GATED)
GEMMA = Family(GatedDecoder, GemmaConfig, GemmaForCausalLM, GATED)
PHI3 = Family(GatedDecoder, Phi3Config, Phi3ForCausalLM, GATED)
GEMMA2 = Family(
    GatedDecoder,
    Gemma2Config,
    Gemma2ForCausalLM,
    GATED
    | {
        "num_hidden_layers": 4,
        "query_pre_attn_scalar": 24,
        "sliding_window": 7,
        "attn_logit_softcapping": 3.0,
        "final_logit_softcapping": 5.0,
    },
)
GEMMA3 = Family(
    GatedDecoder,
    Gemma3TextConfig,
    Gemma3ForCausalLM,
    GATED
    | {
        "num_hidden_layers": 3,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 24,
        "sliding_window": 7,
    },
)
GRANITE = Family(
    GatedDecoder,
    GraniteConfig,
    GraniteForCausalLM,
    {name: value for name, value in GATED.items() if name != "head_dim"}
    | {"embedding_multiplier": 3.0, "residual_multiplier": 0.4, "attention_multiplier": 0.125, "logits_scaling": 0.5},
)
OLMO2 = Family(GatedDecoder, Olmo2Config, Olmo2ForCausalLM, GATED)
SMOLLM3 = Family(GatedDecoder, SmolLM3Config, SmolLM3ForCausalLM, GATED | {"no_rope_layers": [1, 0]})
PYTHIA = Family(GPTNeoX, GPTNeoXConfig, GPTNeoXForCausalLM, NEOX)
SMALL_GPT2 = Family(GPT2, GPT2Config, GPT2LMHeadModel, GPT_2)

CASES = {
    "llama": LLAMA,
    "llama tied": LLAMA.but(tie_word_embeddings=True),
    "llama with biases": LLAMA.but(attention_bias=True),
    "llama with one head for keys": LLAMA.but(num_key_value_heads=1),
    "llama with llama3 positions": LLAMA.but(rope_scaling=LLAMA3_ROPE, rope_theta=5000.0),
    "llama with linear positions": LLAMA.but(rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "llama with yarn positions": LLAMA.but(rope_scaling=YARN),
    "llama with dynamic positions": LLAMA.but(rope_scaling={"rope_type": "dynamic", "factor": 4.0}),
    "mistral": MISTRAL.but(sliding_window=None),
    "mistral with a window": MISTRAL.but(sliding_window=7),
    "mistral with a window beyond the longest text": MISTRAL.but(sliding_window=256),
    "qwen2": QWEN2,
    "qwen2 tied": QWEN2.but(tie_word_embeddings=True),
    "qwen3": QWEN3,
    "qwen3 with biases": QWEN3.but(attention_bias=True, tie_word_embeddings=True),
    "qwen2 with a window in some layers": QWEN2.but(use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "qwen3 with a window in some layers": QWEN3.but(use_sliding_window=True, sliding_window=7, max_window_layers=1),
    "gemma": GEMMA,
    "gemma2": GEMMA2,
    "gemma2 without bounds": GEMMA2.but(attn_logit_softcapping=None, final_logit_softcapping=None),
    "gemma2 with a window beyond the longest text": GEMMA2.but(sliding_window=256),
    "gemma2 with three heads": GEMMA2.but(hidden_size=48, num_attention_heads=3, num_key_value_heads=1),
    "gemma3": GEMMA3,
    "gemma3 with biases and three heads": GEMMA3.but(
        hidden_size=48, num_attention_heads=3, num_key_value_heads=1, attention_bias=True
    ),
    "gemma3 with linear positions": GEMMA3.but(rope_scaling={"rope_type": "linear", "factor": 8.0}),
    "gemma3 with a window beyond the longest text": GEMMA3.but(sliding_window=256),
    "granite": GRANITE,
    "granite tied with biases": GRANITE.but(tie_word_embeddings=True, attention_bias=True, logits_scaling=0.8),
    "olmo2": OLMO2,
    "olmo2 with biases and a head for each key": OLMO2.but(num_key_value_heads=4, attention_bias=True),
    "olmo2 with linear positions": OLMO2.but(rope_scaling={"type": "linear", "factor": 4.0}),
    "smollm3": SMOLLM3,
    "smollm3 untied": SMOLLM3.but(tie_word_embeddings=False),
    "smollm3 by interval with yarn positions": SMOLLM3.but(
        num_hidden_layers=4, no_rope_layers=None, no_rope_layer_interval=2, rope_scaling=YARN
    ),
    "smollm3 with a window where it does not rotate": SMOLLM3.but(use_sliding_window=True, sliding_window=7),
    "phi3": PHI3,
    "phi3 partly rotated": PHI3.but(**WIDE_HEADS, partial_rotary_factor=0.5),
    "phi3 with longrope positions": PHI3.but(
        rope_scaling=LONG_ROPE, original_max_position_embeddings=MAX_LENGTH, max_position_embeddings=512
    ),
    "phi3 partly rotated with longrope positions": PHI3.but(
        **WIDE_HEADS,
        partial_rotary_factor=0.5,
        tie_word_embeddings=True,
        rope_scaling=LONG_ROPE,
        original_max_position_embeddings=MAX_LENGTH,
        max_position_embeddings=2048,
    ),
    "neox": PYTHIA,
    "neox one after the other": PYTHIA.but(use_parallel_residual=False),
    "neox without attention biases": PYTHIA.but(attention_bias=False),
    "neox tied": PYTHIA.but(tie_word_embeddings=True),
    "neox by the tangent": PYTHIA.but(hidden_act="gelu_fast"),
    "neox wholly rotated": PYTHIA.but(rotary_pct=1.0, rotary_emb_base=500),
    "neox with 12 of 32 dimensions rotated": PYTHIA.but(rotary_pct=0.375),
    "neox with 20 of 80 dimensions rotated": PYTHIA.but(hidden_size=160, rotary_pct=0.25),
    "neox with linear positions": PYTHIA.but(rope_scaling={"rope_type": "linear", "factor": 4.0}),
    "gpt2": SMALL_GPT2,
    "gpt2 untied": SMALL_GPT2.but(tie_word_embeddings=False),
    "gpt2 with another inner size": SMALL_GPT2.but(n_inner=96),
    "gpt2 scaled by layer": SMALL_GPT2.but(scale_attn_by_inverse_layer_idx=True, reorder_and_upcast_attn=True),
    "gpt2 without a scale": SMALL_GPT2.but(scale_attn_weights=False),
    "gpt2 with few positions": SMALL_GPT2.but(n_positions=MAX_LENGTH),
}
# A case for each shape that products and norms take.
TYPICAL = (
    "llama",
    "mistral with a window",
    "qwen2 tied",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "granite",
    "olmo2",
    "smollm3",
    "phi3",
    "neox",
    "neox one after the other",
    "neox with 12 of 32 dimensions rotated",
    "gpt2",
    "gpt2 untied",
)
every_case = pytest.mark.parametrize("case", CASES)


@dataclass(frozen=True)
class Reference:
    """A random model on disk, and what transformers says of the rows, each alone."""

    checkpoint: Checkpoint
    head: LinearHead
    nll: NDArray[np.float32]  # (n,) of every token but the first of each row
    reward: NDArray[np.float32]  # (rows,)


@dataclass(frozen=True)
class Inputs:
    """Right-padded rows with all their tokens scored."""

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    scored: NDArray[np.int64]

    @classmethod
    def of(cls, rows: list[NDArray[np.int64]]) -> Inputs:
        width = max(map(len, rows))
        ids = np.stack([np.pad(row, (0, width - len(row))) for row in rows])
        positions = np.stack([np.pad(np.arange(len(row)), (0, width - len(row))) for row in rows])
        scored = [(row, at) for row, tokens in enumerate(rows) for at in range(1, len(tokens))]
        return cls(ids, positions, np.array(scored, dtype=np.int64).reshape(-1, 2))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("causal")


@cache
def texts() -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(3)
    return [rng.integers(3, WORDS, length) for length in LENGTHS]


def randomize(model: torch.nn.Module) -> None:
    """Random weights everywhere: at 0 and 1, where biases and norms begin, an error would not show."""
    torch.manual_seed(5)
    # These store their norms' weights less one.
    from_zero = isinstance(model, GemmaForCausalLM | Gemma2ForCausalLM | Gemma3ForCausalLM)
    for name, parameter in model.named_parameters():
        around = 1.0 if parameter.ndim == 1 and not name.endswith("bias") and not from_zero else 0.0
        torch.nn.init.normal_(parameter, mean=around, std=SPREAD)


@cache
def reference(case: str, folder: Path) -> Reference:
    """The model of a case, made once; eager attention, since the others pass over GPT-2's scale by layer."""
    family = CASES[case]
    model = family.model._from_config(family.made(), attn_implementation="eager")
    randomize(model.eval())
    model.save_pretrained(folder / case)
    size = model.config.hidden_size
    weight = np.random.default_rng(7).normal(size=(1, size), scale=size**-0.5).astype(np.float32)
    head = LinearHead(weight, np.array([0.5], dtype=np.float32))
    losses, rewards = [], []
    with torch.inference_mode():
        for row in texts():
            ids = torch.from_numpy(row)[None]
            output = model(ids, output_hidden_states=True)
            losses.append(
                torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="none").numpy()
            )
            rewards.append(head.weight[0] @ output.hidden_states[-1][0, -1].numpy() + head.bias[0])
    return Reference(Checkpoint(folder / case), head, np.concatenate(losses), np.array(rewards, dtype=np.float32))


@cache
def session(
    case: str, folder: Path, precision: PrecisionName = "fp32", device: DeviceKind = "cpu"
) -> ort.InferenceSession:
    """The graph of a case with both heads."""
    made = reference(case, folder)
    family = CASES[case]
    backbone = family.backbone.from_config(family.filled(), max_length=MAX_LENGTH)
    with made.checkpoint.weights() as weights:
        parts: Any = {"vocabulary": True, "reward": made.head, "precision": Precision(precision), "device": device}
        tape = causal.build(backbone, weights, **parts)
        path = save(tape.model(), folder / case / f"{precision}.{device}.onnx")[0]
    return opened(path)


def opened(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # as the engine does
    options.intra_op_num_threads = 1
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(made: ort.InferenceSession, inputs: Inputs) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """NLLs and rewards."""
    feeds = {
        "input_ids": inputs.ids,
        "position_ids": inputs.positions,
        "scored": inputs.scored,
        "best_of": np.zeros(0, dtype=np.int64),
    }
    wanted = {value.name for value in made.get_inputs()}
    nll, reward = made.run(["nll", "reward"], {name: feeds[name] for name in wanted})
    return nll, reward


# Against transformers


@every_case
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_losses_and_rewards_are_those_of_transformers(case: str, device: DeviceKind, folder: Path) -> None:
    expected = reference(case, folder)
    nll, reward = run(session(case, folder, device=device), Inputs.of(texts()))
    assert nll.shape == (sum(LENGTHS) - len(LENGTHS),)
    assert np.std(expected.nll) > 0.5  # else there would be nothing to tell apart
    np.testing.assert_allclose(nll, expected.nll, atol=1e-5, rtol=0)
    np.testing.assert_allclose(reward, expected.reward, atol=1e-5, rtol=0)


@dataclass(frozen=True)
class Loss:
    """What a precision may cost, as parts of a standard deviation."""

    scatter: float  # root mean square error
    shift: float  # mean error


@pytest.mark.parametrize(("precision", "loss"), [("fp16", Loss(0.003, 0.0005)), ("int8", Loss(0.1, 0.015))])
@pytest.mark.parametrize("case", TYPICAL)
def test_fewer_bits_cost_little(case: str, folder: Path, precision: PrecisionName, loss: Loss) -> None:
    expected = reference(case, folder)
    nll, reward = run(session(case, folder, precision), Inputs.of(texts()))
    error, spread = nll - expected.nll, np.std(expected.nll)
    assert 0 < np.sqrt(np.mean(error**2)) <= loss.scatter * spread
    assert abs(np.mean(error)) <= loss.shift * spread
    # Over random heads, and so without regard to these few rows, a reward's standard deviation is about 1.
    assert 0 < np.sqrt(np.mean((reward - expected.reward) ** 2)) <= loss.scatter


@every_case
def test_a_row_alone_equals_the_row_in_a_batch(case: str, folder: Path) -> None:
    check_alone_equals_together(session(case, folder), 1e-5)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("case", TYPICAL)
def test_a_row_alone_equals_the_row_in_a_batch_with_fewer_bits(
    case: str, folder: Path, precision: PrecisionName
) -> None:
    check_alone_equals_together(session(case, folder, precision), 1e-3)


def check_alone_equals_together(made: ort.InferenceSession, tolerance: float) -> None:
    nll, reward = run(made, Inputs.of(texts()))
    alone = [run(made, Inputs.of([row])) for row in texts()]
    np.testing.assert_allclose(nll, np.concatenate([losses for losses, _ in alone]), atol=tolerance, rtol=0)
    np.testing.assert_allclose(reward, np.concatenate([rewards for _, rewards in alone]), atol=tolerance, rtol=0)


class OpenAssistantReward(torch.nn.Module):
    """GPT-NeoX with a head on the last token, as OpenAssistant saves it."""

    def __init__(self) -> None:
        super().__init__()
        self.gpt_neox = GPTNeoXModel._from_config(GPTNeoXConfig(**NEOX), attn_implementation="eager")
        self.out_proj = torch.nn.Linear(HIDDEN, 1)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("case", ["llama tied", "neox", "gpt2"])
def test_rewards_come_without_scored_tokens(case: str, folder: Path, precision: PrecisionName) -> None:
    inputs = Inputs.of(texts())
    nothing = np.empty((0, 2), dtype=np.int64)
    _, with_losses = run(session(case, folder, precision), inputs)
    nll, alone = run(session(case, folder, precision), replace(inputs, scored=nothing))
    assert nll.shape == (0,)
    np.testing.assert_array_equal(alone, with_losses)


def test_a_reward_model_of_openassistant_is_read_from_its_own_layout(folder: Path) -> None:
    model = OpenAssistantReward().eval()
    randomize(model)
    (folder / "oasst").mkdir()
    save_file(model.state_dict(), folder / "oasst" / "model.safetensors")
    with torch.inference_mode():
        states = [model.gpt_neox(torch.from_numpy(row)[None]).last_hidden_state[0, -1] for row in texts()]
        expected = torch.cat([model.out_proj(state) for state in states]).numpy()
    config = PYTHIA.filled(model_type="gpt_neox_reward_model", pooling="last")
    backbone = GPTNeoX.from_config(config, max_length=MAX_LENGTH)
    with Checkpoint(folder / "oasst").weights() as weights:
        head = LinearHead(weights("out_proj.weight"), weights("out_proj.bias"))
        graph = causal.build(backbone, weights, vocabulary=False, reward=head).model()
        made = opened(save(graph, folder / "oasst" / "model.onnx")[0])
    inputs = Inputs.of(texts())
    (reward,) = made.run(None, {"input_ids": inputs.ids, "position_ids": inputs.positions})
    np.testing.assert_allclose(reward, expected, atol=1e-5, rtol=0)


# The nodes of a layer

GATED_LAYER = {
    "MatMul": 5,
    "GroupQueryAttention": 1,
    "SkipSimplifiedLayerNormalization": 2,
    "QuickGelu": 1,
    "Mul": 1,
}
GEMMA_LAYER = {"FastGelu" if op == "QuickGelu" else op: count for op, count in GATED_LAYER.items()}
LAYERS = {
    "llama": GATED_LAYER,
    "llama with biases": GATED_LAYER | {"Add": 2},
    "mistral with a window": GATED_LAYER,
    "qwen2": GATED_LAYER | {"Add": 1},
    "qwen3": GATED_LAYER | {"Split": 1, "Reshape": 4, "SimplifiedLayerNormalization": 2},
    "gemma": GEMMA_LAYER,
    "gemma2": GEMMA_LAYER | {"SimplifiedLayerNormalization": 2},
    "gemma3": GEMMA_LAYER | {"Split": 1, "Reshape": 4, "SimplifiedLayerNormalization": 4},
    "granite": GATED_LAYER,
    "olmo2": {
        **{op: count for op, count in GATED_LAYER.items() if op != "SkipSimplifiedLayerNormalization"},
        "Split": 1,
        "Add": 2,
        "SimplifiedLayerNormalization": 4,
    },
    "smollm3": GATED_LAYER,
    "phi3": GATED_LAYER | {"MatMul": 4, "Split": 1},
    "neox": {
        "MatMul": 4,
        "Add": 3,
        "GroupQueryAttention": 1,
        "BiasGelu": 1,
        "LayerNormalization": 1,
        "SkipLayerNormalization": 1,
    },
    "neox one after the other": {
        "MatMul": 4,
        "Add": 2,
        "GroupQueryAttention": 1,
        "BiasGelu": 1,
        "SkipLayerNormalization": 2,
    },
    "gpt2": {"MatMul": 4, "Add": 1, "GroupQueryAttention": 1, "FastGelu": 1, "SkipLayerNormalization": 2},
}


def layer_operators(case: str, precision: PrecisionName) -> dict[str, int]:
    """Operators by which a model of three layers is larger than one of two; no weights are read."""

    def none(name: str) -> NDArray[np.float32]:
        raise AssertionError(name)

    def operators(layers: int) -> Counter[str]:
        listed = {name: None for name in ("layer_types", "no_rope_layers") if name in CASES[case].settings}
        config = CASES[case].but(num_hidden_layers=layers, **listed).filled()
        backbone = CASES[case].backbone.from_config(config, max_length=MAX_LENGTH)
        graph = causal.build(backbone, none, vocabulary=True, reward=None, precision=Precision(precision)).model()
        return Counter(node.op_type for node in graph.graph)

    return dict(operators(3) - operators(2))


@pytest.mark.parametrize("case", LAYERS)
def test_a_layer_is_made_of_fused_operators(case: str) -> None:
    assert layer_operators(case, "fp32") == LAYERS[case]


@pytest.mark.parametrize("case", LAYERS)
def test_fp16_casts_only_between_norms_and_products(case: str) -> None:
    # In front of attention and feed-forward, and behind each.
    assert layer_operators(case, "fp16") == LAYERS[case] | {"Cast": 4}


@pytest.mark.parametrize("case", LAYERS)
def test_int8_makes_every_product_one_of_integers(case: str) -> None:
    found = layer_operators(case, "int8")
    assert "MatMul" not in found
    assert found["MatMulIntegerToFloat"] == LAYERS[case]["MatMul"]
    # Products of the same value share its quantization: gate and up have the norm's.
    assert found["QuantizeLinear"] == 4
    kept = {"MatMul", "Mul", "Add"}
    assert {op: found[op] for op in LAYERS[case] if op not in kept} == {
        op: count for op, count in LAYERS[case].items() if op not in kept
    }


# What the graphs do not do

REFUSED: dict[str, tuple[Family, dict[str, Any], str]] = {
    "llama by relu": (LLAMA, {"hidden_act": "relu"}, "activation 'relu'"),
    "gemma by relu": (GEMMA, {"hidden_activation": "relu"}, "activation 'relu'"),
    "neox by relu": (PYTHIA, {"hidden_act": "relu"}, "activation 'relu'"),
    "gpt2 by relu": (SMALL_GPT2, {"activation_function": "relu"}, "activation 'relu'"),
    "llama of no family": (LLAMA, {"model_type": "mamba"}, "family 'mamba'"),
    "neox of no family": (PYTHIA, {"model_type": "mamba"}, "family 'mamba'"),
    "gpt2 of no family": (SMALL_GPT2, {"model_type": "mamba"}, "family 'mamba'"),
    "llama with biases in the feed-forward": (LLAMA, {"mlp_bias": True}, "biases in its feed-forward"),
    "llama of odd heads": (LLAMA, {"head_dim": 24}, "heads of size 24"),
    "neox of odd heads": (PYTHIA, {"hidden_size": 80}, "heads of size 40"),
    "gpt2 of odd heads": (SMALL_GPT2, {"n_embd": 80}, "heads of size 20"),
    "llama of unknown positions": (LLAMA, {"rope_scaling": {"rope_type": "ring"}}, "type 'ring'"),
    "llama of dynamic positions beyond": (
        LLAMA,
        {"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}, "max_position_embeddings": MAX_LENGTH - 1},
        f"changes beyond {MAX_LENGTH - 1} tokens; give --max-length {MAX_LENGTH - 1}",
    ),
    "phi3 of longrope positions beyond": (
        PHI3,
        {"rope_scaling": LONG_ROPE, "original_max_position_embeddings": MAX_LENGTH - 1},
        f"changes beyond {MAX_LENGTH - 1} tokens",
    ),
    "neox scaled but for dimensions at rest": (PYTHIA, {"partial_rotary_factor": 0.375, "rope_scaling": YARN}, "scale"),
    "qwen2 that sees both ways": (QWEN2, {"is_causal": False}, "is_causal = false"),
    "gemma3 with layers of another kind": (
        GEMMA3,
        {"layer_types": ["full_attention", "chunked_attention", "full_attention"]},
        "layers of type 'chunked_attention'",
    ),
    "neox pooled otherwise": (PYTHIA, {"pooling": "mean"}, "pooling 'mean'"),
    "gpt2 after an encoder": (SMALL_GPT2, {"add_cross_attention": True}, "add_cross_attention"),
    "gpt2 beyond its positions": (
        SMALL_GPT2,
        {"n_positions": MAX_LENGTH - 1},
        f"{MAX_LENGTH - 1} learned positions; give --max-length {MAX_LENGTH - 1}",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_setting_that_the_graph_does_not_have_is_refused(case: str) -> None:
    family, changes, message = REFUSED[case]
    family.backbone.from_config(family.filled(), max_length=MAX_LENGTH)
    with pytest.raises(ExportError, match=message):
        family.backbone.from_config(family.filled(**changes), max_length=MAX_LENGTH)
