"""Checks for ``doctor``: devices, versions, and a bundle against its reference values."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from instructmining.bundle import Bundle, RoleName
from instructmining.inference.cuda_driver import CudaDriver
from instructmining.inference.devices import Device, cpu_threads, cuda_problem, runtime_version
from instructmining.inference.placement import Placement
from instructmining.inference.references import BOUNDS, Agreement, References, agreements
from instructmining.inference.sessions import GraphSession

ENGINE_PACKAGES = ("numpy", "orjson", "tokenizers", "zstandard", "safetensors", "gguf")
EXPORT_PACKAGES = ("torch", "transformers", "onnx-ir", "accelerate")


@dataclass(frozen=True, slots=True)
class RoleCheck:
    """The check of one role of a bundle on a device."""

    role: str
    precision: str
    found: Agreement | None  # None if the bundle has no reference values
    placement: Placement | None = None  # None on a CPU

    @property
    def broken(self) -> list[str]:
        """Figures beyond the exporter's bounds for this precision."""
        return self.found.beyond(BOUNDS[self.precision]) if self.found is not None else []

    @property
    def passed(self) -> bool:
        """Whether the graph gives its reference values here."""
        return self.found is not None and not self.broken

    def as_json(self) -> dict[str, object]:
        """Return the figures, and those beyond their bounds."""
        figures = self.found.as_json() if self.found is not None else None
        return {
            "role": self.role,
            "precision": self.precision,
            "passed": self.passed,
            "beyond": self.broken,
            "figures": figures,
            "nodes": self.placement.as_json() if self.placement is not None else None,
        }

    def __str__(self) -> str:
        """Return one line to print."""
        if self.found is None:
            return "no reference values in the bundle; export it again"
        figures = f"{self.precision}, {self.found.rows} rows: {BOUNDS[self.precision].beside(self.found.as_json())}"
        if self.placement is not None:
            figures += f"; {self.placement}"
        return f"ok: {figures}" if self.passed else f"DIFFERS: {'; '.join(self.broken)} ({figures})"


def describe_machine() -> dict[str, str]:
    """Return versions and the state of devices, by name."""
    problem = cuda_problem()
    return {
        **versions(),
        "cpu": f"works, {cpu_threads()} threads",
        "cuda": f"works: a graph ran on it ({_gpu()})" if problem is None else f"does not work: {problem}",
        **{f"export: {package}": _version(package) for package in EXPORT_PACKAGES},
    }


def _gpu() -> str:
    driver = CudaDriver(0)
    memory = driver.memory()
    free = f"{memory.free / 2**30:.1f} of {memory.total / 2**30:.1f} GiB free" if memory else "memory not known"
    return f"{driver.name() or 'unknown'}, compute capability {driver.compute_capability() or 'unknown'}, {free}"


def versions() -> dict[str, str]:
    """Return the versions of everything that scoring runs on."""
    return {
        "instructmining": _version("instructmining"),
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "onnxruntime": runtime_version(),
        **{package: _version(package) for package in ENGINE_PACKAGES},
    }


def check_bundle(bundle: Bundle, device: Device) -> Iterator[RoleCheck]:
    """Run each role's reference texts on a device and compare the outputs.

    Raises:
        BundleError: a graph or its reference values cannot be loaded.
        DeviceError: a session does not open on this device, or not as a whole.
    """
    # Roles that share a graph were exported together, with the same texts.
    graphs: dict[Path, dict[RoleName, References]] = {}
    for name, role in bundle.roles.items():
        if role.references is None:
            yield RoleCheck(name, role.precision, None)
        else:
            graphs.setdefault(role.graph_on(device.kind), {})[name] = References.load(role.references)
    for graph, references in graphs.items():
        session = GraphSession(graph, device)
        precision = bundle.roles[next(iter(references))].precision
        for name, found in zip(references, agreements(list(references.values()), session), strict=True):
            yield RoleCheck(name, precision, found, session.placement)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
