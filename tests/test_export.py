from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from conftest import SMALL_DECODER, random_weights, small_tokenizer
from numpy.typing import NDArray
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

import instructmining
from instructmining import Bundle, Example, Scorer
from instructmining.errors import ExportError
from instructmining.prompts import conversation
from instructmining.records import Tokens, Turn
from instructmining.references import References
from instructmining.tokens import TextEncoder
from instructmining_export import neighbours_graph, parity, roles, templates
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.demo import train_head
from instructmining_export.graphs import decoder, encoder, tape
from instructmining_export.graphs.decoder import DecoderShape, LinearHead
from instructmining_export.graphs.encoder import EncoderShape
from instructmining_export.parity import check, decoder_references, parity_examples
from instructmining_export.roles import RewardHead, RoleText

HIDDEN = 32
CHAT = RoleText(templates.chatml(), 256)
SENTENCE = RoleText(templates.sentence("[CLS]", "[SEP]"), 128)
LLAMA: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": HIDDEN,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "rope_theta": 5000.0,
    "rms_norm_eps": 1e-5,
    "initializer_range": 0.3,
}
BERT: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": HIDDEN,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
Config = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "cpu_threads", lambda: 1)
        yield
    torch.set_num_threads(before)


def llama(folder: Path, *, shard: str = "5GB", **changes: object) -> Checkpoint:
    """A random decoder in the Hugging Face layout, with the tokenizer of the small bundle."""
    torch.manual_seed(5)
    LlamaForCausalLM(LlamaConfig(**LLAMA | changes)).save_pretrained(folder, max_shard_size=shard)
    small_tokenizer().save(str(folder / "tokenizer.json"))
    return Checkpoint(folder, {"id": "tests/llama", "revision": "1", "licence": "Apache-2.0"})


def bert(folder: Path) -> Checkpoint:
    """A random encoder in the Hugging Face layout; its tokenizer file cuts and pads by itself."""
    torch.manual_seed(6)
    model = BertModel(BertConfig(**BERT), add_pooling_layer=False)
    for parameter in model.parameters():  # biases and norms are not left at 0 and 1, where an error would not show
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    tokenizer = small_tokenizer()
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    tokenizer.save(str(folder / "tokenizer.json"))
    return Checkpoint(folder, {"id": "tests/bert", "revision": "2", "licence": "Apache-2.0"})


def reward_head() -> RewardHead:
    rng = np.random.default_rng(8)
    weight = rng.normal(size=(1, HIDDEN)).astype(np.float32)
    return RewardHead(LinearHead(weight, np.array([0.5], dtype=np.float32)), {"id": "tests/head", "revision": "3"})


def export(path: Path, checkpoint: Checkpoint) -> Bundle:
    """A bundle of the decoder's two roles."""
    with BundleWriter(path) as bundle:
        roles.add_decoder(bundle, checkpoint, CHAT, reward_head())
        bundle.finish(name="decoder", note="", default_rule=None, length_tokenizer="perplexity")
    return Bundle.open(path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    return llama(tmp_path_factory.mktemp("llama"), tie_word_embeddings=True)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, checkpoint: Checkpoint) -> Bundle:
    """A bundle of a decoder and an encoder."""
    folder = tmp_path_factory.mktemp("exported")
    with BundleWriter(folder / "bundle") as bundle:
        roles.add_decoder(bundle, checkpoint, CHAT, reward_head())
        roles.add_encoder(bundle, bert(folder / "bert"), SENTENCE)
        bundle.finish(name="both", note="random", default_rule="paper-v1", length_tokenizer="perplexity")
    return Bundle.open(folder / "bundle")


def edited(checkpoint: Checkpoint, into: Path, change: Callable[[Config], object]) -> Checkpoint:
    """The checkpoint with its config changed."""
    into.mkdir()
    for file in checkpoint.folder.iterdir():
        (into / file.name).write_bytes(file.read_bytes())
    config = checkpoint.config()
    change(config)
    (into / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return Checkpoint(into, checkpoint.source)


def operators(model: ir.Model) -> Counter[str]:
    return Counter(node.op_type for node in model.graph)


# The parity gate


def test_an_export_passes_the_gate_and_its_figures_stand_in_the_manifest(exported: Bundle) -> None:
    assert set(exported.roles) == {"perplexity", "reward", "embedding"}
    exported.verify()
    for role in exported.roles.values():
        assert role.parity["rows"] == len(parity_examples())
        assert abs(float(str(role.parity["row_error"]))) <= 1e-4
        assert abs(float(str(role.parity["batch_difference"]))) <= 1e-5
    assert float(str(exported.roles["perplexity"].parity["token_error"])) <= 1e-3
    assert "token_error" not in exported.roles["reward"].parity
    assert exported.roles["perplexity"].source["id"] == "tests/llama"
    assert exported.roles["reward"].source["id"] == "tests/head"
    assert exported.roles["embedding"].source["id"] == "tests/bert"


def test_reward_and_perplexity_share_one_graph(exported: Bundle) -> None:
    assert exported.roles["reward"].shares == exported.roles["perplexity"].shares
    assert [file for file in sorted(exported.files) if file.endswith(".onnx")] == [
        "embedding/model.onnx",
        "perplexity/model.onnx",
    ]


@pytest.mark.parametrize("role", ["perplexity", "reward", "embedding"])
def test_the_reference_values_are_of_transformers_and_lie_in_the_bundle(exported: Bundle, role: str) -> None:
    path = exported.roles[role].references  # type: ignore[index]
    assert path is not None
    references = References.load(path)
    assert len(references.texts) == len(parity_examples())
    assert len({len(text.ids) for text in references.texts}) > 10
    found = check(role, references, exported.roles[role].graph)  # type: ignore[index]
    assert found.as_json() == pytest.approx(dict(exported.roles[role].parity), abs=1e-6)  # type: ignore[index]


def test_an_exported_bundle_scores_rows_as_transformers_does(exported: Bundle, checkpoint: Checkpoint) -> None:
    example = Example.of("Name a colour.", "Green, as leaves are.")
    with Scorer.open(exported, indicators=["perplexity", "reward"], device="cpu") as scorer:
        (row,) = scorer.score([example])
    tokenizer = small_tokenizer()
    before = "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n"
    encoding = tokenizer.encode(f"{before}Green, as leaves are.<|im_end|>", add_special_tokens=False)
    begin = next(number for number, offset in enumerate(encoding.offsets) if offset[1] > len(before))
    ids = torch.tensor([encoding.ids])
    model = LlamaForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
    with torch.inference_mode():
        output = model(ids, output_hidden_states=True)
        losses = torch.nn.functional.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="none")
    state = output.hidden_states[-1][0, -1].numpy()
    head = reward_head().head
    assert row.columns["perplexity"] == pytest.approx(float(torch.exp(losses[begin - 1 : -1].mean())), rel=1e-4)
    assert row.columns["reward"] == pytest.approx(float(head.weight[0] @ state + head.bias[0]), abs=1e-4)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("key_value_heads", [1, 2])
def test_tied_and_untied_embeddings_and_shared_heads_pass_the_gate(
    tmp_path: Path, tied: bool, key_value_heads: int
) -> None:
    made = llama(tmp_path / "llama", tie_word_embeddings=tied, num_key_value_heads=key_value_heads)
    bundle = export(tmp_path / "bundle", made)
    names = set(ir.load(bundle.roles["perplexity"].graph).graph.initializers)
    assert ("lm_head.weight" in names) is not tied


def test_a_checkpoint_in_shards_passes_the_gate(tmp_path: Path) -> None:
    made = llama(tmp_path / "llama", shard="20KB")
    assert len(list(made.folder.glob("*.safetensors"))) > 1
    assert set(export(tmp_path / "bundle", made).roles) == {"perplexity", "reward"}


WEIGHTS = ["model.embed_tokens.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.0.input_layernorm.weight"]


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_graph_with_an_altered_weight_is_refused_and_nothing_is_left_on_disk(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    original = decoder.build

    def build(shape: DecoderShape, weights: tape.Weights, *, vocabulary: bool, reward: LinearHead) -> ir.Model:
        def altered(wanted: str) -> NDArray[np.float32]:
            tensor = weights(wanted)
            return tensor * np.float32(1.01) if wanted == name else tensor

        return original(shape, altered, vocabulary=vocabulary, reward=reward)

    monkeypatch.setattr(decoder, "build", build)
    message = r"role 'perplexity': the graph is not equal to its checkpoint: row_error \d\.\d\de-\d\d \(at most 1e-04\)"
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "bundle", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_an_altered_reward_is_refused(tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    original = decoder.build

    def build(shape: DecoderShape, weights: tape.Weights, *, vocabulary: bool, reward: LinearHead) -> ir.Model:
        moved = replace(reward, bias=reward.bias + np.float32(0.01))
        return original(shape, weights, vocabulary=vocabulary, reward=moved)

    monkeypatch.setattr(decoder, "build", build)
    with pytest.raises(ExportError, match=r"role 'reward': the graph is not equal .* row_error (1\.0\d|9\.9\d)e-0[23]"):
        export(tmp_path / "bundle", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_an_altered_encoder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = encoder.build
    made = bert(tmp_path / "bert")
    monkeypatch.setattr(encoder, "build", lambda shape, weights: original(replace(shape, epsilon=0.1), weights))
    with (
        pytest.raises(ExportError, match="role 'embedding': the graph is not equal to its checkpoint: row_error"),
        BundleWriter(tmp_path / "bundle") as bundle,
    ):
        roles.add_encoder(bundle, made, SENTENCE)
    assert [file.name for file in tmp_path.iterdir()] == ["bert"]


@pytest.mark.parametrize("figure", ["row_error", "token_error", "batch_difference"])
def test_each_figure_beyond_its_bound_is_named(exported: Bundle, figure: str) -> None:
    role = exported.roles["perplexity"]
    assert role.references is not None
    bounds = replace(parity.FP32, **{figure: -1.0})
    with pytest.raises(ExportError, match=rf": {figure} \d\.\d\de[-+]\d\d \(at most -1e\+00\)$"):
        check("perplexity", References.load(role.references), role.graph, bounds)


@pytest.mark.parametrize("row", [0, 7, 39])
def test_a_value_that_is_no_number_is_refused(exported: Bundle, row: int) -> None:
    role = exported.roles["reward"]
    assert role.references is not None
    references = References.load(role.references)
    references.values[row][:] = np.nan
    with pytest.raises(ExportError, match="role 'reward': the graph is not equal to its checkpoint"):
        check("reward", references, role.graph)


def test_the_bounds_are_those_of_the_design() -> None:
    assert (parity.FP32.row_error, parity.FP32.token_error, parity.FP32.batch_difference) == (1e-4, 1e-3, 1e-5)


def test_the_parity_rows_are_of_mixed_length_and_several_turns() -> None:
    examples = parity_examples()
    sizes = sorted(sum(len(turn.text) for turn in example.turns) for example in examples)
    assert sizes[-1] > 10 * sizes[0]
    assert max(len(example.turns) for example in examples) > 2
    assert all(example.response_texts for example in examples)


# Graphs


@pytest.mark.parametrize("layers", [1, 2, 5])
def test_a_decoder_is_fused_operators(layers: int) -> None:
    model = decoder.build(
        replace(SMALL_DECODER, layers=layers), random_weights(1), vocabulary=True, reward=reward_head().head
    )
    found = operators(model)
    assert found["GroupQueryAttention"] == layers
    assert found["SkipSimplifiedLayerNormalization"] == 2 * layers
    assert found["SimplifiedLayerNormalization"] == 1
    assert found["MatMul"] == 5 * layers
    assert not {"Softmax", "Pow", "ReduceMean", "Sqrt", "ReduceLogSumExp"} & set(found)


def test_an_encoder_is_fused_operators(exported: Bundle) -> None:
    found = operators(ir.load(exported.roles["embedding"].graph))
    layers = BERT["num_hidden_layers"]
    assert found["Attention"] == found["BiasGelu"] == layers
    assert found["SkipLayerNormalization"] == 2 * layers
    assert found["EmbedLayerNormalization"] == 1
    assert found["MatMul"] == 3 * layers + 1
    assert not {"Softmax", "Erf", "LayerNormalization", "ReduceMean"} & set(found)


def test_the_graphs_have_the_inputs_and_outputs_of_the_contract(exported: Bundle) -> None:
    def names(values: Iterable[ir.Value]) -> list[str | None]:
        return [value.name for value in values]

    graph = ir.load(exported.roles["perplexity"].graph).graph
    assert names(graph.inputs) == ["input_ids", "position_ids", "scored"]
    assert names(graph.outputs) == ["nll", "reward"]
    graph = ir.load(exported.roles["embedding"].graph).graph
    assert names(graph.inputs) == ["input_ids", "attention_mask"]
    assert names(graph.outputs) == ["embedding"]


def test_the_shipped_neighbours_graph_is_what_the_script_writes(tmp_path: Path) -> None:
    ir.save(neighbours_graph.build(), tmp_path / "neighbours.onnx")
    shipped = Path(instructmining.__path__[0]) / "neighbours.onnx"
    assert (tmp_path / "neighbours.onnx").read_bytes() == shipped.read_bytes()


# Configs


def v5(config: Config) -> None:
    """A config as transformers 5 writes it."""
    config["rope_parameters"] = {"rope_theta": config.pop("rope_theta"), "rope_type": "default"}
    config.pop("rope_scaling", None)


def test_a_config_of_transformers_5_is_read_as_that_of_4(checkpoint: Checkpoint, tmp_path: Path) -> None:
    shape = DecoderShape.from_config(checkpoint.config())
    assert shape.rope_theta == 5000.0
    assert (shape.layers, shape.hidden, shape.head_size, shape.key_value_heads, shape.tied) == (2, 32, 16, 1, True)
    newer = edited(checkpoint, tmp_path / "v5", v5)
    assert "rope_theta" not in newer.config()
    assert DecoderShape.from_config(newer.config()) == shape


def test_a_graph_from_a_config_of_transformers_5_gives_the_values_of_its_checkpoint(
    checkpoint: Checkpoint, tmp_path: Path
) -> None:
    newer = edited(checkpoint, tmp_path / "v5", v5)
    head = reward_head().head
    with newer.weights() as weights:
        shape = DecoderShape.from_config(newer.config())
        graph = tape.save(decoder.build(shape, weights, vocabulary=True, reward=head), tmp_path / "model.onnx")[0]
    rng = np.random.default_rng(1)
    texts = [Tokens(rng.integers(5, 400, size=size), np.arange(1, size, dtype=np.int64)) for size in (200, 31)]
    for references in decoder_references(checkpoint.folder, texts, head):  # read by the config of version 4
        assert check(references.output, references, graph).rows == 2


def test_a_head_size_that_is_not_written_is_the_hidden_size_over_the_heads(checkpoint: Checkpoint) -> None:
    config = checkpoint.config()
    del config["head_dim"], config["num_key_value_heads"]
    shape = DecoderShape.from_config(config)
    assert (shape.head_size, shape.key_value_heads) == (16, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "a decoder of family 'gpt2' was given; wanted one of llama"),
        ({"model_type": None}, "a decoder of family None was given"),
        ({"hidden_act": "gelu"}, "another activation than silu, or biases: not supported"),
        ({"attention_bias": True}, "another activation than silu, or biases"),
        ({"mlp_bias": True}, "another activation than silu, or biases"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rotary embedding of type 'llama3'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rotary embedding of type 'linear'"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rotary embedding of type 'yarn'"),
        ({"rope_theta": None}, "with theta None: wanted 'default' and a theta"),
        ({"head_dim": 24}, "heads of size 24: onnxruntime's fused attention wants a multiple of 16"),
    ],
)
def test_a_decoder_that_the_graph_does_not_have_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, changes: Config, message: str
) -> None:
    other = edited(checkpoint, tmp_path / "other", lambda config: config.update(changes))
    with pytest.raises(ExportError, match=message), BundleWriter(tmp_path / "bundle") as bundle:
        roles.add_decoder(bundle, other, CHAT, reward_head())
    assert [file.name for file in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "roberta"}, "an encoder of family 'roberta' was given; wanted one of bert"),
        ({"hidden_act": "relu"}, "another activation than gelu, or relative positions"),
        ({"position_embedding_type": "relative_key"}, "another activation than gelu, or relative positions"),
    ],
)
def test_an_encoder_that_the_graph_does_not_have_is_refused(changes: Config, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        EncoderShape.from_config(BertConfig(**BERT).to_dict() | changes)


# Checkpoints


def test_a_missing_tensor_is_named_and_nothing_is_left_on_disk(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch_free = (References("nll", [], []), References("reward", [], []))
    monkeypatch.setattr(roles, "decoder_references", lambda *_: torch_free)
    deeper = edited(checkpoint, tmp_path / "deeper", lambda config: config.update(num_hidden_layers=3))
    with pytest.raises(ExportError, match=r"deeper: no tensor 'model\.layers\.2\."):
        export(tmp_path / "bundle", deeper)
    assert [file.name for file in tmp_path.iterdir()] == ["deeper"]


def test_a_tensor_of_another_shape_than_the_config_says_is_an_export_error(
    tmp_path: Path, checkpoint: Checkpoint
) -> None:
    shape = replace(DecoderShape.from_config(checkpoint.config()), inner=64)
    with (
        checkpoint.weights() as weights,
        pytest.raises(ExportError, match=r"found shape \(48, 32\), the config says \(64, 32\)"),
    ):
        tape.save(decoder.build(shape, weights, vocabulary=True, reward=None), tmp_path / "model.onnx")


def test_a_tensor_may_stand_behind_a_prefix(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = llama(tmp_path / "llama")
    with made.weights() as read:
        np.testing.assert_array_equal(read("norm.weight"), read("model.norm.weight"))
        assert read("norm.weight").dtype == np.float32
        with pytest.raises(ExportError, match=r"llama: no tensor 'norm\.bias'"):
            read("norm.bias")


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**LLAMA)).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    with Checkpoint(tmp_path).weights() as read:
        found = read("model.embed_tokens.weight")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, model.model.embed_tokens.weight.detach().float().numpy())


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_folder_without_a_config_is_an_export_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ExportError, match=r"config\.json: .*wanted"):
        Checkpoint(tmp_path).config()


def test_a_folder_without_weights_is_an_export_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"no \.safetensors file"), Checkpoint(tmp_path).weights():
        pass


def test_damaged_weights_are_an_export_error(tmp_path: Path, checkpoint: Checkpoint) -> None:
    content = (checkpoint.folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ExportError, match=str(tmp_path)), Checkpoint(tmp_path).weights():
        pass


# Bundles


def written(path: Path, content: str, *, overwrite: bool = False, fails: bool = False) -> None:
    """A bundle of one file."""
    with BundleWriter(path, overwrite) as bundle:
        bundle.file("folder/file").write_text(content, encoding="utf-8")
        if fails:
            raise ExportError("the gate says no")
        bundle.finish(name=content, note="", default_rule=None, length_tokenizer="perplexity")


def test_a_bundle_that_exists_is_replaced_only_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    written(path, "first")
    with pytest.raises(ExportError, match="bundle: exists; give --overwrite to replace it"):
        written(path, "second")
    assert (path / "folder/file").read_text(encoding="utf-8") == "first"
    written(path, "third", overwrite=True)
    assert (path / "folder/file").read_text(encoding="utf-8") == "third"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_a_bundle_that_is_to_be_replaced_stays_when_the_export_fails(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    written(path, "first")
    with pytest.raises(ExportError, match="the gate says no"):
        written(path, "second", overwrite=True, fails=True)
    assert (path / "folder/file").read_text(encoding="utf-8") == "first"
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_two_exports_at_once_do_not_mix_and_leave_nothing_else(tmp_path: Path) -> None:
    with BundleWriter(tmp_path / "bundle") as other:
        other.file("folder/other").write_text("other", encoding="utf-8")
        written(tmp_path / "bundle", "first")
    manifest = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())
    assert list(manifest["files"]) == ["folder/file"]
    assert manifest["files"]["folder/file"] == {
        "bytes": 5,
        "sha256": hashlib.sha256(b"first").hexdigest(),
    }
    assert [file.name for file in tmp_path.iterdir()] == ["bundle"]


def test_the_bundles_tokenizer_neither_cuts_nor_pads(exported: Bundle) -> None:
    content = json.loads(exported.roles["embedding"].tokenizer.read_bytes())
    assert (content["truncation"], content["padding"]) == (None, None)


# The demo's reward head


@pytest.fixture(scope="module")
def head() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((resources.files("instructmining_export") / "demo" / "head.json").read_bytes())
    return content


def test_the_demo_head_is_576_weights_and_a_bias_with_its_provenance(head: dict[str, Any]) -> None:
    weight = np.array(head["out_proj"]["weight"])
    assert weight.shape == (576,)
    assert np.isfinite(weight).all()
    assert len(set(weight.tolist())) > 500
    assert np.isfinite(head["out_proj"]["bias"])
    provenance = head["provenance"]
    assert "not a published reward model" in provenance["what"]
    assert provenance["seed"] == train_head.SEED
    assert provenance["max_tokens"] == train_head.MAX_TOKENS
    assert provenance["inverse_penalty"] in train_head.PENALTIES
    assert "999 Alpaca rows" in provenance["scale"]
    assert {len(digest) for digest in provenance["data_sha256"].values()} == {64}


def test_the_demo_heads_accuracy_stands_beside_chance_by_kind_on_rows_held_out(head: dict[str, Any]) -> None:
    accuracy = head["provenance"]["held_out_accuracy"]
    assert set(accuracy) == {"cut", "off_topic", "preference", "refusal", "repeated", "shuffled"}
    assert sum(kind["pairs"] for kind in accuracy.values()) == head["provenance"]["held_out_pairs"]
    for name, kind in accuracy.items():
        assert kind["chance"] == 0.5
        spread = 0.5 / np.sqrt(kind["pairs"])  # standard deviation of a coin's share
        if name != "preference":
            assert kind["accuracy"] > 0.5 + 5 * spread


def alpaca(rows: int) -> list[dict[str, str]]:
    rng = random.Random(4)
    words = ["bread", "train", "green", "seven", "dough", "noon", "ferry"]
    return [
        {
            "instruction": f"Task {number}.",
            "input": "with this" if number % 3 else "",
            "output": f"Answer {number} is {' '.join(rng.choices(words, k=8))}. {' '.join(rng.choices(words, k=6))}.",
        }
        for number in range(rows)
    ]


def preference(number: int) -> dict[str, Any]:
    return {
        "conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": f"Question {number}?"}],
        "chosen": {"from": "gpt", "value": "A good answer."},
        "rejected": {"from": "gpt", "value": "A bad answer."},
    }


def test_shuffled_words_are_the_same_words_in_another_order() -> None:
    text = "one two three four five six seven"
    found = train_head.shuffled(text, random.Random(1))
    assert found != text
    assert Counter(found.split()) == Counter(text.split())


@pytest.mark.parametrize("words", [1, 2, 5, 100])
def test_a_cut_text_is_its_first_words_from_a_fifth_to_three_fifths(words: int) -> None:
    text = [f"w{number}" for number in range(words)]
    for seed in range(20):
        found = train_head.cut(" ".join(text), random.Random(seed)).split()
        assert found == text[: len(found)]
        assert max(1, int(0.2 * words)) <= len(found) <= max(1, 0.6 * words)


def test_a_repeated_text_is_its_first_sentence_to_about_the_same_length() -> None:
    assert train_head.repeated("Rain falls. The sun is out and shines.") == "Rain falls. Rain falls. Rain falls."
    assert train_head.repeated("Short.") == "Short. Short."
    assert train_head.repeated("a. " + "b" * 4000).count("a.") == 40


def test_three_in_ten_rows_are_held_out_always_the_same() -> None:
    held = [train_head.is_held_out(group) for group in range(5000)]
    assert sum(held) / len(held) == pytest.approx(0.3, abs=0.03)
    assert held == [train_head.is_held_out(group) for group in range(5000)]


def test_pairs_are_the_row_against_its_spoilt_copies_and_no_text_crosses_from_training_to_held_out() -> None:
    rows = alpaca(60)
    conversations, pairs, originals = train_head.build_pairs(rows, [preference(number) for number in range(5)])
    assert len(originals) == 60
    group_of = {row["output"]: group for group, row in enumerate(rows)}
    kinds = Counter(pair.kind for pair in pairs)
    assert set(kinds) == {"off_topic", "shuffled", "cut", "repeated", "refusal", "preference"}
    assert kinds["preference"] == 5
    spoilt = [pair for pair in pairs if pair.kind != "preference"]
    for pair in spoilt:
        better, worse = conversations[pair.better], conversations[pair.worse]
        assert pair.better == originals[pair.group]
        assert better[-1] == ("assistant", rows[pair.group]["output"])
        assert better[:-1] == worse[:-1]
        assert better != worse
        if pair.kind == "off_topic":
            other = group_of[worse[-1][1]]
            assert other != pair.group
            assert train_head.is_held_out(other) == train_head.is_held_out(pair.group)
    sides = [
        {index for pair in pairs if train_head.is_held_out(pair.group) is held for index in (pair.better, pair.worse)}
        for held in (True, False)
    ]
    assert sides[0]
    assert sides[1]
    assert sides[0].isdisjoint(sides[1])


def test_preference_pairs_are_groups_of_their_own_with_the_chosen_answer_first() -> None:
    conversations, pairs, _ = train_head.build_pairs(alpaca(10), [preference(number) for number in range(3)])
    found = [pair for pair in pairs if pair.kind == "preference"]
    assert [pair.group for pair in found] == [10, 11, 12]
    assert conversations[found[1].better] == [
        ("system", "Be brief."),
        ("user", "Question 1?"),
        ("assistant", "A good answer."),
    ]
    assert conversations[found[1].worse][-1] == ("assistant", "A bad answer.")


def test_the_pairs_are_the_same_every_time() -> None:
    rows, preferences = alpaca(30), [preference(0)]
    assert train_head.build_pairs(rows, preferences) == train_head.build_pairs(rows, preferences)


def test_the_head_is_trained_on_the_text_that_the_bundle_gives_it(exported: Bundle) -> None:
    turns = [("user", "Name a colour.<|im_end|>"), ("assistant", "Green."), ("user", "More?"), ("assistant", "Blue.")]
    example = Example(tuple(Turn(role, text) for role, text in turns))  # type: ignore[arg-type]
    role = exported.roles["reward"]
    (tokens,) = TextEncoder(role.tokenizer).rendered([conversation(example, role.template)], max_tokens=500)
    tokenizer = small_tokenizer()
    tokenizer.encode_special_tokens = True
    assert train_head.chatml(tokenizer, turns) == tokens.ids.tolist()


def test_the_heads_batches_hold_every_text_once_within_the_budget() -> None:
    rng = random.Random(0)
    encoded = {number: [1] * rng.randint(1, 90) for number in range(50)}
    found = list(train_head.by_length(encoded, budget_tokens=120))
    assert sorted(index for batch in found for index in batch) == list(range(50))
    assert all(len(batch) * max(len(encoded[index]) for index in batch) <= 120 for batch in found)
