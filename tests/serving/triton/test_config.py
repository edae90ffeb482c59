"""The configurations, by Triton's own schema where tritonclient is installed: make test-triton."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import onnxruntime as ort
import pytest

_TENSOR = re.compile(r'\{ name: "(\w+)" data_type: TYPE_(\w+) dims: \[ ([-\d, ]+) \] \}')
_TYPES = {"tensor(int64)": "INT64", "tensor(float)": "FP32"}


def tensors(config: str, kind: str) -> dict[str, tuple[str, list[int]]]:
    """The inputs or outputs of a configuration."""
    (listed,) = re.findall(rf"^{kind} \[\n(.*?)\n\]$", config, re.MULTILINE | re.DOTALL)
    return {name: (of_type, [int(size) for size in dims.split(",")]) for name, of_type, dims in _TENSOR.findall(listed)}


def test_each_configuration_has_the_name_of_its_folder_and_a_version(repository: Path) -> None:
    for folder in repository.iterdir():
        config = (folder / "config.pbtxt").read_text(encoding="utf-8")
        assert config.startswith(f'name: "{folder.name}"\n')
        assert (folder / "1").is_dir()


def test_a_model_takes_and_gives_what_its_graph_does(repository: Path) -> None:
    folder = repository / "instructmining_reward"
    config = (folder / "config.pbtxt").read_text(encoding="utf-8")
    session = ort.InferenceSession(str(folder / "1" / "model.onnx" / "model.onnx"))
    for kind, values in (("input", session.get_inputs()), ("output", session.get_outputs())):
        shapes = {
            value.name: (_TYPES[value.type], [size if isinstance(size, int) else -1 for size in value.shape])
            for value in values
        }
        assert tensors(config, kind) == shapes
    assert "max_batch_size: 0\n" in config
    assert "dynamic_batching" not in config


def test_the_front_takes_rows_of_several_requests_and_gives_every_column(repository: Path) -> None:
    config = (repository / "instructmining" / "config.pbtxt").read_text(encoding="utf-8")
    assert tensors(config, "input") == {"EXAMPLE": ("STRING", [1])}
    columns = ["output_length", "reward", "perplexity", "mtld", "ifd", "predicted_log_loss"]
    assert tensors(config, "output") == {**dict.fromkeys(columns, ("FP64", [1])), "RESULT": ("STRING", [1])}
    assert "max_batch_size: 512\n" in config
    assert "dynamic_batching {\n" in config


@pytest.mark.peer
def test_triton_s_schema_reads_the_configurations(repository: Path) -> None:
    schema: Any = pytest.importorskip("tritonclient.grpc.model_config_pb2")
    text_format: Any = pytest.importorskip("google.protobuf.text_format")
    for folder in repository.iterdir():
        text = (folder / "config.pbtxt").read_text(encoding="utf-8")
        config = text_format.Parse(text, schema.ModelConfig())
        assert config.name == folder.name
        for kind in ("input", "output"):
            names = {tensor.name: list(tensor.dims) for tensor in getattr(config, kind)}
            assert names == {name: dims for name, (_, dims) in tensors(text, kind).items()}
        if folder.name == "instructmining":
            assert (config.backend, config.max_batch_size) == ("python", 512)
            assert config.dynamic_batching.max_queue_delay_microseconds == 2000
        else:
            assert (config.backend, config.max_batch_size) == ("onnxruntime", 0)
