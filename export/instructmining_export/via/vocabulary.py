"""Finds the vocabulary product in an exported language model's graph."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

# They act on each logit alone where their other inputs are constants: a bias, a scale, a soft cap.
_ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Sub", "Tanh"})


@dataclass(frozen=True, slots=True)
class VocabularyProduct:
    """The product of hidden states with the vocabulary matrix, and what follows it up to the logits."""

    node: ir.Node  # a MatMul
    table: ir.Value  # the initializer
    words_first: bool  # whether the table is stored as (words, size), else as (size, words)
    after: tuple[ir.Value, ...]  # values from the product's own output to the logits

    @property
    def states(self) -> ir.Value:
        """Hidden states, float32 (rows, width, size)."""
        return _input(self.node, 0)

    @property
    def shape(self) -> tuple[int, int]:
        """Words and size of a hidden state."""
        assert self.table.const_value is not None
        first, second = self.table.const_value.shape.numpy()
        return (first, second) if self.words_first else (second, first)


def find(logits: ir.Value) -> VocabularyProduct | None:
    """Return the product that the logits come from; None where more than elementwise operators lies between."""
    after = [logits]
    while (node := after[-1].producer()) is not None and len(after[-1].uses()) <= 1:
        if node.op_type == "MatMul":
            table, words_first = _table(_input(node, 1))
            return None if table is None else VocabularyProduct(node, table, words_first, tuple(after[::-1]))
        varying = [value for value in node.inputs if value is not None and not _is_vector(value)]
        if node.op_type not in _ELEMENTWISE or node.domain or len(varying) != 1:
            return None
        after.append(varying[0])
    return None


def _table(value: ir.Value) -> tuple[ir.Value | None, bool]:
    """Return the matrix that a product's second input is, and whether it is transposed on the way."""
    transposed = False
    while (node := value.producer()) is not None:
        if node.op_type == "Transpose":
            transposed = not transposed
        elif node.op_type != "Identity":
            return None, transposed
        value = _input(node, 0)
    tensor = value.const_value
    is_matrix = tensor is not None and tensor.dtype == ir.DataType.FLOAT and len(tensor.shape) == 2
    return (value if is_matrix else None), transposed


def _is_vector(value: ir.Value) -> bool:
    """Return whether a value is a constant that broadcasts over the last dimension alone."""
    tensor = ir.convenience.get_const_tensor(value)
    return tensor is not None and all(size == 1 for size in tensor.shape.numpy()[:-1])


def _input(node: ir.Node, number: int) -> ir.Value:
    value = node.inputs[number]
    assert value is not None  # both operators require it
    return value
