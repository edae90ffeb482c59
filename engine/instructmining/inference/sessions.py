"""Runs batches through onnxruntime on the device asked for, and never silently on another."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from instructmining.errors import BundleError, DeviceError, DeviceMemoryError
from instructmining.inference.batching import Batch
from instructmining.inference.cuda_errors import explained
from instructmining.inference.devices import Device, probe_path
from instructmining.inference.io_binding import DeviceBinding, KeptOnDevice
from instructmining.inference.placement import CPU_PROVIDER, CUDA_PROVIDER, RECORDED, Placement

_PRODUCTS_GRAPH = "products.onnx"
# The wordings of onnxruntime's arenas (bfc_arena.cc), of CUDA, cuBLAS and cuDNN, and of C++.
_OUT_OF_MEMORY = re.compile(
    r"failed to allocate memory|available memory of \d+ is smaller|out[ _]of[ _]memory|ALLOC_FAILED"
    r"|cudaErrorMemoryAllocation|bad_alloc|bad allocation",
    re.IGNORECASE,
)
# Scored positions are padded to a multiple of an eighth of the batch where shapes must repeat.
_SCORED_STEPS = 8
_SCORED_STEP = 64


@dataclass(frozen=True, slots=True)
class Acceleration:
    """Options that a user may turn on for CUDA; a CPU ignores them."""

    cuda_graphs: bool = False  # replay the kernels of batches whose shapes repeat; one device
    memory_bytes: int | None = None  # most that a graph's weights and batches take on a device
    tf32: bool = False  # round the inputs of float32 products to 10 bits; the export gate checks results without it


NO_ACCELERATION = Acceleration()


def open_session(
    graph: str | Path,
    device: Device,
    acceleration: Acceleration = NO_ACCELERATION,
    *,
    free_dimensions: Mapping[str, int] = MappingProxyType({}),
) -> ort.InferenceSession:
    """Open a session with the engine's own options.

    Args:
        graph: path of an ``.onnx`` file.
        device: the device to run on.
        acceleration: options to turn on there.
        free_dimensions: sizes of dimensions that the graph's inputs leave open, by the dimension's name; any other open
            dimension may have any size in each run.

    Raises:
        BundleError: the graph cannot be loaded.
        DeviceError: the session opened on another device, some of its nodes did, or an acceleration is not available
            for this graph.
        DeviceMemoryError: the weights do not fit on the device.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for name, size in free_dimensions.items():
        options.add_free_dimension_override_by_name(name, size)
    if device.kind == "cuda":
        wanted, settings = CUDA_PROVIDER, _cuda_settings(str(graph), device, acceleration)
        options.add_session_config_entry(RECORDED, "1")
        # Weights beside the arena: in it they would make its next growth as large as they are.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
    else:
        wanted, settings = CPU_PROVIDER, {}
        _set_cpu(options, device)
    try:
        # With its fallback on, a provider that fails in the middle of a run is replaced by the CPU, with a print.
        session = ort.InferenceSession(str(graph), options, providers=[(wanted, settings)], enable_fallback=0)
    except Exception as error:  # onnxruntime's own classes have no common root but this one
        raise _opening_error(str(graph), device, acceleration, error) from error
    if session.get_providers()[0] != wanted:
        raise DeviceError(f"{graph}: opened on {session.get_providers()[0]}, asked for {wanted}")
    if device.kind == "cuda":
        Placement.of_session(session).check(str(graph), device)
    return session


def _set_cpu(options: ort.SessionOptions, device: Device) -> None:
    options.intra_op_num_threads = max(1, device.threads // device.batches_at_once)
    # Exact integer products on CPUs without VNNI too, where the default kernel saturates.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # Idle threads of a session spin by default, on cores that another session's batch or a tokenizer needs. Within a
    # batch they may: without it a batch takes a tenth longer.
    options.add_session_config_entry("session.force_spinning_stop", "1")


def _cuda_settings(graph: str, device: Device, acceleration: Acceleration) -> dict[str, object]:
    settings: dict[str, object] = {
        "device_id": device.index,
        # In pieces of the sizes asked for, batches of ever new shapes find none that fits: twice the memory and more
        # (docs/performance.md).
        "arena_extend_strategy": "kNextPowerOfTwo",
        "use_tf32": int(acceleration.tf32),
    }
    if acceleration.memory_bytes is not None:
        settings["gpu_mem_limit"] = _for_batches(graph, acceleration.memory_bytes)
    if acceleration.cuda_graphs:
        settings["enable_cuda_graph"] = 1
    return settings


def _for_batches(graph: str, limit: int) -> int:
    """Return the bytes of a graph's limit that its weights leave; they are in a file beside the graph."""
    weights = Path(f"{graph}.data")
    bytes_left = limit - (weights.stat().st_size if weights.exists() else 0)
    if bytes_left > 0:
        return bytes_left
    raise DeviceMemoryError(f"{graph}: its weights take the whole limit of {limit / 2**30:.1f} GiB; raise --gpu-memory")


def _opening_error(graph: str, device: Device, acceleration: Acceleration, error: Exception) -> Exception:
    if _is_out_of_memory(error):
        return DeviceMemoryError(
            f"{graph}: its weights do not fit into the memory of {device}: {error}; use another device, "
            "or export it with a smaller --precision"
        )
    if device.kind == "cuda" and acceleration.cuda_graphs and "graph" in str(error).lower():
        return DeviceError(f"{graph}: cannot be opened for CUDA graphs: {error}; leave CUDA graphs out")
    return BundleError(f"{graph}: onnxruntime cannot load it: {error}")


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)) is not None


# Outputs with a value for each scored position; the others have one for each row.
OF_POSITIONS = frozenset({"nll", "best_token", "best_log_probability"})
_BEST = OF_POSITIONS - {"nll"}


_SHORT = Batch(
    members=np.zeros(1, dtype=np.int64),
    ids=np.ones((1, 8), dtype=np.int64),
    positions=np.arange(8)[None],
    mask=np.ones((1, 8), dtype=np.int64),
    scored=np.array([[0, 7]]),
)


class GraphSession:
    """One graph on one device; safe to share between threads."""

    def __init__(self, graph: Path, device: Device, acceleration: Acceleration = NO_ACCELERATION) -> None:
        """Open the graph.

        Args:
            graph: path of an ``.onnx`` file with the inputs and outputs that the manifest's role requires.
            device: the device to run on.
            acceleration: options to turn on there.

        Raises:
            BundleError: the graph cannot be loaded.
            DeviceError: the session opened on another device, some of its nodes did, or an acceleration is not
                available for this graph.
            DeviceMemoryError: the weights do not fit on the device.
        """
        self._graph = graph
        self._device = device
        self._session = open_session(graph, device, acceleration)
        self._captures = device.kind == "cuda" and acceleration.cuda_graphs
        self._binding = DeviceBinding(self._session, device, capture=self._captures) if device.kind == "cuda" else None
        self._shrink = False  # whether to return memory after the next run
        self._inputs = frozenset(value.name for value in self._session.get_inputs())
        self.outputs = frozenset(value.name for value in self._session.get_outputs())
        self.placement = Placement.of_session(self._session) if device.kind == "cuda" else None

    def output_size(self, output: str) -> int | None:
        """Return the size of an output's last dimension; None where the graph leaves it open."""
        (shape,) = (value.shape for value in self._session.get_outputs() if value.name == output)
        return shape[-1] if shape and isinstance(shape[-1], int) else None

    def run(self, batch: Batch, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """Run one batch.

        Args:
            batch: right-padded texts. Its scored positions are passed only for the outputs that have a value for each
                of them, since the vocabulary product is computed for every position passed.
            outputs: names of the outputs to return.

        Returns:
            ``nll`` (n,), in the order of the batch's scored positions; likewise ``best_token``, int64, the likeliest
            token there, and ``best_log_probability``; ``reward`` (rows,); ``embedding`` (rows, size).

        Raises:
            DeviceMemoryError: the device has too little memory for this batch; the next may run.
            DeviceError: the graph fails on this batch.
        """
        scored = batch.scored if not OF_POSITIONS.isdisjoint(outputs) else batch.scored[:0]
        best = 0 if _BEST.isdisjoint(outputs) else len(scored)
        if self._captures and len(scored):
            best = max(best, 1)  # an empty tensor has no address that a CUDA graph could record
        feeds = {
            "input_ids": batch.ids,
            "position_ids": batch.positions,
            "attention_mask": batch.mask,
            "scored": _repeating(scored, batch.ids.size) if self._captures else scored,
            # An empty tensor has no address that a CUDA graph could record.
            "best_of": np.arange(best)
            if best
            else np.zeros(1 if self._captures and len(scored) else 0, dtype=np.int64),
        }
        try:
            values = self._run(outputs, {name: feeds[name] for name in feeds if name in self._inputs})
        except Exception as error:  # onnxruntime's own classes have no other common root
            raise self._error(batch, error) from error
        named = dict(zip(outputs, values, strict=True))
        return {name: value[: len(scored)] if name in OF_POSITIONS else value for name, value in named.items()}

    def release(self) -> None:
        """Return the memory of earlier batches to the device, by a run over a short text; later runs take it again.

        onnxruntime keeps the memory of the largest batch for as long as the session lives; it frees what is unused at
        the end of a run that asks for it.

        Raises:
            DeviceError: the graph fails.
        """
        self._shrink = True
        self.run(_SHORT, sorted(self.outputs)[:1])

    def _run(self, outputs: Sequence[str], feeds: dict[str, NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        shrink, self._shrink = self._shrink, False
        if self._binding is not None:
            return self._binding.run(outputs, feeds, shrink=shrink)
        options = []
        if shrink:
            options = [ort.RunOptions()]
            options[0].add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        values: list[NDArray[np.float32]] = self._session.run(list(outputs), feeds, *options)
        return values

    def _error(self, batch: Batch, error: Exception) -> DeviceError:
        where = f"{self._graph}: failed on a batch of shape {batch.ids.shape}"
        if _is_out_of_memory(error):
            self._shrink = True  # memory of the failed run is fragmented, and the next may not fit
            return DeviceMemoryError(f"{where}: {self._device} has too little memory: {error}")
        how = "; CUDA graphs are on, try without" if self._captures else ""
        said = explained(error, self._device.index) if self._device.kind == "cuda" else str(error)
        return DeviceError(f"{where}: {said}{how}")


def _repeating(scored: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """Return positions (n, 2) with the last repeated, so that batches of one shape have few different n."""
    step = max(_SCORED_STEP, tokens // _SCORED_STEPS)
    missing = -len(scored) % step
    return np.concatenate([scored, np.repeat(scored[-1:], missing, axis=0)])


class ProductSession:
    """Inner products on one CPU thread, by a small packaged graph; safe to share between threads."""

    def __init__(self) -> None:
        """Open the graph."""
        self._session = open_session(
            str(resources.files("instructmining.knn") / _PRODUCTS_GRAPH), Device("cpu", threads=1)
        )

    def __call__(self, queries: NDArray[np.float32], points: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the inner products of each query with each point, float32 (queries, points).

        Args:
            queries: float32 (queries, size).
            points: float32 (points, size).

        Raises:
            DeviceMemoryError: there is too little memory for the products.
            DeviceError: the graph fails on these vectors.
        """
        try:
            products: NDArray[np.float32] = self._session.run(["products"], {"queries": queries, "points": points})[0]
        except Exception as error:  # onnxruntime's own classes have no other common root
            raise _vectors_error("products", queries, points, error) from error
        return products


class TopKSession:
    """Largest inner products between two sets of vectors, by a small packaged graph."""

    def __init__(self, device: Device) -> None:
        """Open the graph on a device."""
        self._session = open_session(probe_path(), device)
        self._kept = KeptOnDevice(device) if device.kind == "cuda" else None

    def __call__(
        self, queries: NDArray[np.float32], points: NDArray[np.float32], k: int
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the k largest inner products of each query with the points, descending.

        Args:
            queries: float32 (queries, size).
            points: float32 (points, size). A GPU keeps queries and points for as long as the caller keeps these very
                arrays, whose values must not change until then.
            k: how many, at most the number of points.

        Returns:
            float32 (queries, k) products and int64 (queries, k) indices of points.

        Raises:
            DeviceMemoryError: the device has too little memory for these vectors.
            DeviceError: the graph fails on these vectors.
        """
        outputs, wanted = ["values", "indices"], np.array([k], dtype=np.int64)
        try:
            if self._kept is None:
                values, indices = self._session.run(outputs, {"queries": queries, "points": points, "k": wanted})
            else:
                feeds = {
                    "queries": self._kept.value(queries),
                    "points": self._kept.value(points),
                    "k": ort.OrtValue.ortvalue_from_numpy(wanted),
                }
                values, indices = (found.numpy() for found in self._session.run_with_ort_values(outputs, feeds))
        except Exception as error:  # onnxruntime's own classes have no other common root
            raise _vectors_error("neighbours", queries, points, error) from error
        return values, indices


def _vectors_error(
    what: str, queries: NDArray[np.float32], points: NDArray[np.float32], error: Exception
) -> DeviceError:
    kind = DeviceMemoryError if _is_out_of_memory(error) else DeviceError
    return kind(f"{what} of {queries.shape} among {points.shape}: failed: {error}")
