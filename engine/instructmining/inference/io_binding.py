"""Inputs and outputs that stay on a CUDA device: reused buffers by shape, and captured graphs where shapes repeat."""

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

_BUFFERS = 96  # input buffers kept; a batch of 16,384 tokens has three of 128 KiB
_CAPTURED = 64  # graphs kept; each holds its own inputs and outputs and some MiB of the driver's
_NO_CAPTURE = "-1"  # onnxruntime's annotation for a run that is neither captured nor replayed


@dataclass(frozen=True, slots=True)
class _Captured:
    """A captured graph: it reads and writes at these addresses for as long as it lives."""

    binding: ort.IOBinding
    inputs: Mapping[str, ort.OrtValue]
    options: ort.RunOptions  # with its number


class DeviceBinding:
    """Runs a session whose inputs are copied to a device once and whose outputs are copied back once.

    A run is exclusive, whoever calls: the buffers are shared.
    """

    def __init__(self, session: ort.InferenceSession, device: Device, *, capture: bool = False) -> None:
        """Bind nothing yet.

        Args:
            session: on the device; opened with ``enable_cuda_graph`` where capture is on.
            device: of kind "cuda".
            capture: record the kernels of inputs whose shapes come a second time as a CUDA graph and replay it from
                then on. What depends on the values of the inputs, and not on their shapes alone, cannot be captured.
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
            outputs: names of those wanted.
            feeds: every input of the graph.
            shrink: give memory that the session does not use back to the device after the run; it costs a
                synchronisation and what is given back must be allocated anew. Never done where graphs are captured:
                they go on using their addresses.

        Returns:
            The outputs, in their order, on the host.
        """
        key = (tuple((name, array.shape) for name, array in feeds.items()), tuple(outputs))
        with self._running:
            if key in self._captured:
                return self._replay(self._captured[key], feeds)
            # An empty tensor has no address to be recorded.
            repeats = self._capture and key in self._seen and all(array.size for array in feeds.values())
            if repeats and len(self._captured) < _CAPTURED:
                captured = self._new_captured(feeds, self._seen[key])
                values = self._replay(captured, feeds)  # onnxruntime runs, records and answers in this first run
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
            for name in outputs:  # onnxruntime allocates them there, of whatever shape they come
                self._binding.bind_output(name, "cuda", self._device.index)
            self._session.run_with_iobinding(self._binding, options)
            values: list[NDArray[Any]] = self._binding.copy_outputs_to_cpu()
        finally:
            self._binding.clear_binding_outputs()  # their memory is free for the next run
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
        # Bound anew each time: an input that the graph reads on the host is copied there at this point.
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
