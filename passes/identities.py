"""Identities that remove a node without knowing all of its inputs; every one of them keeps the bits.

Each rule looks at one node of the standard domain and returns the value that its first output equals (an older value,
or a new one built through `Rewriter`), or None. `x` stands for any value, `c` for a constant; "→ x" includes an
`Expand` to the node's shape where `x` was broadcast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import add_initializer, constant_array, static_shape, uniform_scalar
from samonnx.passes.interface import Array

__all__ = ["RULES", "Rewriter", "simplified"]

_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16})


class Rewriter:
    """Builds what a rule puts in place of `node`, in front of it."""

    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph = graph
        self._node = node

    def constant(self, array: Array) -> ir.Value:
        """A new initialiser."""
        return add_initializer(self._graph, f"{self._node.outputs[0].name}/constant", array)

    def node(
        self,
        op_type: str,
        *inputs: ir.Value | None,
        attributes: Mapping[str, int | ir.TensorProtocol | ir.Attr] | None = None,
    ) -> ir.Value:
        """A new standard node with one output, of the type and shape of the output that it is to replace."""
        old = self._node.outputs[0]
        new = ir.node(op_type, list(inputs), dict(attributes or {}), name=f"{self._node.name or old.name}/{op_type}")
        new.outputs[0].name = f"{old.name}/{op_type}"
        new.outputs[0].type, new.outputs[0].shape = old.type, old.shape
        self._graph.insert_before(self._node, new)
        return new.outputs[0]

    def broadcast(self, value: ir.Value) -> ir.Value | None:
        """`value` in the shape of the node's first output; None where the shapes are not known well enough."""
        output = self._node.outputs[0]
        if value.dtype is None or output.dtype is None or value.dtype != output.dtype:
            return None
        if _same_shape(value, output):
            return value
        shape = static_shape(output)
        return None if shape is None else self.node("Expand", value, self.constant(np.array(shape, np.int64)))

    def fill(self, scalar: Array) -> ir.Value | None:
        """A `ConstantOfShape` of the node's output shape; None where that is not static."""
        shape = static_shape(self._node.outputs[0])
        if shape is None:
            return None
        value = ir.tensor(np.asarray(scalar).reshape(1))
        return self.node("ConstantOfShape", self.constant(np.array(shape, np.int64)), attributes={"value": value})


Rule = Callable[[ir.Node, Rewriter], ir.Value | None]


def _same_shape(left: ir.Value, right: ir.Value) -> bool:
    """Whether the shapes are known and equal; equal symbolic dimensions must have a name."""
    if left.shape is None or right.shape is None or len(left.shape) != len(right.shape):
        return False
    return all(
        one == other and (isinstance(one, int) or one.value is not None)
        for one, other in zip(left.shape, right.shape, strict=True)
    )


def _operand(node: ir.Node, index: int) -> ir.Value | None:
    return node.inputs[index] if index < len(node.inputs) else None


def _identity(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Identity(x) → x."""
    return node.inputs[0]


def _cast(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Cast(x) to the dtype of x → x."""
    value = node.inputs[0]
    if value is None or value.dtype is None:
        return None
    return value if value.dtype == ir.DataType(node.attributes.get_int("to", 0)) else None


def _cast_like(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """CastLike(x, y) → x, or Cast(x): only the dtype of y counts, so that a constant x can fold."""
    value, like = node.inputs
    if value is None or value.dtype is None or like is None or like.dtype is None:
        return None
    if value.dtype == like.dtype:
        return value
    return rewriter.node("Cast", value, attributes={**node.attributes, "to": int(like.dtype)})


def _keeps_shape(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Expand, Tile, Reshape, Squeeze, Unsqueeze to the shape that x has already → x.

    All five keep the row-major order of elements, so that equal shapes mean equal tensors.
    """
    value = node.inputs[0]
    return value if value is not None and _same_shape(value, node.outputs[0]) else None


def _reshape(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Reshape(Reshape(x)) → Reshape(x): only the last shape counts. Squeeze, Unsqueeze and Flatten are reshapes too."""
    kept = _keeps_shape(node, rewriter)
    if kept is not None:
        return kept
    inner = node.inputs[0].producer() if node.inputs[0] is not None else None
    shape = static_shape(node.outputs[0])
    if inner is None or inner.domain or inner.op_type not in {"Reshape", "Squeeze", "Unsqueeze", "Flatten"}:
        return None
    source = inner.inputs[0]
    if source is None or shape is None or 0 in shape:  # 0 would mean "copy this dimension"
        return None
    return rewriter.node("Reshape", source, rewriter.constant(np.array(shape, np.int64)))


def _slice(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Slice(x) with steps of 1 that leaves the shape as it is takes everything → x."""
    value, steps = node.inputs[0], _operand(node, 4)
    shape = static_shape(value)
    if steps is not None:
        array = constant_array(steps)
        if array is None or not (array == 1).all():
            return None
    return value if shape is not None and shape == static_shape(node.outputs[0]) else None


def _pad(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Pad(x) by nothing → x."""
    pads = constant_array(_operand(node, 1))
    return node.inputs[0] if pads is not None and not pads.any() else None


def _transpose(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Transpose(x) that leaves the axes where they are → x."""
    perm = node.attributes.get_ints("perm", ())
    return node.inputs[0] if perm and list(perm) == sorted(perm) else None


def _concat(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Concat(x) → x; operands of length 0 along the axis drop out."""
    axis = node.attributes.get_int("axis", 0)
    operands = [value for value in node.inputs if value is not None]
    shapes = [static_shape(value) for value in operands]
    full = [value for value, shape in zip(operands, shapes, strict=True) if shape is None or shape[axis] != 0]
    full = full or operands[:1]
    if len(full) == 1:
        return full[0]
    return rewriter.node("Concat", *full, attributes={"axis": axis}) if len(full) < len(node.inputs) else None


def _shape(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Shape(x) of static dimensions → constant; Size likewise."""
    value = node.inputs[0]
    if value is None or value.shape is None:
        return None
    dims = list(value.shape)
    if node.op_type == "Shape":
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(dims))
        dims = dims[start:end]
    numbers = [dim for dim in dims if isinstance(dim, int)]
    if len(numbers) < len(dims):
        return None
    array = np.array(numbers, np.int64)
    return rewriter.constant(array if node.op_type == "Shape" else array.prod(dtype=np.int64))


def _logic(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """And(x, false) → false; And(x, true) → x; Or(x, true) → true; Or(x, false) → x; And(x, x), Or(x, x) → x."""
    absorbing = node.op_type == "Or"
    left, right = node.inputs
    if left is None or right is None:
        return None
    for scalar, other in ((uniform_scalar(left), right), (uniform_scalar(right), left)):
        if scalar is not None:
            return rewriter.fill(scalar) if bool(scalar) == absorbing else rewriter.broadcast(other)
    return left if left is right else None


def _xor(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Xor(x, false) → x."""
    left, right = node.inputs
    if left is None or right is None:
        return None
    for scalar, other in ((uniform_scalar(left), right), (uniform_scalar(right), left)):
        if scalar is not None and not scalar:
            return rewriter.broadcast(other)
    return None


def _not(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Not(Not(x)) → x."""
    inner = node.inputs[0].producer() if node.inputs[0] is not None else None
    return inner.inputs[0] if inner is not None and inner.op_type == "Not" and not inner.domain else None


def _where(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Where(true, x, y) → x; Where(false, x, y) → y; Where(c, x, x) → x."""
    condition, taken, otherwise = node.inputs
    if taken is None or otherwise is None:
        return None
    if taken is otherwise:
        return rewriter.broadcast(taken)
    scalar = uniform_scalar(condition)
    return None if scalar is None else rewriter.broadcast(taken if scalar else otherwise)


def _neutral(value: ir.Value, neutral: float, *, negative_zero: bool = False) -> bool:
    scalar = uniform_scalar(value)
    if scalar is None or scalar != neutral:
        return False
    return value.dtype not in _FLOATS or neutral != 0 or bool(np.signbit(scalar)) == negative_zero


def _add(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """x + 0 → x for integers, x + (−0.0) → x for floats. Declines x + 0.0: it turns −0.0 into 0.0."""
    left, right = node.inputs
    if left is None or right is None:
        return None
    for scalar, other in ((left, right), (right, left)):
        if _neutral(scalar, 0, negative_zero=True):
            return rewriter.broadcast(other)
    return None


def _sub(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """x − 0 → x (for floats too: −0.0 − 0.0 = −0.0); declines x − (−0.0)."""
    value, other = node.inputs
    return rewriter.broadcast(value) if value is not None and other is not None and _neutral(other, 0) else None


def _mul(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """x · 1 → x. Declines x · 0.0: NaN, infinity and the sign of zero survive it."""
    left, right = node.inputs
    if left is None or right is None:
        return None
    for scalar, other in ((left, right), (right, left)):
        if _neutral(scalar, 1):
            return rewriter.broadcast(other)
    return None


def _div(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """x / 1 → x."""
    value, other = node.inputs
    return rewriter.broadcast(value) if value is not None and other is not None and _neutral(other, 1) else None


def _attention(node: ir.Node, rewriter: Rewriter) -> ir.Value | None:
    """Attention under a mask that lets everything through (true, or 0.0 to add) → without mask."""
    mask = _operand(node, 3)
    scalar = uniform_scalar(mask)
    if scalar is None or (not scalar if scalar.dtype == np.bool_ else scalar != 0):
        return None
    rest = [*node.inputs[:3], None, *node.inputs[4:]]
    while rest[-1] is None:
        rest.pop()
    return rewriter.node("Attention", *rest, attributes=node.attributes)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Identity": _identity,
        "Cast": _cast,
        "CastLike": _cast_like,
        "Expand": _keeps_shape,
        "Tile": _keeps_shape,
        "Reshape": _reshape,
        "Squeeze": _reshape,
        "Unsqueeze": _reshape,
        "Flatten": _reshape,
        "Slice": _slice,
        "Pad": _pad,
        "Transpose": _transpose,
        "Concat": _concat,
        "Shape": _shape,
        "Size": _shape,
        "And": _logic,
        "Or": _logic,
        "Xor": _xor,
        "Not": _not,
        "Where": _where,
        "Attention": _attention,
        "Add": _add,
        "Sub": _sub,
        "Mul": _mul,
        "Div": _div,
    }
)
"""Operator of the standard domain → its rule."""


def simplified(graph: ir.Graph, node: ir.Node) -> ir.Value | None:
    """The value that the only output of `node` equals by one of the rules, or None."""
    if node.domain or len(node.outputs) != 1 or node.op_type not in RULES:
        return None
    return RULES[node.op_type](node, Rewriter(graph, node))
