"""The part of a graph that depends on constants only, with the values that it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import onnx_ir as ir

from samonnx.passes.evaluation import RANDOM_OPERATORS, evaluate_node
from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array

__all__ = ["ConstantRegion", "constant_region"]

# DequantizeLinear would turn a table of 8-bit integers into one of floats; the other two are constants already.
_LEFT_ALONE = RANDOM_OPERATORS | {"DequantizeLinear", "Constant", "Identity"}


@dataclass(frozen=True)
class ConstantRegion:
    """Nodes that were evaluated, in graph order, and their outputs.

    Attributes:
        nodes: each one's inputs are constants or outputs of earlier nodes of the region.
        arrays: the outputs of these nodes.
        leaving: outputs that a node outside the region reads, or that are graph outputs.
    """

    nodes: tuple[ir.Node, ...]
    arrays: Mapping[ir.Value, Array]
    leaving: frozenset[ir.Value]

    def sources(self, node: ir.Node) -> frozenset[ir.Value]:
        """The initialisers that `node` of the region depends on."""
        found: set[ir.Value] = set()
        seen: set[ir.Node] = set()
        stack = [node]
        while stack:
            for value in stack.pop().inputs:
                producer = value.producer() if value is not None else None
                if value is not None and producer is None:
                    found.add(value)
                elif producer is not None and producer not in seen:
                    seen.add(producer)
                    stack.append(producer)
        return frozenset(found)

    def readers(self, initializer: ir.Value) -> frozenset[ir.Value] | None:
        """All values of the region that depend on `initializer`; None when a node outside the region reads it."""
        if initializer.is_graph_output():
            return None
        found: set[ir.Value] = set()
        stack = list(initializer.consumers())
        while stack:
            node = stack.pop()
            if node.outputs[0] not in self.arrays:
                if initializer in node.inputs:
                    return None
                continue
            new = [output for output in node.outputs if output not in found]
            found.update(new)
            stack += [user for output in new for user in output.consumers()]
        return frozenset(found)


def constant_region(model: ir.Model, *, largest_result: int | None) -> ConstantRegion:
    """Evaluates the main graph's constant nodes.

    Args:
        model: left unchanged.
        largest_result: bytes; nodes whose results are larger, or not of static shape, are not evaluated (nor what
            depends on them). None: no limit.
    """
    arrays: dict[ir.Value, Array] = {}
    nodes: list[ir.Node] = []
    for node in model.graph:
        if not _foldable(node, model, arrays):
            continue
        if largest_result is not None and not all(_at_most(output, largest_result) for output in node.outputs):
            continue
        inputs = [arrays.get(value) if value in arrays else constant_array(value) for value in node.inputs]
        outputs = evaluate_node(node, inputs, model.graph.opset_imports)
        if outputs is not None:
            nodes.append(node)
            arrays.update(zip(node.outputs, outputs, strict=True))
    members = set(nodes)
    leaving = frozenset(
        value for value in arrays if value.is_graph_output() or any(user not in members for user in value.consumers())
    )
    return ConstantRegion(tuple(nodes), MappingProxyType(arrays), leaving)


def _foldable(node: ir.Node, model: ir.Model, arrays: Mapping[ir.Value, Array]) -> bool:
    if node.domain or node.op_type in _LEFT_ALONE or node.op_identifier() in model.functions:
        return False
    if any(attr.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for attr in node.attributes.values()):
        return False
    if not all(_is_array(output) for output in node.outputs if output.name):
        return False
    return all(value is None or value in arrays or constant_array(value) is not None for value in node.inputs)


def _is_array(value: ir.Value) -> bool:
    """Whether it can be stored as an initialiser that the passes read: no sequence, no optional, no text."""
    plain = value.type is None or isinstance(value.type, ir.TensorType)
    return plain and value.dtype != ir.DataType.STRING


def _at_most(value: ir.Value, limit: int) -> bool:
    shape = static_shape(value)
    if not value.name:  # an optional output that is not asked for
        return True
    if shape is None or value.dtype is None:
        return False
    size = 1
    for dim in shape:
        size *= dim
    return size * value.dtype.itemsize <= limit
