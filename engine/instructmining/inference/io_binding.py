"""Keeps inputs and outputs on a CUDA device: buffers reused by shape, graphs captured where shapes repeat."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any, TypeAlias

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from instructmining.inference.devices import Device

Feeds: TypeAlias = Mapping[str, NDArray[Any]]
_Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]  # of the inputs, by name

_BUFFERS = 96  # input buffers kept; a batch of 16,384 tokens needs three of 128 KiB
_CAPTURED = 64  # graphs kept; each holds its inputs, its outputs and some MiB of the driver's
_NO_CAPTURE = "-1"  # onnxruntime's annotation for a run that is neither captured nor replayed


@dataclass(frozen=True, slots=True)
class _Captured:
    """A captured graph, which reads and writes at these addresses for its lifetime."""

    binding: ort.IOBinding
    inputs: Mapping[str, ort.OrtValue]
    options: ort.RunOptions  # with the graph's number


class DeviceBinding:
    """Runs a session; copies inputs to the device once, and outputs back once.

    Runs exclude each other in all threads, since the buffers are shared.
    """

    def __init__(self, session: ort.InferenceSession, device: Device, *, capture: bool = False) -> None:
        """Create the binding; nothing is bound yet.

        Args:
            session: a session on the device, opened with ``enable_cuda_graph`` where ``capture`` is set.
            device: a device of kind "cuda".
            capture: record the kernels as a CUDA graph when input shapes occur a second time, and replay it from then
                on. Kernels that depend on the values of the inputs, not only on their shapes, cannot be captured.
        """
        self._session = session
        self._device = device
        self._capture = capture
        self._binding = session.io_binding()
        self._buffers: OrderedDict[tuple[str, tuple[int, ...], str], ort.OrtValue] = OrderedDict()
        self._captured: dict[tuple[_Shapes, tuple[str, ...]], _Captured] = {}
        self._seen: dict[tuple[_Shapes, tuple[str, ...]], dict[str, tuple[tuple[int, ...], np.dtype[Any]]]] = {}
        self._running = Lock()

    def run(self, outputs: Sequence[str], feeds: Feeds, *, shrink: bool = False) -> list[NDArray[Any]]:
        """Run once.

        Args:
            outputs: names of the outputs to return.
            feeds: every input of the graph.
            shrink: return unused memory of the session to the device after the run; costs a synchronisation and later
                allocations. Has no effect where graphs are captured, since they keep using their addresses.

        Returns:
            The outputs, in order, on the host.
        """
        key = (tuple((name, array.shape) for name, array in feeds.items()), tuple(outputs))
        with self._running:
            if key in self._captured:
                return self._replay(self._captured[key], feeds)
            # An empty tensor has no address to record.
            repeats = self._capture and key in self._seen and all(array.size for array in feeds.values())
            if repeats and len(self._captured) < _CAPTURED:
                captured = self._new_captured(feeds, self._seen[key])
                values = self._replay(captured, feeds)  # this first run also records the graph
                self._captured[key] = captured
                return values
            values = self._plain(outputs, feeds, shrink=shrink)
            if self._capture:
                self._seen[key] = {
                    name: (value.shape, value.dtype) for name, value in zip(outputs, values, strict=True)
                }
            return values

    def _plain(self, outputs: Sequence[str], feeds: Feeds, *, shrink: bool) -> list[NDArray[Any]]:
        options = ort.RunOptions()
        if self._capture:
            options.add_run_config_entry("gpu_graph_id", _NO_CAPTURE)
        elif shrink:
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", f"gpu:{self._device.index}")
        try:
            for name, array in feeds.items():
                self._bind_input(name, np.ascontiguousarray(array))
            for name in outputs:  # onnxruntime allocates them on the device, in whatever shape
                self._binding.bind_output(name, "cuda", self._device.index)
            self._session.run_with_iobinding(self._binding, options)
            values: list[NDArray[Any]] = self._binding.copy_outputs_to_cpu()
        finally:
            self._binding.clear_binding_outputs()  # frees their memory for the next run
        return values

    def _bind_input(self, name: str, array: NDArray[Any]) -> None:
        if not array.size:
            self._binding.bind_cpu_input(name, array)
            return
        key = (name, array.shape, array.dtype.str)
        if key not in self._buffers:
            self._buffers[key] = self._empty(array.shape, array.dtype)
            if len(self._buffers) > _BUFFERS:
                self._buffers.popitem(last=False)
        self._buffers.move_to_end(key)
        value = self._buffers[key]
        value.update_inplace(array)
        # Bound on every run: an input that the graph reads on the host is copied there at this point.
        self._binding.bind_ortvalue_input(name, value)

    def _new_captured(self, feeds: Feeds, outputs: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]) -> _Captured:
        binding = self._session.io_binding()
        inputs = {name: self._empty(array.shape, array.dtype) for name, array in feeds.items()}
        for name, value in inputs.items():
            value.update_inplace(np.ascontiguousarray(feeds[name]))
            binding.bind_ortvalue_input(name, value)
        for name, (shape, dtype) in outputs.items():
            binding.bind_ortvalue_output(name, self._empty(shape, dtype))
        options = ort.RunOptions()
        options.add_run_config_entry("gpu_graph_id", str(len(self._captured) + 1))
        return _Captured(binding, inputs, options)

    def _replay(self, captured: _Captured, feeds: Feeds) -> list[NDArray[Any]]:
        for name, value in captured.inputs.items():
            value.update_inplace(np.ascontiguousarray(feeds[name]))
        self._session.run_with_iobinding(captured.binding, captured.options)
        values: list[NDArray[Any]] = captured.binding.copy_outputs_to_cpu()
        return values

    def _empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, "cuda", self._device.index)
