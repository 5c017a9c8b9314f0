"""Maps that transposed convolutions enlarge, kept by phase: what each operator becomes on them.

A map [N, C, k·h, k·w] that was made from a grid of h x w cells is held as [N, P, C, h·w], with P = k² phases: the
pixels at the same place within their cell. Pixel (k·u + i, k·v + j) lies at phase (i, j), cell (u, v); where k is a
product of several factors, the phases of the first enlargement come first. Whatever works pixel by pixel does not see
the difference, and a tile of a transposed convolution is more phases of the same cell.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from samonnx.passes.convolution_call import Convolution, UnreadableConvolutionError, read_convolution
from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["PhaseMap", "PhaseWriter", "from_phases"]

_UNARY = frozenset({"Gelu", "Relu", "Erf", "Sqrt", "Tanh", "Sigmoid", "Neg", "Exp", "Abs", "Identity", "Softplus"})
_BINARY = frozenset({"Add", "Sub", "Mul", "Div", "Pow"})
_REDUCTIONS = frozenset({"ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin"})


@dataclass(frozen=True)
class PhaseMap:
    """`value` [N, P, C, h·w] stands for a map [N, C, k·h, k·w] (`flat`: for [N, C, k·h·k·w]); `factors` are the
    enlargements, whose product is k."""

    value: ir.Value
    batch: int
    channels: int
    grid: tuple[int, int]
    factors: tuple[int, ...]
    flat: bool = False

    @property
    def phases(self) -> int:
        return math.prod(self.factors) ** 2

    @property
    def by_phase(self) -> tuple[int, ...]:
        """[N, P, C, h·w], the shape of `value`."""
        return (self.batch, self.phases, self.channels, math.prod(self.grid))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the map that it stands for."""
        height, width = (math.prod(self.factors) * side for side in self.grid)
        return (self.batch, self.channels, height * width) if self.flat else (self.batch, self.channels, height, width)


class PhaseWriter:
    """Writes, for one node of the graph, what it becomes on maps by phase."""

    def __init__(self, build: NodeBuilder, maps: dict[ir.Value, PhaseMap]) -> None:
        self._build, self._maps = build, maps
        self.moved = 0
        """Elements that were laid out by phase for operands from elsewhere."""

    def write(self, node: ir.Node) -> PhaseMap | None:
        """The output of `node` by phase, of whose operands at least one is; None where it cannot be kept so."""
        if node.domain or len(node.outputs) != 1:
            return None
        data = None if node.inputs[0] is None else self._maps.get(node.inputs[0])
        if node.op_type in _UNARY and data is not None:
            return replace(data, value=self._like(node, data.by_phase, data.value))
        if node.op_type in _BINARY:
            return self._binary(node)
        if node.op_type in _REDUCTIONS and data is not None:
            return self._over_channels(node, data)
        if node.op_type in ("Conv", "ConvTranspose") and data is not None:
            return self._convolution(node, data)
        if node.op_type == "Reshape" and data is not None:
            return self._reshape(node, data)
        if node.op_type == "MatMul":
            return self._product(node)
        return None

    def start(self, value: ir.Value) -> PhaseMap | None:
        """A map [N, C, h, w] as one phase."""
        shape = static_shape(value)
        if shape is None or len(shape) != 4:
            return None
        batch, channels, height, width = shape
        flat = self._reshaped(value, (batch, 1, channels, height * width))
        return PhaseMap(flat, batch, channels, (height, width), ())

    def _like(self, node: ir.Node, shape: tuple[int, ...], data: ir.Value, *more: ir.Value) -> ir.Value:
        """The operator of `node` on other operands; its output is of the dtype of `data`."""
        made = _typed(self._build.node(node.op_type, data, *more), data, shape)
        made_by = made.producer()
        assert made_by is not None
        for name, attribute in node.attributes.items():
            made_by.attributes[name] = attribute
        return made

    def _matmul(self, left: ir.Value, right: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return _typed(self._build.node("MatMul", left, right), right, shape)

    def _reshaped(self, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        return _typed(self._build.node("Reshape", value, self._build.integers("shape", *shape)), value, shape)

    def _binary(self, node: ir.Node) -> PhaseMap | None:
        left, right = node.inputs
        shape = static_shape(node.outputs[0])
        known = [self._maps[operand] for operand in (left, right) if operand is not None and operand in self._maps]
        if left is None or right is None or not known or shape is None or len(shape) != 4:
            return None
        first = known[0]
        if first.flat or any((one.grid, one.factors, one.flat) != (first.grid, first.factors, False) for one in known):
            return None
        first_operand, second_operand = self._operand(left, first), self._operand(right, first)
        if first_operand is None or second_operand is None:
            return None
        result = replace(first, batch=shape[0], channels=shape[1])
        return replace(result, value=self._like(node, result.by_phase, first_operand, second_operand))

    def _operand(self, value: ir.Value, beside: PhaseMap) -> ir.Value | None:
        """By phase, broadcasting beside `beside` as before."""
        if value in self._maps:
            return self._maps[value].value
        shape = static_shape(value)
        if shape is None or len(shape) > 4 or value.type is None:
            return None
        batch, channels, *space = (1,) * (4 - len(shape)) + shape
        if space == [1, 1]:
            array = constant_array(value)
            if array is not None:
                return self._build.constant("channels", np.ascontiguousarray(array.reshape(batch, 1, channels, 1)))
            return self._reshaped(value, (batch, 1, channels, 1))
        if tuple(space) != beside.shape[2:]:
            return None
        self.moved += math.prod(shape)
        return self._to_phases(value, beside, batch, channels)

    def _to_phases(self, value: ir.Value, like: PhaseMap, batch: int, channels: int) -> ir.Value:
        """[N, C, k·h, k·w] → [N, P, C, h·w]."""
        count = len(like.factors)
        height, width = like.grid
        split = self._reshaped(value, (batch, channels, height, *like.factors, width, *like.factors))
        rows, columns = range(3, 3 + count), range(4 + count, 4 + 2 * count)
        pairs = [axis for pair in zip(rows, columns, strict=True) for axis in pair]
        turned = self._build.node("Transpose", split, perm=(0, *pairs, 1, 2, 3 + count))
        factors = [factor for factor in like.factors for _ in range(2)]
        _typed(turned, value, (batch, *factors, channels, height, width))
        return self._reshaped(turned, (batch, like.phases, channels, height * width))

    def _over_channels(self, node: ir.Node, data: PhaseMap) -> PhaseMap | None:
        axes = constant_array(node.inputs[1]) if len(node.inputs) > 1 else None
        rank = len(data.shape)
        if axes is None or not node.attributes.get_int("keepdims", 1) or [int(a) % rank for a in axes.ravel()] != [1]:
            return None
        result = replace(data, channels=1)
        return replace(result, value=self._like(node, result.by_phase, data.value, self._build.integers("axes", 2)))

    def _convolution(self, node: ir.Node, data: PhaseMap) -> PhaseMap | None:
        try:
            map_ = read_convolution(node).map
        except UnreadableConvolutionError:
            return None
        if data.flat:
            return None
        if map_.is_pointwise:
            return self._mapped(data, map_, map_.weight.reshape(map_.out_channels, -1), ())
        side = map_.kernel[0]
        if not map_.is_tiling or map_.kernel != (side, side) or map_.group != 1:
            return None
        tiles = map_.weight.transpose(2, 3, 1, 0).reshape(-1, map_.in_channels)
        return self._mapped(data, map_, tiles, (side,))

    def _mapped(self, data: PhaseMap, map_: Convolution, weight: Array, more: tuple[int, ...]) -> PhaseMap:
        matrix = self._build.constant("weight", np.ascontiguousarray(weight))
        value = self._matmul(matrix, data.value, (*data.by_phase[:2], len(weight), data.by_phase[3]))
        result = replace(data, channels=map_.out_channels, factors=(*data.factors, *more))
        if more:
            value = self._reshaped(value, result.by_phase)
        if map_.bias is not None:
            bias = self._build.constant("bias", np.ascontiguousarray(map_.bias.reshape(1, 1, -1, 1)))
            value = _typed(self._build.node("Add", value, bias), value, result.by_phase)
        return replace(result, value=value)

    def _reshape(self, node: ir.Node, data: PhaseMap) -> PhaseMap | None:
        """From a map to one row of pixels a channel, or back."""
        other = replace(data, flat=not data.flat)
        return other if static_shape(node.outputs[0]) == other.shape else None

    def _product(self, node: ir.Node) -> PhaseMap | None:
        """Rows times the channels of a flat map: [N or 1, M, C] or [M, C] · [N, C, pixels]."""
        rows, value = node.inputs
        data = None if value is None else self._maps.get(value)
        shape = static_shape(rows)
        if data is None or not data.flat or rows is None or rows in self._maps:
            return None
        if shape is None or len(shape) not in (2, 3) or rows.type is None:
            return None
        batch, count, channels = (1,) * (3 - len(shape)) + shape
        if batch not in (1, data.batch):
            return None
        result = replace(data, channels=count)
        left = self._reshaped(rows, (batch, 1, count, channels))
        return replace(result, value=self._matmul(left, data.value, result.by_phase))


def from_phases(build: NodeBuilder, map_: PhaseMap) -> ir.Value:
    """The map that `map_` stands for, as it was."""
    count = len(map_.factors)
    height, width = map_.grid
    pairs = [factor for factor in map_.factors for _ in range(2)]
    apart = (map_.batch, *pairs, map_.channels, height, width)
    split = _typed(build.node("Reshape", map_.value, build.integers("phases", *apart)), map_.value, apart)
    rows, columns = range(1, 1 + 2 * count, 2), range(2, 2 + 2 * count, 2)
    perm = (0, 1 + 2 * count, 2 + 2 * count, *rows, 3 + 2 * count, *columns)
    turned = _typed(build.node("Transpose", split, perm=perm), map_.value, [apart[axis] for axis in perm])
    whole = build.node("Reshape", turned, build.integers("map", *map_.shape))
    return _typed(whole, map_.value, map_.shape)


def _typed(value: ir.Value, like: ir.Value, shape: Sequence[int]) -> ir.Value:
    """`value`, of the dtype of `like` and of this shape."""
    value.type, value.shape = like.type, ir.Shape(shape)
    return value
