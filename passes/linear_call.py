"""X W + b over the last axis with constant W and b, read from MatMul, Gemm and Add; and moves that leave rows whole."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["LinearCall", "is_read_once", "moved_rows", "read_linear", "rebuilt_move"]


@dataclass(frozen=True)
class LinearCall:
    """`output` [.., D] = `data` [.., C] · `weight` [C, D] + `bias`, which is [D] or None; arrays of the graph's dtype.

    `product` is the MatMul or Gemm, `nodes` all that compute it, last first.
    """

    nodes: tuple[ir.Node, ...]
    data: ir.Value
    weight: Array
    bias: Array | None

    @property
    def output(self) -> ir.Value:
        return self.nodes[0].outputs[0]

    @property
    def name(self) -> str:
        """Prefix for what replaces it."""
        return self.nodes[-1].name or str(self.nodes[-1].outputs[0].name)

    @property
    def rows(self) -> int:
        """Number of vectors that are mapped."""
        return math.prod((static_shape(self.data) or ())[:-1])


def is_read_once(value: ir.Value) -> bool:
    """Whether exactly one operand reads `value`, so that what makes it dies when that reader is rewritten."""
    return len(list(value.uses())) == 1 and not value.is_graph_output()


def read_linear(value: ir.Value | None) -> LinearCall | None:
    """How `value` is made, where that is X W, X W + b or a Gemm with constant W and b, in float32 or float64 and with
    static shapes; else None."""
    node = None if value is None else value.producer()
    if node is None or node.domain or node.op_type not in ("Add", "MatMul", "Gemm"):
        return None
    if node.op_type != "Add":
        return _read_product(node)
    biases = [constant_array(operand) for operand in node.inputs]
    operands = [operand for operand, bias in zip(node.inputs, biases, strict=True) if bias is None]
    if len(operands) != 1 or operands[0] is None or not is_read_once(operands[0]):
        return None
    producer = operands[0].producer()
    call = _read_product(producer) if producer is not None and producer.op_type == "MatMul" else None
    if call is None or static_shape(node.outputs[0]) != static_shape(call.output):
        return None
    bias = _as_row(next(bias for bias in biases if bias is not None), call.weight.shape[1])
    return None if bias is None else LinearCall((node, *call.nodes), call.data, call.weight, bias)


def _read_product(node: ir.Node) -> LinearCall | None:
    if node.domain or node.op_type not in ("MatMul", "Gemm"):
        return None
    data, weight, bias = node.inputs[0], constant_array(node.inputs[1]), None
    if data is None or weight is None or weight.ndim != 2 or constant_array(data) is not None:
        return None
    shape = static_shape(data)
    if not shape or len(shape) < 2 or data.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        return None
    if node.op_type == "Gemm":
        alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
        if node.attributes.get_int("transA", 0) or (alpha, beta) != (1.0, 1.0):
            return None
        weight = weight.T if node.attributes.get_int("transB", 0) else weight
        if len(node.inputs) > 2 and node.inputs[2] is not None:
            constant = constant_array(node.inputs[2])
            bias = None if constant is None else _as_row(constant, weight.shape[1])
            if bias is None:
                return None
    return LinearCall((node,), data, weight, bias)


def _as_row(bias: Array, channels: int) -> Array | None:
    """[D], where it is the same for all rows."""
    if bias.size not in (1, channels) or (bias.size > 1 and bias.shape[-1] != channels):
        return None
    return np.broadcast_to(bias.reshape(-1), (channels,))


def moved_rows(value: ir.Value) -> ir.Value | None:
    """What `value` is made of where its node only moves whole rows (last axes) about; else None."""
    node = value.producer()
    if node is None or node.domain or not node.inputs or node.inputs[0] is None:
        return None
    before, after = static_shape(node.inputs[0]), static_shape(value)
    if not before or not after or before[-1] != after[-1]:
        return None
    if node.op_type == "Transpose":
        return node.inputs[0] if node.attributes.get_ints("perm", (0,))[-1] == len(after) - 1 else None
    # Equal last axes and row-major order: each row stays whole.
    return node.inputs[0] if node.op_type in ("Reshape", "Squeeze", "Unsqueeze", "Flatten") else None


def rebuilt_move(builder: NodeBuilder, node: ir.Node, data: ir.Value) -> ir.Value:
    """The move of `node` (one that `moved_rows` knows) applied to rows of another length."""
    shape = (*(static_shape(node.outputs[0]) or ())[:-1], (static_shape(data) or ())[-1])
    if node.op_type == "Transpose":
        moved = builder.node("Transpose", data, perm=tuple(node.attributes.get_ints("perm", ())))
    else:
        moved = builder.node("Reshape", data, builder.integers("shape", *shape))
    moved.type, moved.shape = data.type, ir.Shape(shape)
    return moved
