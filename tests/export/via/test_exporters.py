"""Families that no builder of ours knows, through the exporters that are installed: ``make test-via``.

Optimum wants an earlier transformers than transformers' own exporter, so each is tested in an environment of its own.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import small_models
import torch

from instructmining import Bundle, Example, Scorer
from instructmining.bundle import RoleName
from instructmining.errors import ExportError
from instructmining.inference.devices import Device
from instructmining_cli.machine.diagnosis import check_bundle
from instructmining_export import parity, role_texts
from instructmining_export.exporting import export_bundle
from instructmining_export.parity import parity_examples
from instructmining_export.roles import Settings
from instructmining_export.via import exporters
from instructmining_export.via.choices import Via

EXAMPLE = Example.of("Name a colour.", "Green, as leaves are.")
WAYS: tuple[Via, ...] = ("optimum", "transformers")


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parity, "cpu_threads", lambda: 1)
        patch.setattr(role_texts, "parity_examples", lambda: parity_examples()[::2])
        yield
    torch.set_num_threads(before)


@pytest.fixture(params=[pytest.param(way, marks=pytest.mark.via) for way in WAYS])
def via(request: pytest.FixtureRequest) -> Via:
    """The exporters, of which the environment has one."""
    way: Via = request.param
    try:
        exporters.find(way)
    except ExportError:
        pytest.skip(f"{way} is not installed")
    return way


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Pretends that these packages are installed, at these versions, and no others."""

    def pretend(*, exporter_of_transformers: bool = True, **versions: str) -> None:
        def version(name: str) -> str:
            if name not in versions:
                raise PackageNotFoundError(name)
            return versions[name]

        monkeypatch.setattr(exporters, "version", version)
        monkeypatch.setattr(exporters, "find_spec", lambda _: object() if exporter_of_transformers else None)

    return pretend


OPTIMUM = {"optimum": "2.1.0", "optimum-onnx": "0.1.0"}
TRANSFORMERS = {"transformers": "5.24.0", "onnxscript": "0.7.2"}


def test_auto_takes_optimum_before_the_exporter_of_transformers(installed: Callable[..., None]) -> None:
    installed(**OPTIMUM, **TRANSFORMERS)
    assert exporters.find("auto").label == "optimum 2.1.0 (optimum-onnx 0.1.0)"
    assert exporters.find("transformers").label == "transformers 5.24.0 (onnxscript 0.7.2)"
    installed(**TRANSFORMERS)
    assert exporters.find("auto").label == "transformers 5.24.0 (onnxscript 0.7.2)"


@pytest.mark.parametrize(
    ("via", "versions"),
    [
        ("auto", {}),
        ("optimum", {"optimum": "2.1.0"} | TRANSFORMERS),
        ("transformers", {"transformers": "5.24.0"} | OPTIMUM),
    ],
)
def test_the_extras_are_named_where_an_exporter_is_not_installed(
    installed: Callable[..., None], via: Via, versions: dict[str, str]
) -> None:
    installed(**versions)
    with pytest.raises(ExportError, match=r"installed: pip install 'instructmining\[optimum\]' .* or 'instruct"):
        exporters.find(via)


def test_a_transformers_without_an_exporter_is_none(installed: Callable[..., None]) -> None:
    installed(exporter_of_transformers=False, transformers="4.57.6", onnxscript="0.7.2")
    with pytest.raises(ExportError, match="--via transformers: it is not installed"):
        exporters.find("transformers")


def export(folder: Path, role: RoleName, model: Path, via: Via) -> dict[str, Any]:
    """Export, prove the files once more as doctor does, and return the role's entry in the manifest."""
    export_bundle(folder, {role: model}, settings=Settings(max_length=200, via=via))
    (found,) = check_bundle(Bundle.open(folder), Device("cpu", threads=1))
    assert found.passed, str(found)
    entry: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())["roles"][role]
    assert entry["parity"]["row_error"] < 1e-5
    assert entry["cuda_graph"] is None
    return entry


@pytest.mark.parametrize("family", [*small_models.OTHER_DECODERS, "llama"])
def test_a_language_model_of_another_family_is_exported_and_scores(tmp_path: Path, via: Via, family: str) -> None:
    model = small_models.causal_model(family, tmp_path / "model", chat=False)
    entry = export(tmp_path / "bundle", "perplexity", model, via)
    assert entry["details"]["via"].startswith(f"{via} ")
    assert entry["multiply_adds"]["scored"] == 400 * 32
    assert sorted(file.name for file in (tmp_path / "bundle" / "perplexity").iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "references.json",
        "tokenizer.json",
    ]
    with Scorer.open(Bundle.open(tmp_path / "bundle"), indicators="perplexity,ifd", device="cpu") as scorer:
        (row,) = scorer.score([EXAMPLE])
    assert row.columns["perplexity"] is not None
    assert row.columns["ifd"] is not None


@pytest.mark.parametrize("family", small_models.OTHER_DECODERS)
def test_a_decoder_of_another_family_is_exported_as_a_reward_model(tmp_path: Path, via: Via, family: str) -> None:
    model = small_models.decoder_classifier(family, tmp_path / "model")
    export(tmp_path / "bundle", "reward", model, via)


@pytest.mark.parametrize(
    ("role", "make"),
    [("embedding", small_models.encoder_model), ("reward", small_models.encoder_classifier)],
)
@pytest.mark.parametrize("family", [*small_models.OTHER_ENCODERS, "bert"])
def test_an_encoder_of_another_family_is_exported(
    tmp_path: Path, via: Via, family: str, role: RoleName, make: Callable[[str, Path], Path]
) -> None:
    export(tmp_path / "bundle", role, make(family, tmp_path / "model"), via)


@pytest.mark.parametrize("family", ["phi", "gemma2", "cohere"])
def test_a_bias_a_soft_cap_and_a_scale_of_the_logits_stay(tmp_path: Path, via: Via, family: str) -> None:
    model = small_models.causal_model(family, tmp_path / "model", chat=False)
    export(tmp_path / "bundle", "perplexity", model, via)
    outputs = {value.name for value in ir.load(tmp_path / "bundle" / "perplexity" / "model.onnx").graph.outputs}
    assert outputs == {"nll", "best_token", "best_log_probability"}


def test_a_decoder_is_exported_as_a_sentence_encoder(tmp_path: Path, via: Via) -> None:
    model = small_models.encoder_model("mistral", tmp_path / "model", pooling="last")
    export(tmp_path / "bundle", "embedding", model, via)


def test_auto_takes_our_builder_and_where_there_is_none_the_exporter(tmp_path: Path, via: Via) -> None:
    for family, label in (("gpt2", None), ("opt", f"{via} ")):
        model = small_models.causal_model(family, tmp_path / family, chat=False)
        export_bundle(tmp_path / f"{family}-bundle", {"perplexity": model}, settings=Settings(max_length=200))
        manifest = json.loads((tmp_path / f"{family}-bundle" / "manifest.json").read_bytes())
        found = manifest["roles"]["perplexity"]["details"].get("via")
        assert found is label or found.startswith(label)


def test_a_masked_language_model_is_refused_for_perplexity(tmp_path: Path, via: Via) -> None:
    model = small_models.encoder_model("electra", tmp_path / "model")
    with pytest.raises(ExportError, match="a model ElectraModel; the role perplexity wants one …ForCausalLM"):
        export_bundle(tmp_path / "bundle", {"perplexity": model}, settings=Settings(via=via))


def test_a_precision_that_the_exporter_does_not_give_is_refused_before_the_model_is_run(
    tmp_path: Path, via: Via
) -> None:
    model = small_models.causal_model("opt", tmp_path / "model", chat=False)
    said: list[str] = []
    settings = Settings(precision="int8", report=said.append)
    with pytest.raises(ExportError, match=rf"--precision int8: a graph made with {via} .* use --precision fp32"):
        export_bundle(tmp_path / "bundle", {"perplexity": model}, settings=settings)
    assert not any("reference values" in text for text in said)


def test_what_the_exporter_says_of_a_model_that_it_cannot_export_is_one_line(
    tmp_path: Path, via: Via, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = exporters.find(via)

    def fails(*_: object) -> None:
        raise NotImplementedError("no such operator\nand much more")

    monkeypatch.setattr(exporters, f"_write_with_{via}", fails)
    model = small_models.causal_model("opt", tmp_path / "model", chat=False)
    with pytest.raises(ExportError) as error:
        export_bundle(tmp_path / "bundle", {"perplexity": model}, settings=Settings(max_length=200, via=via))
    assert str(error.value) == f"{tmp_path / 'model'}: {found.label} cannot export it: no such operator"
    assert not (tmp_path / "bundle").exists()
