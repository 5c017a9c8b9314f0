"""The pass `pad_before_broadcast`: zeros are put around the small operands of a sum instead of the large result."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["PadBeforeBroadcast"]

_KEEP_ZERO = frozenset({"Add", "Sub", "Mul"})
_FLOATS = frozenset({ir.DataType.FLOAT, ir.DataType.DOUBLE})


@dataclass(frozen=True)
class PadBeforeBroadcast(GraphPass):
    """Pad(A + B) → Pad(A) + Pad(B), where A and B are smaller than A + B; also with a reshape in between.

        A [8,200,72,1], B [8,200,1,72] ── Add ── Reshape [8,200,5184] ── Pad ── y [8,201,5184]
        →   A ── Pad ──┐
            B ── Pad ──┴ Add [8,201,72,72] ── Reshape ── y

    The decoder of the detector adds a position bias of rows and columns to its logits, and a row of zeros for the
    presence token: six copies of 32 MiB an image, which become twelve of 0.5 MiB. Add may be Sub or Mul.

    Exact:    bit for bit: 0 + 0, 0 − 0 and 0 · 0 are 0, and no other element changes. Only axes along which neither
              operand is broadcast are padded.
    Declines: other pad modes and values, pads that are not constant or negative (they crop), padded axes that the
              reshape takes apart or puts together, a sum or a reshape that something else reads, shapes that are not
              static, dtypes other than float32 and float64, operands together as large as the result.
    Cost:     one more Pad; the elements copied become those of A and B.
    """

    name: ClassVar[str] = "pad_before_broadcast"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        for node in list(model.graph):
            pads = _zero_pads(node)
            found = None if pads is None else _padded_sum(node, pads)
            if found is not None:
                _rewrite(model.graph, node, found)
                modified = True
        return PassResult(model, modified)


@dataclass(frozen=True)
class _PaddedSum:
    """Add, Sub or Mul behind a Pad: zeros before and after, by axis of the sum."""

    node: ir.Node
    reshape: ir.Node | None
    pads: dict[int, tuple[int, int]]


def _zero_pads(node: ir.Node) -> dict[int, tuple[int, int]] | None:
    """(before, after) by axis, of a Pad with constant zeros; None for any other node."""
    if node.op_type != "Pad" or node.domain or node.attributes.get_string("mode", "constant") != "constant":
        return None
    shape, operands = static_shape(node.inputs[0]), [*node.inputs, None, None]
    pads, value, axes = constant_array(operands[1]), operands[2], operands[3]
    if shape is None or pads is None or (pads < 0).any() or node.outputs[0].dtype not in _FLOATS:
        return None
    if value is not None:
        fill = constant_array(value)
        if fill is None or fill != 0 or np.signbit(fill).any():
            return None
    numbers = np.arange(len(shape)) if axes is None else constant_array(axes)
    if numbers is None:
        return None
    named = [int(axis) % len(shape) for axis in numbers]
    before, after = np.split(pads, 2)
    return {axis: (int(b), int(a)) for axis, b, a in zip(named, before, after, strict=True) if b or a}


def _padded_sum(pad: ir.Node, pads: dict[int, tuple[int, int]]) -> _PaddedSum | None:
    reshape, node = None, _only_read_by(pad)
    if node is not None and node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten") and not node.domain:
        inside, outside = static_shape(node.inputs[0]), static_shape(node.outputs[0])
        axes = _kept_axes(inside, outside, sorted(pads)) if inside and outside else None
        if axes is None:
            return None
        pads = {inner: pads[axis] for axis, inner in axes.items()}
        reshape, node = node, _only_read_by(node)
    if node is None or node.domain or node.op_type not in _KEEP_ZERO or not pads:
        return None
    result = static_shape(node.outputs[0])
    shapes = [static_shape(operand) for operand in node.inputs]
    if result is None or any(shape is None or len(shape) != len(result) for shape in shapes):
        return None
    if any(shape[axis] != result[axis] for shape in shapes if shape is not None for axis in pads):
        return None
    small = sum(math.prod(_padded(shape, pads)) for shape in shapes if shape is not None)
    return _PaddedSum(node, reshape, pads) if small < math.prod(_padded(result, pads)) else None


def _only_read_by(node: ir.Node) -> ir.Node | None:
    """What makes the data of `node`, if nothing else reads it."""
    value = node.inputs[0]
    if value is None or value.is_graph_output() or len(value.uses()) != 1:
        return None
    return value.producer()


def _kept_axes(inside: tuple[int, ...], outside: tuple[int, ...], axes: list[int]) -> dict[int, int] | None:
    """Axis of `outside` → axis of `inside` that a reshape leaves whole; None if it does not for one of `axes`.

    The order is kept, so that axes of length 1, of which any would do, get one each.
    """
    found: dict[int, int] = {}
    start = 0
    for axis in axes:
        before, size = math.prod(outside[:axis]), outside[axis]
        fitting = (i for i in range(start, len(inside)) if inside[i] == size and math.prod(inside[:i]) == before)
        index = next(fitting, None)
        if index is None:
            return None
        found[axis], start = index, index + 1
    return found


def _padded(shape: tuple[int, ...], pads: dict[int, tuple[int, int]]) -> tuple[int, ...]:
    return tuple(size + sum(pads.get(axis, (0, 0))) for axis, size in enumerate(shape))


def _rewrite(graph: ir.Graph, pad: ir.Node, found: _PaddedSum) -> None:
    build = NodeBuilder(graph, pad.name or str(pad.outputs[0].name), pad)
    output = pad.outputs[0]
    rank = len(static_shape(found.node.outputs[0]) or ())
    befores, afters = zip(*(found.pads.get(axis, (0, 0)) for axis in range(rank)), strict=True)
    amounts = build.integers("pads", *befores, *afters)
    operands: dict[ir.Value, ir.Value] = {}
    for value in found.node.inputs:
        if value is not None and value not in operands:
            shape = _padded(static_shape(value) or (), found.pads)
            operands[value] = _typed(build.node("Pad", value, amounts), output, shape)
    result = build.node(found.node.op_type, *(operands[value] for value in found.node.inputs if value is not None))
    result = _typed(result, output, _padded(static_shape(found.node.outputs[0]) or (), found.pads))
    if found.reshape is not None:
        shape = static_shape(output) or ()
        result = _typed(build.node("Reshape", result, build.integers("shape", *shape)), output, shape)
    replace_value(graph, output, result)
    for dead in (pad, found.reshape, found.node):
        if dead is not None:
            graph.remove(dead, safe=True)


def _typed(value: ir.Value, like: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    value.type, value.shape = like.type, ir.Shape(shape)
    return value
