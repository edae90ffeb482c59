"""Every family through the whole of export: checkpoint, template, graph, gate, bundle; and what the gate refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import small_models
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer, GPTNeoXModel, LlamaForCausalLM, T5ForConditionalGeneration

from instructmining import Bundle, Example, Rule, Scorer, knn
from instructmining.bundle import PrecisionName, RoleName
from instructmining.errors import ExportError
from instructmining.inference.devices import Device
from instructmining.inference.references import BOUNDS, References
from instructmining.tokenizing.templates import conversation, document, question
from instructmining.tokenizing.tokenizer import TextEncoder
from instructmining_cli.machine.diagnosis import check_bundle
from instructmining_export import neighbours_graph, parity, role_texts, roles
from instructmining_export.bundles import BundleWriter
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.exporting import export_bundle
from instructmining_export.graphs import causal
from instructmining_export.graphs.causal import CausalBackbone, LinearHead
from instructmining_export.graphs.graph_builder import DeviceKind, GraphBuilder, Weights
from instructmining_export.graphs.precision import Precision
from instructmining_export.parity import ParityError, check, parity_examples
from instructmining_export.presets import PRESETS
from instructmining_export.roles import Settings
from instructmining_export.via import exporters

PRECISIONS: list[PrecisionName] = ["fp32", "fp16", "int8"]
EXAMPLE = Example.of("Name a colour.", "Green, as leaves are.")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """These models are so small that waiting for a second thread costs more than it gives; half the rows will do."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "cpu_threads", lambda: 1)
        patch.setattr(role_texts, "parity_examples", lambda: parity_examples()[::2])
        yield
    torch.set_num_threads(before)


def export(path: Path, role: RoleName, model: Path, **settings: object) -> Bundle:
    export_bundle(path, {role: model}, settings=replace(Settings(max_length=256), **settings))
    return Bundle.open(path)


def assert_passes(bundle: Bundle, role: RoleName, precision: str = "fp32") -> None:
    """The figures stand in the manifest, and doctor finds them again on the written files."""
    bundle.verify()
    entry = bundle.roles[role]
    assert entry.precision == precision
    assert int(str(entry.parity["rows"])) >= 100
    (found,) = [found for found in check_bundle(bundle, Device("cpu", threads=1)) if found.role == role]
    assert found.passed, str(found)
    bounds = BOUNDS[precision]
    assert float(str(entry.parity["batch_difference"])) <= bounds.batch_difference
    assert float(str(entry.parity["row_error"])) <= bounds.row_error
    assert float(str(entry.parity.get("shift", 0.0))) <= bounds.shift
    if "shift" not in entry.parity:
        assert float(str(entry.parity["mean_error"])) <= bounds.mean_error


# Every family


@pytest.mark.parametrize("family", small_models.DECODERS)
def test_a_language_model_of_every_family_is_exported(tmp_path: Path, family: str) -> None:
    model = small_models.causal_model(family, tmp_path / "model", chat=family != "gpt2")
    bundle = export(tmp_path / "bundle", "perplexity", model)
    assert_passes(bundle, "perplexity")
    with Scorer.open(bundle, indicators="perplexity,ifd", device="cpu") as scorer:
        (row,) = scorer.score([EXAMPLE])
    assert row.columns["perplexity"] is not None


def test_the_language_model_of_one_that_sees_images_is_exported(tmp_path: Path) -> None:
    bundle = export(tmp_path / "bundle", "perplexity", small_models.image_model(tmp_path / "model"))
    assert_passes(bundle, "perplexity")
    names = ir.load(bundle.roles["perplexity"].graph).graph.initializers
    assert not [name for name in names if "vision" in name]


@pytest.mark.parametrize("family", sorted(small_models.DECODERS.keys() - small_models.WITHOUT_CLASSIFIERS))
def test_a_decoder_as_a_reward_model_is_exported(tmp_path: Path, family: str) -> None:
    model = small_models.decoder_classifier(family, tmp_path / "model")
    assert_passes(export(tmp_path / "bundle", "reward", model), "reward")


@pytest.mark.parametrize("family", small_models.ENCODERS)
def test_an_encoder_as_a_reward_model_is_exported(tmp_path: Path, family: str) -> None:
    model = small_models.encoder_classifier(family, tmp_path / "model")
    assert_passes(export(tmp_path / "bundle", "reward", model), "reward")


@pytest.mark.parametrize("family", small_models.ENCODERS)
def test_a_sentence_encoder_of_every_family_is_exported(tmp_path: Path, family: str) -> None:
    model = small_models.encoder_model(family, tmp_path / "model")
    bundle = export(tmp_path / "bundle", "embedding", model)
    assert_passes(bundle, "embedding")
    assert bundle.roles["embedding"].max_length == 256


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("family", "pooling"), [("qwen3", "last"), ("mistral", "last"), ("gemma3_text", "mean")])
def test_a_decoder_that_gives_sentence_vectors_is_exported(
    tmp_path: Path, family: str, pooling: str, precision: PrecisionName
) -> None:
    dense = [(48, "Identity"), (24, "Identity")] if family == "gemma3_text" else []
    model = small_models.encoder_model(family, tmp_path / "model", pooling=pooling, dense=dense)
    prompts = {"prompts": {"query": "find: ", "document": "text: "}, "default_prompt_name": "document"}
    (model / "config_sentence_transformers.json").write_text(json.dumps(prompts), encoding="utf-8")
    bundle = export(tmp_path / "bundle", "embedding", model, precision=precision)
    assert_passes(bundle, "embedding", precision)
    # The tokenizer's own end token closes every text, also a truncated one: its state may be the vector.
    role, tokenizer = bundle.roles["embedding"], AutoTokenizer.from_pretrained(model)
    examples = (EXAMPLE, Example.of("Count.", "one two three " * 200))
    parts = [document(example, role.template) for example in examples]
    short, long = TextEncoder(role.tokenizer).rendered(parts, max_length=role.max_length)
    assert short.ids.tolist() == tokenizer("text: Name a colour.\nGreen, as leaves are.").input_ids
    assert long.truncated
    assert long.ids[-1] == short.ids[-1] == tokenizer.convert_tokens_to_ids("</s>")


def vector(
    folder: Path, ids: NDArray[np.int64], dense: Iterable[tuple[str, Callable[[torch.Tensor], torch.Tensor]]]
) -> torch.Tensor:
    """The mean of a model's last states, through layers, as transformers and PyTorch compute it."""
    with torch.inference_mode():
        model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        states = model(torch.from_numpy(ids)[None]).last_hidden_state[0]
        value = states.mean(dim=0)
        for path, activation in dense:
            layer = load_file(folder / path / "model.safetensors")
            value = activation(torch.nn.functional.linear(value, layer["linear.weight"], layer.get("linear.bias")))
    return torch.nn.functional.normalize(value, dim=0)


@pytest.mark.parametrize(("family", "activation"), [("gemma3_text", "Identity"), ("bert", "Tanh")])
def test_layers_after_the_pooling_are_part_of_the_vector(tmp_path: Path, family: str, activation: str) -> None:
    folder = small_models.encoder_model(family, tmp_path / "model", dense=[(48, activation), (24, activation)])
    bundle = export(tmp_path / "bundle", "embedding", folder)
    assert_passes(bundle, "embedding")
    function: Callable[[torch.Tensor], torch.Tensor] = torch.tanh if activation == "Tanh" else torch.nn.Identity()
    references = References.load(bundle.roles["embedding"].references)  # type: ignore[arg-type]
    assert references.values[0].shape == (24,)
    wanted = vector(folder, references.texts[0].ids, [("2_Dense", function), ("3_Dense", function)])
    assert float(references.values[0] @ wanted.numpy()) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_the_pooling_is_read_from_the_models_files(tmp_path: Path, pooling: str) -> None:
    model = small_models.encoder_model("bert", tmp_path / "model", pooling=pooling, normalize=pooling == "cls")
    export_bundle(tmp_path / "bundle", {"embedding": model})
    entry = json.loads((tmp_path / "bundle" / "manifest.json").read_bytes())["roles"]["embedding"]
    assert entry["details"]["pooling"] == pooling
    assert ("added" in entry["details"]["unit_length_from"]) is (pooling != "cls")
    assert entry["max_length"] == 128


def test_the_oasst_reward_model_gives_its_heads_value_at_the_last_token(tmp_path: Path) -> None:
    folder = small_models.oasst_reward_model(tmp_path / "model")
    bundle = export(tmp_path / "bundle", "reward", folder)
    assert_passes(bundle, "reward")
    with Scorer.open(bundle, indicators="reward", device="cpu") as scorer:
        (row,) = scorer.score([EXAMPLE])
    text = "<|prompter|>Name a colour.<|endoftext|><|assistant|>Green, as leaves are.<|endoftext|>"
    ids = torch.tensor([AutoTokenizer.from_pretrained(folder)(text, add_special_tokens=False).input_ids])
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    config = GPTNeoXModel.config_class.from_dict(json.loads((folder / "config.json").read_bytes()))
    model = GPTNeoXModel(config).eval()
    model.load_state_dict({n.removeprefix("gpt_neox."): t for n, t in state.items() if n.startswith("gpt_neox.")})
    with torch.inference_mode():
        last = model(ids).last_hidden_state[0, -1]
        wanted = float(last @ state["out_proj.weight"][0] + state["out_proj.bias"][0])
    assert row.columns["reward"] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_unieval_is_exported_and_answers_as_the_original_does(tmp_path: Path, precision: PrecisionName) -> None:
    folder = small_models.unieval_model(tmp_path / "model")
    bundle = export(tmp_path / "bundle", "unieval", folder, precision=precision)
    assert_passes(bundle, "unieval", precision)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    role = bundle.roles["unieval"]
    references = References.load(role.references)  # type: ignore[arg-type]
    wanted = (
        "question: Is this a coherent response given the dialogue history? </s> response: Green, as leaves are. "
        "</s> dialogue history: Name a colour.\n\n"
    )
    parts = question(EXAMPLE, role.template, "coherence")
    (text,) = TextEncoder(role.tokenizer).rendered([parts], max_length=role.max_length)
    ids = tokenizer(wanted).input_ids
    assert text.ids.tolist() == ids
    number = next(n for n, example in enumerate(parity_examples()[::2]) if n % 3 == 1 and len(example.turns) == 2)
    ids = references.texts[number].ids
    with torch.inference_mode():
        logits = model(torch.from_numpy(ids)[None], decoder_input_ids=torch.tensor([[0]])).logits[0, 0]
    yes, no = (tokenizer(answer).input_ids[0] for answer in ("Yes", "No"))
    probability = torch.softmax(logits[[yes, no]], dim=0)[0]
    assert float(references.values[number][0]) == pytest.approx(float(probability), abs=1e-5)


# Precision


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", small_models.DECODERS)
def test_a_language_model_in_lower_precision_passes_its_gate(
    tmp_path: Path, family: str, precision: PrecisionName
) -> None:
    model = small_models.causal_model(family, tmp_path / "model", chat=family != "gpt2")
    assert_passes(export(tmp_path / "bundle", "perplexity", model, precision=precision), "perplexity", precision)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
@pytest.mark.parametrize("family", small_models.ENCODERS)
def test_an_encoder_in_lower_precision_passes_its_gate(tmp_path: Path, family: str, precision: PrecisionName) -> None:
    model = small_models.encoder_classifier(family, tmp_path / "model")
    assert_passes(export(tmp_path / "bundle", "reward", model, precision=precision), "reward", precision)


def test_lower_precision_makes_smaller_files(tmp_path: Path) -> None:
    model = small_models.causal_model("llama", tmp_path / "model", hidden_size=128, intermediate_size=256)
    sizes = {}
    for precision in PRECISIONS:
        bundle = export(tmp_path / precision, "perplexity", model, precision=precision)
        sizes[precision] = bundle.roles["perplexity"].graph.with_name("model.onnx.data").stat().st_size
    assert sizes["fp16"] < 0.55 * sizes["fp32"]
    assert sizes["int8"] < 0.45 * sizes["fp32"]


def test_what_breaks_the_int8_gate_stays_in_fp32_tables_first_and_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_models.causal_model("llama", tmp_path / "model")
    whole = export(tmp_path / "whole", "perplexity", model, precision="int8").roles["perplexity"]
    assert "kept_fp32" not in details(tmp_path / "whole", "perplexity")
    bound = 0.9 * float(str(whole.parity["row_error"]))
    monkeypatch.setitem(BOUNDS, "int8", replace(BOUNDS["int8"], row_error=bound))  # type: ignore[arg-type]
    said: list[str] = []
    bundle = export(tmp_path / "bundle", "perplexity", model, precision="int8", report=said.append)
    assert float(str(bundle.roles["perplexity"].parity["row_error"])) <= bound
    assert_passes(bundle, "perplexity", "int8")
    kept = details(tmp_path / "bundle", "perplexity")["kept_fp32"]
    assert "embed_tokens.weight.rows" in kept
    assert any("; retrying with the most affected weights in fp32" in text for text in said)
    assert len(kept) < 12


def test_an_int8_gate_that_nothing_passes_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = small_models.causal_model("llama", tmp_path / "model")
    monkeypatch.setitem(BOUNDS, "int8", replace(BOUNDS["int8"], row_error=0.0))  # type: ignore[arg-type]
    with pytest.raises(ParityError, match=r"role 'perplexity' in int8: .* row_error"):
        export(tmp_path / "bundle", "perplexity", model, precision="int8")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def details(bundle: Path, role: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = json.loads((bundle / "manifest.json").read_bytes())["roles"][role]["details"]
    return found


# The gate


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_models.causal_model("llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory, llama: Path) -> Bundle:
    return export(tmp_path_factory.mktemp("exported") / "bundle", "perplexity", llama)


def test_an_exported_bundle_scores_rows_as_transformers_does(exported: Bundle, llama: Path) -> None:
    with Scorer.open(exported, indicators=["perplexity"], device="cpu") as scorer:
        (row,) = scorer.score([EXAMPLE])
    before = "<|im_start|>user\nName a colour.<|im_end|>\n<|im_start|>assistant\n"
    text = f"{before}Green, as leaves are.<|im_end|>\n"
    encoding = AutoTokenizer.from_pretrained(llama)(text, add_special_tokens=False, return_offsets_mapping=True)
    begin, end = len(before), len(text) - len("<|im_end|>\n")
    scored = [n for n, (first, last) in enumerate(encoding["offset_mapping"]) if last > begin and first < end]
    ids = torch.tensor([encoding["input_ids"]])
    model = LlamaForCausalLM.from_pretrained(llama, dtype=torch.float32).eval()
    with torch.inference_mode():
        losses = torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none")
    wanted = float(torch.exp(losses[[n - 1 for n in scored]].mean()))
    assert row.columns["perplexity"] == pytest.approx(wanted, rel=1e-4)


def alter(monkeypatch: pytest.MonkeyPatch, change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]]) -> None:
    """Give every causal graph other weights than the checkpoint's."""
    original = causal.build

    def build(
        backbone: CausalBackbone,
        weights: Weights,
        *,
        vocabulary: bool,
        reward: LinearHead | None,
        precision: Precision,
        device: DeviceKind,
    ) -> GraphBuilder:
        def altered(name: str) -> NDArray[np.float32]:
            return change(name, weights(name))

        return original(backbone, altered, vocabulary=vocabulary, reward=reward, precision=precision, device=device)

    monkeypatch.setattr(causal, "build", build)


WEIGHTS = ["embed_tokens.weight", "layers.1.mlp.up_proj.weight", "layers.0.input_layernorm.weight"]


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_graph_with_an_altered_weight_is_refused_and_nothing_is_left_on_disk(
    tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    alter(monkeypatch, lambda wanted, tensor: tensor * np.float32(1.01) if wanted == name else tensor)
    message = (
        r"role 'perplexity' in fp32: the graph is not equal to its checkpoint: row_error \d\.\d\de-\d\d \(at most 1e-04"
    )
    with pytest.raises(ParityError, match=message):
        export(tmp_path / "bundle", "perplexity", llama)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_export_leaves_the_bundle_that_was_there(tmp_path: Path, llama: Path) -> None:
    bundle = export(tmp_path / "bundle", "perplexity", llama)
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ExportError):
        export(tmp_path / "bundle", "embedding", broken)
    again = Bundle.open(tmp_path / "bundle")
    assert again.digest == bundle.digest
    again.verify()


@pytest.mark.parametrize("figure", ["row_error", "token_error", "batch_difference", "mean_error"])
def test_each_figure_beyond_its_bound_is_named(exported: Bundle, monkeypatch: pytest.MonkeyPatch, figure: str) -> None:
    role = exported.roles["perplexity"]
    assert role.references is not None
    monkeypatch.setitem(BOUNDS, "fp32", replace(BOUNDS["fp32"], **{figure: -1.0}))  # type: ignore[arg-type]
    with pytest.raises(ParityError, match=rf": {figure} \d\.\d\de[-+]\d\d \(at most -1e\+00\)$"):
        check({"perplexity": References.load(role.references)}, role.graph)


def test_another_order_of_the_rows_is_named(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    role = exported.roles["perplexity"]
    assert role.references is not None
    references = References.load(role.references)
    for values in references.values[::2]:
        values[:] = values.mean() + 50.0
    bounds = replace(BOUNDS["int8"], mean_error=1e9)
    monkeypatch.setitem(BOUNDS, "int8", bounds)  # type: ignore[arg-type]
    with pytest.raises(ParityError, match=r": rank_correlation 0\.\d{6} \(at least 0\.995\)$"):
        check({"perplexity": references}, role.graph, precision="int8")


@pytest.mark.parametrize("row", [0, 7, 99])
def test_a_value_that_is_no_number_is_refused(exported: Bundle, row: int) -> None:
    role = exported.roles["perplexity"]
    assert role.references is not None
    references = References.load(role.references)
    references.values[row][:] = np.nan
    for precision in PRECISIONS:
        with pytest.raises(ParityError, match="the graph is not equal to its checkpoint"):
            check({"perplexity": references}, role.graph, precision=precision)


def test_the_bounds_are_those_of_the_design() -> None:
    fp32, fp16, int8 = (BOUNDS[precision] for precision in PRECISIONS)
    assert (fp32.row_error, fp32.token_error, fp32.batch_difference) == (1e-4, 1e-3, 1e-5)
    assert (fp16.rank_correlation, fp16.mean_error, fp16.batch_difference) == (0.9999, 1e-3, 1e-3)
    assert (int8.rank_correlation, int8.mean_error, int8.batch_difference) == (0.995, 0.02, 1e-3)


def test_the_parity_rows_are_of_mixed_length_and_several_turns() -> None:
    examples = parity_examples()
    sizes = sorted(sum(len(turn.text) for turn in example.turns) for example in examples)
    assert len(examples) == 200
    assert sizes[-1] > 10 * sizes[0]
    assert max(len(example.turns) for example in examples) > 2
    assert all(example.response_texts for example in examples)


# What cannot be exported


def edit(folder: Path, file: str, **changes: object) -> None:
    content = json.loads((folder / file).read_bytes())
    (folder / file).write_text(json.dumps(content | changes), encoding="utf-8")


@pytest.mark.parametrize(
    ("role", "make", "message"),
    [
        ("perplexity", small_models.unieval_model, "family 't5' was given for the role perplex"),
        ("embedding", lambda folder: small_models.causal_model("gpt2", folder), "family 'gpt2' .* role embedding"),
        ("embedding", lambda folder: small_models.causal_model("qwen3", folder), "no sentence-transformers files"),
        (
            "unieval",
            lambda folder: small_models.encoder_model("bert", folder),
            "family 'bert' .* unieval; wanted .* t5",
        ),
        (
            "reward",
            lambda folder: small_models.encoder_classifier("bert", folder, num_labels=3),
            "a classifier of 3 labels; a reward model has one",
        ),
        ("reward", small_models.unieval_model, "a model T5ForConditionalGeneration; the role reward wants"),
        ("reward", lambda folder: small_models.causal_model("qwen2", folder), "a model Qwen2ForCausalLM; the role rew"),
    ],
)
def test_a_model_that_the_role_does_not_take_is_refused(
    tmp_path: Path, role: RoleName, make: Callable[[Path], Path], message: str
) -> None:
    with pytest.raises(ExportError, match=message):
        export(tmp_path / "bundle", role, make(tmp_path / "model"), via="own")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_another_way_is_refused_for_a_role_or_model_that_it_does_not_make(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporters, "version", lambda _: "1.0")
    for role, model in (
        ("unieval", small_models.unieval_model(tmp_path / "t5")),
        ("reward", small_models.oasst_reward_model(tmp_path / "oasst")),
    ):
        with pytest.raises(ExportError, match=r"--via optimum: .*; use --via own"):
            export(tmp_path / "bundle", role, model, via="optimum")  # type: ignore[arg-type]


@pytest.mark.parametrize("via", ["auto", "own"])
def test_a_family_without_a_builder_is_refused_where_no_other_exporter_may_make_its_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, via: str
) -> None:
    def not_installed(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(exporters, "version", not_installed)
    model = small_models.causal_model("opt", tmp_path / "model")
    with pytest.raises(ExportError, match="family 'opt' was given for the role perplexity; wanted one of") as found:
        export(tmp_path / "bundle", "perplexity", model, via=via)
    assert ("pip install 'instructmining[optimum]'" in str(found.value)) is (via == "auto")
    with pytest.raises(ExportError, match="--via optimum: it is not installed: pip install 'instructmining"):
        export(tmp_path / "bundle", "perplexity", model, via="optimum")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_classifier_without_its_head_is_refused_and_not_filled_with_random_numbers(tmp_path: Path) -> None:
    small_models.encoder_model("bert", tmp_path / "model")
    edit(tmp_path / "model", "config.json", id2label={"0": "LABEL_0"}, architectures=["BertForSequenceClassification"])
    with pytest.raises(ExportError, match=r"its weights lack classifier\.bias, classifier\.weight"):
        export(tmp_path / "bundle", "reward", tmp_path / "model")


def test_a_sentence_encoder_with_a_module_that_the_graph_lacks_is_refused(tmp_path: Path) -> None:
    folder = small_models.encoder_model("bert", tmp_path / "model")
    modules = json.loads((folder / "modules.json").read_bytes())
    for kind, message in {
        "CNN": "a module of type CNN; wanted Transformer, Pooling, Dense, Normalize only",
        "Dense": "the modules Transformer, Pooling, Normalize, Dense; wanted Transformer, .* in this order",
    }.items():
        added = {"idx": 3, "name": "3", "path": "3_More", "type": f"sentence_transformers.models.{kind}"}
        (folder / "modules.json").write_text(json.dumps([*modules, added]), encoding="utf-8")
        with pytest.raises(ExportError, match=message):
            export(tmp_path / "bundle", "embedding", folder)


def test_a_layer_after_the_pooling_by_another_activation_is_refused(tmp_path: Path) -> None:
    folder = small_models.encoder_model("bert", tmp_path / "model", dense=[(24, "ReLU")])
    with pytest.raises(ExportError, match=r"2_Dense: activation ReLU; wanted one of Identity, Tanh"):
        export(tmp_path / "bundle", "embedding", folder)


def test_a_decoder_that_sees_both_ways_is_no_language_model(tmp_path: Path) -> None:
    model = small_models.causal_model("gemma3_text", tmp_path / "model", use_bidirectional_attention=True)
    with pytest.raises(ExportError, match="use_bidirectional_attention: it is one for the role embedding only"):
        export(tmp_path / "bundle", "perplexity", model)


def test_a_decoder_reward_model_without_a_chat_template_is_refused(tmp_path: Path) -> None:
    folder = small_models.decoder_classifier("llama", tmp_path / "model")
    for file in folder.glob("chat_template*"):
        file.unlink()
    with pytest.raises(ExportError, match="needs a chat template, its tokenizer has none"):
        export(tmp_path / "bundle", "reward", folder)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    folder = small_models.causal_model("llama", tmp_path / "model", vocab_size=300)
    with pytest.raises(ExportError, match=r"a token of id \d+, its model only 300 embeddings"):
        export(tmp_path / "bundle", "perplexity", folder)


def test_more_tokens_than_the_model_has_positions_for_are_refused(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(ExportError, match="--max-length 513: the model has 512 positions; give 512 or less"):
        export(tmp_path / "bundle", "perplexity", llama, max_length=513)


def test_no_model_and_an_unknown_role_are_refused(tmp_path: Path, llama: Path) -> None:
    with pytest.raises(ExportError, match="no model was named"):
        export_bundle(tmp_path / "bundle", {})
    with pytest.raises(ExportError, match="unknown role 'judge'"):
        export_bundle(tmp_path / "bundle", {"judge": llama})  # type: ignore[dict-item]


# Graphs and the bundle


def test_the_graphs_have_the_inputs_and_outputs_of_the_contract(exported: Bundle, tmp_path: Path) -> None:
    def names(values: Iterable[ir.Value]) -> list[str | None]:
        return [value.name for value in values]

    role = exported.roles["perplexity"]
    assert role.cuda_graph is not None
    for path in (role.graph, role.cuda_graph):
        graph = ir.load(path).graph
        assert names(graph.inputs) == ["input_ids", "scored", "best_of"]
        assert names(graph.outputs) == ["nll", "best_token", "best_log_probability"]
    assert role.cuda_graph.stat().st_size < role.graph.stat().st_size + 2**16  # the weights are shared
    model = small_models.encoder_classifier("deberta-v2", tmp_path / "model")
    graph = ir.load(export(tmp_path / "bundle", "reward", model).roles["reward"].graph).graph
    assert names(graph.inputs) == ["input_ids", "attention_mask"]
    assert names(graph.outputs) == ["reward"]


def test_the_begin_of_text_that_the_tokenizer_adds_is_recorded(tmp_path: Path) -> None:
    folder = small_models.causal_model("llama", tmp_path / "model", chat=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = tokenizer.backend_tokenizer
    backend.post_processor = small_models.processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    tokenizer.save_pretrained(folder)
    bundle = export(tmp_path / "bundle", "perplexity", folder)
    role = bundle.roles["perplexity"]
    assert role.bos == "<s>"
    (text,) = TextEncoder(role.tokenizer).rendered([conversation(EXAMPLE, role.template)], max_length=256)
    assert text.ids[0] == backend.token_to_id("<s>")
    assert text.ids.tolist() == tokenizer("Name a colour.\nGreen, as leaves are.").input_ids


def test_the_bundles_tokenizer_neither_cuts_nor_pads(tmp_path: Path) -> None:
    folder = small_models.encoder_model("bert", tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    tokenizer.save_pretrained(folder)
    bundle = export(tmp_path / "bundle", "embedding", folder)
    content = json.loads(bundle.roles["embedding"].tokenizer.read_bytes())
    assert (content["truncation"], content["padding"]) == (None, None)


def test_each_step_is_said(tmp_path: Path, llama: Path) -> None:
    said: list[str] = []
    export(tmp_path / "bundle", "perplexity", llama, report=said.append)
    assert [text.split(":")[0] for text in said[-4:]] == ["perplexity"] * 4
    assert "transformers on 100 texts" in said[-4]
    assert "writing the graph in fp32" in said[-3]
    assert "the gate" in said[-2]
    assert "the graph for CUDA" in said[-1]


def test_the_presets_name_models_of_the_rules() -> None:
    for name, preset in PRESETS.items():
        rule = Rule.load(name)
        assert preset.rule == name
        assert preset.models["reward"] == rule.reward_model


def test_the_shipped_neighbours_graph_is_what_the_script_writes(tmp_path: Path) -> None:
    ir.save(neighbours_graph.build(), tmp_path / "neighbours.onnx")
    shipped = Path(knn.__path__[0]) / "neighbours.onnx"
    assert (tmp_path / "neighbours.onnx").read_bytes() == shipped.read_bytes()


def test_the_demos_head_shares_the_language_models_graph(tmp_path: Path, llama: Path) -> None:
    rng = np.random.default_rng(8)
    head = LinearHead(rng.normal(size=(1, 32)).astype(np.float32), np.array([0.5], dtype=np.float32))
    with BundleWriter(tmp_path / "bundle", frozenset({"perplexity", "reward"})) as bundle:
        reward = roles.RewardHead(head, {"id": "tests/head"})
        checkpoint = Checkpoint(llama, {"id": "tests/llama"})
        roles.add_perplexity(bundle, checkpoint, Settings(max_length=256), reward=reward)
        bundle.finish()
    opened = Bundle.open(tmp_path / "bundle")
    assert opened.roles["reward"].shares == opened.roles["perplexity"].shares
    assert opened.roles["reward"].source["id"] == "tests/head"
    assert_passes(opened, "reward")
    assert_passes(opened, "perplexity")
