"""The way back from a size that stood in for a symbolic dimension (`samonnx.passes.stand_in`)."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import add_initializer, constant_array, static_shape, unused_name
from samonnx.passes.interface import Array
from samonnx.passes.shape_inference import infer_shapes
from samonnx.passes.stand_in import SHAPE_OPERANDS, StandIn, StandInError, attribute_integers

__all__ = ["symbolic_again"]

_BROADCASTING = frozenset({"Add", "And", "Div", "Equal", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Where", "Xor"})
"""Operators that repeat an operand along the axes that another one has."""


def symbolic_again(model: ir.Model, stand_in: StandIn) -> None:
    """Puts the symbol back where the stand-in is, in place; the model is of opset 15 or later.

    A shape operand becomes one with -1 where one dimension hangs on the symbol (`Reshape`), or with the symbol's size
    read off an input (`Expand`, `ConstantOfShape`); a tensor that repeats itself along the symbol is stored once.

    Raises:
        StandInError: a constant or an attribute that hangs on the stand-in and is no shape.
    """
    graph = model.graph
    infer_shapes(model)
    size = _Size(graph, stand_in)
    for node in list(graph):
        _refuse_attributes(node, stand_in)
        place = None if node.domain else SHAPE_OPERANDS.get(node.op_type)
        for index, value in enumerate(node.inputs):
            array = None if value is None else constant_array(value)
            if value is None or array is None:
                continue
            if index == place:
                _write_shape(node, index, array, stand_in, size)
            elif any(stand_in.divides(dim) for dim in array.shape):
                node.replace_input_with(index, size.repeated(value, array, node))
            elif array.size <= 64 and array.dtype.kind == "i" and any(stand_in.divides(int(n)) for n in array.flat):
                raise StandInError(
                    f"graph {graph.name!r}: input {index} of node {node.name!r} ({node.op_type}) is {array.tolist()}, "
                    f"which hangs on the symbolic dimension {stand_in.symbol!r} and is no shape"
                )
    for value in list(graph.initializers.values()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[str(value.name)]
    for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
        shape = static_shape(value)
        if shape is not None and any(map(stand_in.divides, shape)):
            value.shape = ir.Shape([stand_in.dim(dim) for dim in shape])
    infer_shapes(model)


def _refuse_attributes(node: ir.Node, stand_in: StandIn) -> None:
    for name, attribute in node.attributes.items():
        if any(map(stand_in.divides, attribute_integers(attribute))):
            raise StandInError(
                f"node {node.name!r} ({node.op_type}): its attribute {name} is {attribute.value}, which hangs on the "
                f"symbolic dimension {stand_in.symbol!r}"
            )


def _write_shape(node: ir.Node, index: int, array: Array, stand_in: StandIn, size: _Size) -> None:
    target = [int(dim) for dim in array]
    hanging = [axis for axis, dim in enumerate(target) if stand_in.divides(dim)]
    if not hanging:
        return
    if node.op_type == "Reshape" and len(hanging) == 1:
        given = static_shape(node.outputs[0])
        assert given is not None  # all shapes were static
        written = [-1 if stand_in.divides(dim) else dim for dim in given]
        node.replace_input_with(index, add_initializer(size.graph, f"{node.name}/shape", np.array(written, np.int64)))
        return
    if node.op_type == "Expand":
        came = static_shape(node.inputs[0]) or ()
        aligned = (1,) * (len(target) - len(came)) + came
        # A dimension that is there already need not be asked for.
        target = [1 if came_dim == dim else dim for came_dim, dim in zip(aligned[-len(target) :], target, strict=True)]
    node.replace_input_with(index, size.shape(target, node))


class _Size:
    """The symbol's size as a value of the graph, made when it is first needed."""

    def __init__(self, graph: ir.Graph, stand_in: StandIn) -> None:
        self.graph, self._stand_in = graph, stand_in
        self._value: ir.Value | None = None
        self._shapes: dict[tuple[int, ...], ir.Value] = {}
        self._stored: dict[str, ir.Value] = {}
        self._expanded: dict[str, ir.Value] = {}
        self._sides: dict[int, ir.Value] = {}
        self._last: ir.Node | None = None

    def shape(self, target: list[int], before: ir.Node) -> ir.Value:
        """i64 [rank]: `target` with the symbol's multiples for those of the stand-in."""
        key = tuple(target)
        if not any(map(self._stand_in.divides, target)):
            return add_initializer(self.graph, f"{before.name}/shape", np.array(target, np.int64))
        if key not in self._shapes:
            parts = [self._part(dim) for dim in target]
            self._shapes[key] = parts[0] if len(parts) == 1 else self._made("Concat", parts, len(target), {"axis": 0})
        return self._shapes[key]

    def repeated(self, value: ir.Value, array: Array, by: ir.Node) -> ir.Value:
        """The constant `value` for the node `by`: stored once, repeated along the symbol unless the node does that."""
        name = str(value.name)
        axes = [axis for axis, dim in enumerate(array.shape) if self._stand_in.divides(dim)]
        if name not in self._stored:
            once = array[tuple(slice(0, 1) if axis in axes else slice(None) for axis in range(array.ndim))]
            if any(array.shape[axis] != self._stand_in.size for axis in axes) or not np.array_equal(
                np.broadcast_to(once, array.shape), array, equal_nan=array.dtype.kind == "f"
            ):
                raise StandInError(
                    f"graph {self.graph.name!r}: the constant {name!r} of shape {list(array.shape)} hangs on the "
                    f"symbolic dimension {self._stand_in.symbol!r} and is not the same along it"
                )
            self._stored[name] = add_initializer(self.graph, f"{name}/once", once)
        if not by.domain and by.op_type in _BROADCASTING and self._others_have(by, axes, array.ndim):
            return self._stored[name]
        if name not in self._expanded:
            target = [dim if axis in axes else 1 for axis, dim in enumerate(array.shape)]
            self._expanded[name] = self._made("Expand", [self._stored[name], self.shape(target, by)], 0, {}, value)
        return self._expanded[name]

    def _others_have(self, by: ir.Node, axes: list[int], rank: int) -> bool:
        """Whether another operand of `by` has the symbol on each of these axes, aligned from the right, so that the
        result has it too. Constants do not count: they are stored once themselves."""
        others = [other for other in by.inputs if other is not None and constant_array(other) is None]
        shapes = [static_shape(other) or () for other in others]
        return all(
            any(len(shape) >= rank - axis and self._stand_in.divides(shape[axis - rank]) for shape in shapes)
            for axis in axes
        )

    def _part(self, dim: int) -> ir.Value:
        if not self._stand_in.divides(dim):
            if dim not in self._sides:
                self._sides[dim] = add_initializer(self.graph, f"size_{dim}", np.array([dim], np.int64))
            return self._sides[dim]
        if self._value is None:
            given, axis = next(
                (value, list(shape).index(self._stand_in.size))
                for value in self.graph.inputs
                if (shape := static_shape(value)) is not None and self._stand_in.size in shape
            )
            self._value = self._made("Shape", [given], 1, {"start": axis, "end": axis + 1})
        times = self._stand_in.times(dim)
        if times == 1:
            return self._value
        return self._made("Mul", [self._value, add_initializer(self.graph, f"times_{times}", np.array([times]))], 1, {})

    def _made(
        self, op: str, inputs: list[ir.Value], length: int, attributes: dict[str, int], like: ir.Value | None = None
    ) -> ir.Value:
        """A node at the graph's beginning, behind those made so far: it reads inputs, constants and these only."""
        node = ir.node(op, inputs, attributes)
        value = node.outputs[0]
        value.name = node.name = unused_name(self.graph, f"{self._stand_in.symbol}/{op}")
        value.type = ir.TensorType(ir.DataType.INT64) if like is None else like.type
        value.shape = ir.Shape([length]) if like is None else like.shape
        if self._last is None:
            self.graph.insert_before(self.graph[0], node)
        else:
            self.graph.insert_after(self._last, node)
        self._last = node
        return value
