from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import NoReturn

import altered_bundle
import numpy as np
import onnxruntime as ort
import pytest

from instructmining import Bundle, __version__
from instructmining.errors import BundleError
from instructmining.inference.batching import batches
from instructmining.inference.cuda_driver import Memory
from instructmining.inference.devices import Device, cpu_threads
from instructmining.inference.placement import Placement
from instructmining.inference.references import Agreement, References
from instructmining.inference.sessions import GraphSession
from instructmining.tokenizing.truncation import Tokens
from instructmining_cli.machine import diagnosis
from instructmining_cli.machine.diagnosis import RoleCheck, check_bundle, describe_machine

CPU = Device("cpu", threads=1)
OUTPUTS = {"perplexity": "nll", "reward": "reward", "embedding": "embedding"}


@pytest.fixture
def referenced(small_bundle: Path, tmp_path: Path) -> Path:
    """The small bundle with the values that its own graphs give, as an export leaves it."""
    path = altered_bundle.copy(small_bundle, tmp_path)
    rng = np.random.default_rng(2)
    texts = [Tokens(rng.integers(5, 300, size=size), np.arange(1, size, dtype=np.int64)) for size in (9, 30, 4)]
    for role, output in OUTPUTS.items():
        session = GraphSession(Bundle.open(path).roles[role].graph, CPU)  # type: ignore[index]
        values = [session.run(next(batches([text], max_batch_tokens=1)), (output,))[output].ravel() for text in texts]
        References(output, texts, values).save(tmp_path / "references.json")
        altered_bundle.rewrite(path, f"{role}/references.json", (tmp_path / "references.json").read_bytes())
    return path


def test_the_machine_is_described_by_versions_and_devices() -> None:
    machine = describe_machine()
    assert machine["instructmining"] == __version__
    assert machine["python"].startswith(platform.python_version())
    assert machine["onnxruntime"] == ort.__version__
    assert machine["numpy"] == np.__version__
    assert machine["cpu"] == f"works, {cpu_threads()} threads"
    assert list(machine)[-4:] == [
        f"export: {package}" for package in ("torch", "transformers", "onnx-ir", "accelerate")
    ]
    assert {"orjson", "tokenizers", "zstandard", "safetensors", "gguf", "cuda"} < set(machine)
    assert all(machine.values())


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (None, "works: a graph ran on it (NVIDIA H200, compute capability 9.0, 30.0 of 141.0 GiB free)"),
        ("cannot load libcuda.so.1; install the NVIDIA driver", "does not work: cannot load libcuda.so.1; install"),
    ],
)
def test_cuda_is_said_to_work_only_where_a_graph_ran_on_it(
    monkeypatch: pytest.MonkeyPatch, problem: str | None, line: str
) -> None:
    class Driver:
        def __init__(self, _: int) -> None:
            self.name, self.compute_capability = lambda: "NVIDIA H200", lambda: "9.0"
            self.memory = lambda: Memory(30 << 30, 141 << 30)

    monkeypatch.setattr(diagnosis, "cuda_problem", lambda: problem)
    monkeypatch.setattr(diagnosis, "CudaDriver", Driver)
    assert describe_machine()["cuda"].startswith(line)


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str) -> NoReturn:
        raise PackageNotFoundError(package)

    monkeypatch.setattr(diagnosis, "version", missing)
    machine = describe_machine()
    assert machine["export: torch"] == machine["numpy"] == "not installed"


def test_a_sound_bundle_passes_on_every_role(referenced: Path) -> None:
    checks = {check.role: check for check in check_bundle(Bundle.open(referenced), CPU)}
    assert set(checks) == set(OUTPUTS)
    for check in checks.values():
        assert check.passed
        assert str(check).startswith("ok: fp32, 3 rows: batch_difference ")


@pytest.mark.parametrize("role", OUTPUTS)
def test_a_role_whose_graph_does_not_give_its_references_differs_and_the_others_pass(
    referenced: Path, role: str
) -> None:
    name = f"{role}/references.json"
    content = json.loads((referenced / name).read_bytes())
    content["rows"][1]["values"][0] += 0.5
    altered_bundle.rewrite(referenced, name, json.dumps(content).encode())
    checks = {check.role: check for check in check_bundle(Bundle.open(referenced), CPU)}
    assert {found for found, check in checks.items() if not check.passed} == {role}
    assert str(checks[role]).startswith("DIFFERS: row_error ")


def test_a_role_without_references_does_not_pass(referenced: Path) -> None:
    altered_bundle.edit(referenced, lambda manifest: manifest["roles"]["reward"].pop("references"))
    checks = {check.role: check for check in check_bundle(Bundle.open(referenced), CPU)}
    assert checks["reward"] == RoleCheck("reward", "fp32", None)
    assert not checks["reward"].passed
    assert str(checks["reward"]) == "no reference values in the bundle; export it again"


def test_references_that_are_damaged_are_a_bundle_error(referenced: Path) -> None:
    altered_bundle.rewrite(referenced, "perplexity/references.json", b"{}")
    with pytest.raises(BundleError, match=r"references\.json: not a file of reference values"):
        list(check_bundle(Bundle.open(referenced), CPU))


@pytest.mark.parametrize(
    ("row_error", "batch_difference", "passed"),
    [
        (1e-4, 1e-5, True),
        (1.1e-4, 0.0, False),
        (0.0, 1.1e-5, False),
        (float("nan"), 0.0, False),
        (0.0, float("nan"), False),
    ],
)
def test_a_check_passes_within_the_bounds_of_the_gate_and_at_no_value_that_is_no_number(
    row_error: float, batch_difference: float, passed: bool
) -> None:
    check = RoleCheck("reward", "fp32", Agreement(3, row_error, None, batch_difference, 0.0, 0.0, 1.0))
    assert check.passed is passed
    assert str(check).startswith("ok" if passed else "DIFFERS")


def test_a_check_on_a_gpu_says_where_the_nodes_of_the_graph_ran() -> None:
    found = Agreement(3, 0.0, None, 0.0, 0.0, 0.0, 1.0)
    check = RoleCheck("reward", "fp32", found, Placement(45, {"Cast": 1}))
    assert str(check).endswith("; 45 nodes on the device, 1 Cast on the CPU")
    assert check.as_json()["nodes"] == {"on_device": 45, "on_cpu": {"Cast": 1}}
    assert RoleCheck("reward", "fp32", found).as_json()["nodes"] is None


@pytest.mark.parametrize(
    ("precision", "rank_correlation", "mean_error", "passed"),
    [
        ("fp16", 0.9999, 1e-3, True),
        ("fp16", 0.9998, 0.0, False),
        ("fp16", 1.0, 1.1e-3, False),
        ("int8", 0.995, 0.02, True),
        ("int8", 0.994, 0.0, False),
        ("int8", float("nan"), 0.0, False),
        ("int8", 1.0, 0.021, False),
    ],
)
def test_lower_precision_has_bounds_of_its_own(
    precision: str, rank_correlation: float, mean_error: float, passed: bool
) -> None:
    check = RoleCheck("perplexity", precision, Agreement(3, 0.5, 1.0, 1e-3, mean_error, None, rank_correlation))
    assert check.passed is passed
    assert precision in str(check)
