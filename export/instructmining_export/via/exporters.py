"""Other exporters: which are installed, and the graph that each makes of a checkpoint."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, TypeAlias

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel
from transformers.models.auto.auto_factory import _BaseAutoModelClass

from instructmining.errors import ExportError
from instructmining_export.checkpoints import Checkpoint
from instructmining_export.originals import original_model
from instructmining_export.via.choices import Via

OPSET = 18  # that both exporters write; our outputs use no operator whose form changed between it and ours
Task: TypeAlias = Literal["text-generation", "feature-extraction", "text-classification"]  # Optimum's names
# The model that a task exports, and the output of its graph that we read.
MODELS: dict[Task, type[_BaseAutoModelClass]] = {
    "text-generation": AutoModelForCausalLM,
    "feature-extraction": AutoModel,
    "text-classification": AutoModelForSequenceClassification,
}
OUTPUTS: dict[Task, str] = {
    "text-generation": "logits",
    "feature-extraction": "last_hidden_state",
    "text-classification": "logits",
}
_FILE = "model.onnx"
_SAMPLE = (2, 7)  # rows and width; a dimension of 1 would be taken for a constant
_INSTALL = (
    "pip install 'instructmining[optimum]' (with transformers before 4.58), "
    "or 'instructmining[transformers-exporter]' (with transformers 5.13 or later)"
)


@dataclass(frozen=True, slots=True)
class Exporter:
    """Another exporter, as it is installed."""

    label: str  # its name and version, for messages and the manifest
    write: Callable[[PreTrainedModel, Path, Task, bool], None]  # the last: whether texts are pairs with segments


def find(via: Via) -> Exporter:
    """Return the exporter asked for; for "auto" the one that is installed.

    Raises:
        ExportError: it is not installed.
    """
    found = {name: label for name, label in (("optimum", _optimum()), ("transformers", _transformers())) if label}
    name = next(iter(found), None) if via == "auto" else via
    if name not in found:
        what = "neither Optimum nor transformers' exporter is" if via == "auto" else f"--via {via}: it is not"
        raise ExportError(f"{what} installed: {_INSTALL}")
    return Exporter(found[name], _write_with_optimum if name == "optimum" else _write_with_transformers)


def _optimum() -> str | None:
    try:
        return f"optimum {version('optimum')} (optimum-onnx {version('optimum-onnx')})"
    except PackageNotFoundError:
        return None


def _transformers() -> str | None:
    try:
        found = f"transformers {version('transformers')} (onnxscript {version('onnxscript')})"
    except PackageNotFoundError:
        return None
    return found if find_spec("transformers.exporters") is not None else None


@contextmanager
def exported(exporter: Exporter, checkpoint: Checkpoint, task: Task, folder: Path, *, segments: bool) -> Iterator[Path]:
    """Export a checkpoint in float32; removes the graph and its weights at the end.

    Args:
        exporter: makes the graph.
        checkpoint: a model that transformers loads for the task, without code of its own.
        task: what the graph gives.
        folder: where the files are kept meanwhile, in a folder of their own.
        segments: whether texts are pairs whose second text is marked.

    Raises:
        ExportError: the model cannot be loaded, or the exporter fails on it.
    """
    with TemporaryDirectory(dir=folder, prefix="exported-") as inner:
        with (
            _quiet(),
            original_model(MODELS[task], checkpoint) as model,
            torch.inference_mode(False),
            torch.no_grad(),
        ):
            model.config.use_cache = False
            try:
                exporter.write(model, Path(inner), task, segments)
            except Exception as error:  # exporters raise what the model's code raises, with no common root
                first = (str(error).strip() or type(error).__name__).splitlines()[0]
                raise ExportError(f"{checkpoint.folder}: {exporter.label} cannot export it: {first}") from error
        yield Path(inner) / _FILE


def _write_with_optimum(model: PreTrainedModel, folder: Path, task: Task, _segments: bool) -> None:
    from optimum.exporters.onnx import onnx_export_from_model  # noqa: PLC0415 - an extra

    onnx_export_from_model(model, folder, task=task, opset=OPSET, monolith=True, do_validation=False, device="cpu")


def _write_with_transformers(model: PreTrainedModel, folder: Path, task: Task, segments: bool) -> None:
    import onnx_ir as ir  # noqa: PLC0415
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter  # noqa: PLC0415 - of transformers 5

    ids = torch.randint(model.config.vocab_size, _SAMPLE, generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, -2:] = 0
    inputs: dict[str, object] = {"input_ids": ids, "attention_mask": mask}
    if segments:
        inputs["token_type_ids"] = torch.zeros_like(ids)
    if task == "text-generation":
        inputs["use_cache"] = False
    made = OnnxExporter().export(model, inputs, config=OnnxConfig(dynamic=True, opset_version=OPSET))
    program = made.model if isinstance(made, torch.onnx.ONNXProgram) else made.program  # of 5.13, and since
    ir.save(program, folder / _FILE, external_data=f"{_FILE}.data")


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what exporters print and warn of: all of it is about code that is not the user's."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
