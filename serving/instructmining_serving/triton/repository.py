"""Writes a bundle as a model repository of Triton: the front, and a model for each graph."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from instructmining.bundle import MANIFEST, Bundle, Role
from instructmining.errors import BundleError, ExportError, OutputError, RuleError
from instructmining.indicators import CorpusIndicator
from instructmining.indicators.plan import Plan, indicator_names, plan
from instructmining.rules import Rule
from instructmining.types import PREDICTION
from instructmining.writing.atomic import beside, claimed, put_folder
from instructmining_serving.triton.config import DataType, TensorConfig, front_config, model_config
from instructmining_serving.triton.layout import BUNDLE, FRONT, RULE, SETTINGS, VERSION, FrontSettings

_MODEL = '''"""Scores rows of instruction data; instructmining wrote this folder."""

import triton_python_backend_utils as pb_utils

from instructmining_serving.triton.front import Front


class TritonPythonModel:
    """Delegates to the package, which must be installed in the environment of the Python backend."""

    def initialize(self, args):
        self._front = Front.of(args, pb_utils)

    def execute(self, requests):
        return self._front.execute(requests)
'''
_TYPES: dict[str, DataType] = {
    "tensor(int64)": "TYPE_INT64",
    "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16",
}


@dataclass(frozen=True, slots=True)
class Repository:
    """A model repository to write."""

    bundle: Bundle
    rule: Rule | None
    indicators: tuple[str, ...]
    device_kind: str
    work: Plan

    @classmethod
    def of(
        cls, bundle: Bundle, rule: Rule | None, indicators: Sequence[str] | str | None, *, device_kind: str
    ) -> Repository:
        """Check what the repository will compute.

        Args:
            bundle: with the graphs.
            rule: its terms are computed too.
            indicators: columns to compute, or "all" that the bundle's roles allow and that need no neighbours, which is
                the default without a rule.
            device_kind: "cpu" or "cuda", on which Triton will run the graphs.

        Raises:
            RuleError: a column is not known, or needs the neighbours of each row.
            BundleError: the bundle lacks a role.
            ExportError: a graph does not run on the device.
        """
        asked = ("all" if rule is None else ()) if indicators is None else indicators
        names = indicator_names(asked, bundle, neighbours=False)
        work = plan(bundle, rule, names)
        for indicator in work.indicators:
            if isinstance(indicator, CorpusIndicator):
                raise RuleError(
                    f"{indicator.column} needs the neighbours of each row, and a model of Triton has the rows of a few "
                    "requests; leave the column out (--rule, --indicators)"
                )
        for stream in work.streams:
            if device_kind == "cuda" and stream.role.precision == "int8":
                raise ExportError(f"role {stream.role.name!r} is int8, which runs on the CPU only; give --device cpu")
        return cls(bundle, rule, tuple(names), device_kind, work)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that the front computes."""
        columns = tuple(indicator.column for indicator in self.work.indicators)
        return columns if self.rule is None else (*columns, PREDICTION)

    def left_out(self, asked: Sequence[str] | str | None) -> list[str]:
        """Return the columns that "all" means elsewhere, and that are not computed here."""
        return [column for column in indicator_names(asked or (), self.bundle) if column not in self.columns]

    @property
    def models(self) -> dict[str, Role]:
        """The models by name, each with the role whose graph it runs; roles that share a graph share the model."""
        roles = {stream.role.graph: stream.role for stream in reversed(self.work.streams)}
        return {f"{FRONT}_{role.name}": role for role in sorted(roles.values(), key=lambda role: role.name)}

    def write(self, out: Path, *, overwrite: bool = False) -> None:
        """Write the repository to a folder.

        Args:
            out: the folder; it appears whole or not at all.
            overwrite: replace a repository that is there.

        Raises:
            ExportError: the folder holds something else, or a repository and ``overwrite`` is off; or it cannot be
                written.
        """
        try:
            with claimed(out):
                _check_place(out, overwrite=overwrite)
                folder = beside(out)
                try:
                    folder.mkdir()
                    self._write(folder)
                    put_folder(folder, out)
                finally:
                    shutil.rmtree(folder, ignore_errors=True)
        except OutputError as error:
            raise ExportError(str(error)) from error
        except OSError as error:
            raise ExportError(f"{out}: cannot be written: {error.strerror or error}") from error

    def _write(self, folder: Path) -> None:
        inputs: dict[str, list[str]] = {}
        for name, role in self.models.items():
            takes, gives = _tensors(role.graph_on(self.device_kind))
            inputs[name] = [tensor.name for tensor in takes]
            version = folder / name / VERSION
            version.mkdir(parents=True)
            _copy_graph(role, version, self.device_kind)
            config = model_config(name, takes, gives, device_kind=self.device_kind)
            (folder / name / "config.pbtxt").write_text(config, encoding="utf-8")
        front = folder / FRONT / VERSION
        front.mkdir(parents=True)
        (folder / FRONT / "config.pbtxt").write_text(front_config(self.columns), encoding="utf-8")
        (front / "model.py").write_text(_MODEL, encoding="utf-8")
        graphs = {role.graph.relative_to(self.bundle.path).as_posix(): name for name, role in self.models.items()}
        settings = FrontSettings(self.indicators, self.rule is not None, self.device_kind, graphs, inputs)
        (front / SETTINGS).write_bytes(settings.content())
        if self.rule is not None:
            (front / RULE).write_bytes(self.rule.content())
        for file in {self.bundle.path / MANIFEST, *(role.tokenizer for role in self.bundle.roles.values())}:
            place = front / BUNDLE / file.relative_to(self.bundle.path)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)


def _check_place(out: Path, *, overwrite: bool) -> None:
    """Check that a repository may be put in a place.

    Raises:
        ExportError: it may not.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    ours = out.is_dir() and (out / FRONT / VERSION / SETTINGS).is_file()
    foreign = sorted(entry.name for entry in out.iterdir() if not entry.name.startswith(FRONT)) if ours else []
    if not ours or foreign:
        what = f"holds {foreign[0]}, which is no model of it" if foreign else "exists and is not a model repository"
        raise ExportError(f"{out}: {what}; choose another folder")
    if not overwrite:
        raise ExportError(f"{out}: exists; give --overwrite to replace it")


def _copy_graph(role: Role, version: Path, device_kind: str) -> None:
    """Copy a graph as Triton wants it: a file, or a folder of that name where weights are beside the graph."""
    graph = role.graph_on(device_kind)
    weights = {data for file in (graph, role.graph) if (data := Path(f"{file}.data")).is_file()}
    place = version / "model.onnx"
    if weights:
        place.mkdir()
        for data in weights:  # the graph names it
            shutil.copyfile(data, place / data.name)
        place /= "model.onnx"
    shutil.copyfile(graph, place)


def _tensors(graph: Path) -> tuple[list[TensorConfig], list[TensorConfig]]:
    """Return the inputs and outputs of a graph.

    Raises:
        BundleError: the graph cannot be loaded, or has a type that no bundle has.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Nothing is computed: weights stay where they are.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no common root but this one
        raise BundleError(f"{graph}: onnxruntime cannot load it: {error}") from error
    takes, gives = (
        [TensorConfig(value.name, _type(graph, value.type), _dims(value.shape)) for value in values]
        for values in (session.get_inputs(), session.get_outputs())
    )
    return takes, gives


def _type(graph: Path, name: str) -> DataType:
    if name not in _TYPES:
        raise BundleError(f"{graph}: a tensor has the type {name}; wanted {', '.join(_TYPES)}; export the bundle again")
    return _TYPES[name]


def _dims(shape: Sequence[int | str | None]) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else -1 for size in shape)
