"""A graph that another exporter made, to which nodes of ours are added."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes import common

from instructmining.errors import ExportError
from instructmining_export.graphs.graph_builder import GraphBuilder, Weights
from instructmining_export.graphs.tensors import lazy
from instructmining_export.via.vocabulary import VocabularyProduct


class ExtendedGraph(GraphBuilder):
    """Adds nodes to an exported graph; all is float32, in the exported graph's opset."""

    def __init__(self, exported: ir.Model, weights: Weights) -> None:
        """Take an exported graph over, which must not be used further.

        Args:
            exported: its weights stay on disk until the graph is saved.
            weights: reads one tensor of the checkpoint by name, as float32.
        """
        super().__init__("exported", weights)
        self._exported = exported
        # Shapes would not hold after the changes; docs hold paths of the machine that exported.
        common.InlinePass()(exported)
        common.ClearMetadataAndDocStringPass()(exported)

    def exported(self, output: str, inputs: Mapping[str, ir.Value]) -> ir.Value:
        """Connect the exported graph's inputs and return one of its outputs; the others are dropped.

        Args:
            output: its name in the exported graph.
            inputs: values for all that it may take, by name.

        Raises:
            ExportError: it takes another input, or has no such output.
        """
        graph = self._exported.graph
        outputs = {str(value.name): value for value in graph.outputs}
        if output not in outputs:
            raise ExportError(f"the exported graph gives {', '.join(outputs)}; wanted {output}")
        value = outputs[output]
        if unknown := sorted({str(value.name) for value in graph.inputs} - inputs.keys()):
            raise ExportError(f"the exported graph takes {unknown[0]}; wanted none but {', '.join(inputs)}")
        graph.outputs[:] = [value]
        common.RemoveUnusedNodesPass()(self._exported)
        for taken in graph.inputs:
            ir.convenience.replace_all_uses_with(taken, inputs[str(taken.name)])
        graph.inputs.clear()
        graph.outputs.clear()
        for node in graph.all_nodes():
            for made in node.outputs:
                made.shape = None
        return value

    def count_products(self, *, besides: VocabularyProduct | None = None) -> None:
        """Count the exported graph's products with weights, once per padded token.

        Args:
            besides: counted by itself, or once per scored position where it stays in the graph.
        """
        for node in self._exported.graph.all_nodes():
            if node.op_type in {"MatMul", "Gemm"} and (besides is None or node is not besides.node):
                self.count(max(_weights(value) for value in node.inputs))

    def vocabulary_table(self, product: VocabularyProduct) -> str:
        """Return the name by which :meth:`vocabulary` finds an exported vocabulary matrix."""
        name, tensor = str(product.table.name), product.table.const_value
        assert tensor is not None  # a product's table is an initializer
        if product.words_first:
            self._known[name] = product.table
            return name
        name += ".T"
        self._initializer(name, lazy(name, tensor.dtype, product.shape, lambda: tensor.numpy().T))
        return name

    def model(self) -> ir.Model:
        """Return the exported graph with the added nodes and outputs; without what no output needs."""
        graph = self._exported.graph
        graph.extend(self._tape.nodes)
        graph.sort()
        graph.inputs[:] = self._inputs
        graph.outputs[:] = self._outputs
        common.RemoveUnusedNodesPass()(self._exported)
        graph.inputs[:] = [value for value in self._inputs if value.uses()]
        for value in self._known.values():  # also a table of which slices alone are read
            if value.graph is not graph:
                while value.name in graph.initializers:
                    value.name = f"{value.name}.added"
                graph.initializers.add(value)
        common.NameFixPass()(self._exported)
        self._exported.producer_name = "instructmining"
        return self._exported


def _weights(value: ir.Value | None) -> int:
    """Return how many numbers a weight has; 0 for a value that is none, or no matrix."""
    while value is not None and (node := value.producer()) is not None and node.op_type in {"Transpose", "Identity"}:
        value = node.inputs[0]
    tensor = value.const_value if value is not None else None
    return math.prod(tensor.shape.numpy()) if tensor is not None and len(tensor.shape) == 2 else 0
