"""Step ``attention``: each form of attention by the kernel that onnxruntime is told to take.

The first run of a shape is apart from the later ones: cuDNN plans each new shape. Torch's own kernels stand beside.
"""

from __future__ import annotations

import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu import attention_graphs
from benchmarks.gpu.attention_graphs import HEADS, Heads, variants
from benchmarks.gpu.parts import Measure, Part, Place, line
from benchmarks.gpu.probe import synchronize
from benchmarks.gpu.subjects import TINY
from instructmining.inference.placement import CPU_PROVIDER, CUDA_PROVIDER, RECORDED, Placement

# The provider's option sdpa_kernel, a sum of these bits; 0 leaves the choice to onnxruntime.
KERNELS = {"chosen": 0, "flash": 1, "efficient": 2, "cudnn": 8, "math": 16}
_TORCH = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "math": SDPBackend.MATH,
}
_SHAPES = ((3, 16), (2, 24)) if TINY else ((128, 128), (64, 256), (32, 512), (8, 2048))  # rows and width
_REPEATS = 3 if TINY else 15
_DEBUG = "ORT_ENABLE_ATTENTION_KERNEL_DEBUG_INFO"


def attention_parts() -> list[Part]:
    return [Part("attention", heads.model, _attention(heads), 45) for heads in HEADS]


def _attention(heads: Heads) -> Measure:
    def measure(place: Place) -> Iterator[Mapping[str, Any]]:
        found: dict[str, Any] = {"heads": heads.model, "causal": heads.causal, "torch": {}, "onnxruntime": {}}
        given = {shape: attention_graphs.feeds(heads, *shape, place.precision) for shape in _SHAPES}
        wanted = {shape: _torch_values(heads, feeds) for shape, feeds in given.items()}
        for name, backend in _TORCH.items():
            found["torch"][name] = _tried(lambda backend=backend: _torch_times(heads, given, place, backend))
        yield found
        kernels = KERNELS if place.device.kind == "cuda" else {"chosen": 0}
        with tempfile.TemporaryDirectory() as folder:
            for name, variant in variants(heads).items():
                graph = Path(folder) / "model.onnx"
                attention_graphs.write(heads, variant, graph, precision=place.precision, device=place.device)
                found["onnxruntime"][name] = {}
                for kernel, bits in kernels.items():
                    # A form without a mask sees the padding too: its values differ.
                    found["onnxruntime"][name][kernel] = _tried(
                        lambda graph=graph, bits=bits: _times(graph, given, wanted, place, bits)
                    )
                    yield found

    return measure


def _tried(measured: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return measured()
    except Exception as error:  # no kernel for these heads or this device
        return {"failed": line(error)}


def _open(graph: Path, place: Place, bits: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.add_session_config_entry(RECORDED, "1")
    provider: Any = CPU_PROVIDER
    if place.device.kind == "cuda":
        provider = (CUDA_PROVIDER, {"device_id": place.device.index, "use_tf32": 0, "sdpa_kernel": bits})
    return ort.InferenceSession(str(graph), options, providers=[provider], enable_fallback=0)


def _times(
    graph: Path,
    given: Mapping[tuple[int, int], Mapping[str, NDArray[Any]]],
    wanted: Mapping[tuple[int, int], NDArray[np.float32]],
    place: Place,
    bits: int,
) -> dict[str, Any]:
    kernel = _kernel(graph, given[_SHAPES[0]], place, bits)
    session = _open(graph, place, bits)
    on_cpu = Placement.of_session(session).on_cpu if place.device.kind == "cuda" else {}
    shapes: dict[str, Any] = {}
    for shape, feeds in given.items():
        binding = _bound(session, feeds, place)
        spent = []
        for _ in range(2 + _REPEATS):
            begin = time.perf_counter()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            spent.append(time.perf_counter() - begin)
        values = binding.copy_outputs_to_cpu()[0].astype(np.float32)
        shapes["x".join(map(str, shape))] = {
            "first_ms": 1e3 * spent[0],
            "second_ms": 1e3 * spent[1],
            "steady_ms": 1e3 * statistics.median(spent[2:]),
            "difference": float(np.abs(values - wanted[shape])[_seen(feeds)].max()),
        }
    return {"kernel": kernel, "on_cpu": on_cpu, "shapes": shapes}


def _kernel(graph: Path, feeds: Mapping[str, NDArray[Any]], place: Place, bits: int) -> str | None:
    """The kernel that onnxruntime says it took; it prints it to standard output."""
    if place.device.kind != "cuda":
        return None
    with tempfile.TemporaryFile() as said:
        with _standard_output(said.fileno()):
            session = _open(graph, place, bits)
            binding = _bound(session, feeds, place)
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
        said.seek(0)
        text = said.read().decode(errors="replace")
    return ", ".join(dict.fromkeys(re.findall(r"SdpaKernel=(\w+)", text))) or text.strip()[:200] or None


@contextmanager
def _standard_output(file: int) -> Iterator[None]:
    before = os.dup(1)
    os.environ[_DEBUG] = "1"
    os.dup2(file, 1)
    try:
        yield
    finally:
        os.dup2(before, 1)
        os.close(before)
        del os.environ[_DEBUG]


def _bound(session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]], place: Place) -> ort.IOBinding:
    binding = session.io_binding()
    for value, memory in zip(session.get_inputs(), session.get_input_memory_infos(), strict=True):
        kind = "cpu" if memory.name == "Cpu" else place.device.kind
        binding.bind_ortvalue_input(
            value.name, ort.OrtValue.ortvalue_from_numpy(feeds[value.name], kind, place.device.index)
        )
    binding.bind_output("attended", place.device.kind, place.device.index)
    return binding


def _seen(feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
    """(rows, width), the queries that are no padding."""
    seen: NDArray[np.bool_] = np.arange(feeds["ids"].shape[1]) < feeds["lengths"][:, None]
    return seen


def _parts(heads: Heads, feeds: Mapping[str, NDArray[Any]], device: str) -> list[torch.Tensor]:
    """Query, key and value, (rows, heads, width, size), keys and values repeated."""
    found = []
    for name, count in (("query", heads.queries), ("key", heads.keys), ("value", heads.keys)):
        split = torch.from_numpy(feeds[name]).to(device).unflatten(-1, (count, heads.size)).transpose(1, 2)
        found.append(split.repeat_interleave(heads.queries // count, dim=1))
    return found


def _torch_values(heads: Heads, feeds: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """In float32, with the padding hidden, (rows, width, heads · size)."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = [part.float() for part in _parts(heads, feeds, device)]
    seen = torch.from_numpy(_seen(feeds)).to(device)[:, None, None, :]
    hidden = torch.where(seen, 0.0, -1e9)
    if heads.causal:
        width = feeds["ids"].shape[1]
        hidden = hidden + torch.full((width, width), -1e9, device=device).triu(1)
    if heads.biased:
        hidden = hidden + torch.from_numpy(feeds["bias"]).to(device).float()
    attended = scaled_dot_product_attention(*parts, attn_mask=hidden)
    found: NDArray[np.float32] = attended.transpose(1, 2).flatten(2).cpu().numpy()
    return found


def _torch_times(
    heads: Heads, given: Mapping[tuple[int, int], Mapping[str, NDArray[Any]]], place: Place, backend: SDPBackend
) -> dict[str, float]:
    """Milliseconds by shape, without hiding the padding."""
    found = {}
    for shape, feeds in given.items():
        parts = _parts(heads, feeds, place.device.kind)
        bias = torch.from_numpy(feeds["bias"]).to(place.device.kind) if heads.biased else None
        spent = []
        with sdpa_kernel([backend]), torch.inference_mode():
            for _ in range(2 + _REPEATS):
                begin = time.perf_counter()
                scaled_dot_product_attention(*parts, attn_mask=bias, is_causal=heads.causal)
                synchronize()
                spent.append(time.perf_counter() - begin)
        found["x".join(map(str, shape))] = 1e3 * statistics.median(spent[2:])
    return found
