"""Proves where onnxruntime runs a graph's nodes: what a device has no kernel for would silently run on the CPU."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import onnxruntime as ort

from instructmining.errors import DeviceError

CUDA_PROVIDER = "CUDAExecutionProvider"
CPU_PROVIDER = "CPUExecutionProvider"
RECORDED = "session.record_ep_graph_assignment_info"  # session option; onnxruntime reports assignments only with "1"

# onnxruntime computes sizes on the CPU, from integers that are there already: some elements, once in a graph.
_OF_SIZES = frozenset(
    {"Add", "Cast", "Concat", "Div", "Gather", "Max", "Min", "Mul", "Range", "Shape", "Slice"}
    | {"Squeeze", "Sub", "Unsqueeze"}
)
# onnxruntime names no copies, but those within a graph arise next to nodes on the CPU, so this bounds them too. The
# exporter's graphs have at most 19 such nodes (DeBERTa; others at most 6), and no copies.
_MOST_ON_CPU = 20


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes of one graph by where they run."""

    on_device: int
    on_cpu: Mapping[str, int]  # operator → nodes

    @classmethod
    def of_session(cls, session: ort.InferenceSession) -> Placement:
        """Count the nodes of a session that was opened with the option :data:`RECORDED`."""
        on_device, on_cpu = 0, Counter[str]()
        for part in session.get_provider_graph_assignment_info():
            operators = [str(node.op_type) for node in part.get_nodes()]
            if part.ep_name == CPU_PROVIDER:
                on_cpu.update(operators)
            else:
                on_device += len(operators)
        return cls(on_device, dict(sorted(on_cpu.items())))

    def check(self, graph: str, device: object) -> None:
        """Refuse a graph that would not run on its device as a whole.

        Raises:
            DeviceError: an operator other than the arithmetic of sizes is on the CPU, or too much of that.
        """
        refused = {name: nodes for name, nodes in self.on_cpu.items() if name not in _OF_SIZES}
        if not refused and sum(self.on_cpu.values()) <= _MOST_ON_CPU:
            return
        wanted = f"at most {_MOST_ON_CPU} nodes" if not refused else "only arithmetic of sizes"
        raise DeviceError(
            f"{graph}: opened on {device}, but {_listed(refused or self.on_cpu)} would run on the CPU, wanted there "
            f"{wanted}; export the model again, choose another --precision, or give --device cpu"
        )

    def as_json(self) -> dict[str, object]:
        """Return the counts as the run file has them."""
        return asdict(self)

    def __str__(self) -> str:
        """Return the counts in words."""
        return f"{self.on_device} nodes on the device" + (f", {_listed(self.on_cpu)} on the CPU" if self.on_cpu else "")


def _listed(operators: Mapping[str, int]) -> str:
    return ", ".join(f"{nodes} {name}" for name, nodes in operators.items())
