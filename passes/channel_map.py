"""A `Conv`, `ConvTranspose`, `MatMul` or `Gemm` with constant weights, read as one linear map of channels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import onnx_ir as ir

from samonnx.passes.convolution_call import (
    ConvolutionCall,
    UnreadableConvolutionError,
    is_convolution,
    read_convolution,
)
from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["ChannelMap", "ChannelMapCall", "UnreadableChannelMapError", "read_channel_map"]


class UnreadableChannelMapError(Exception):
    """Why a node is not a linear map of channels with constant weights that it has for itself."""


@dataclass(frozen=True)
class ChannelMap:
    """`weight` is float64 [groups, out, in, taps] (out and in of one group), `bias` float64 [groups · out] or None.

    Each output channel is a sum over the inputs of its group, each at one or more places (taps).
    """

    weight: Array
    bias: Array | None

    def then(self, scale: Array, shift: Array) -> Self:
        """With · scale + shift, each [groups · out], after it."""
        groups, outputs = self.weight.shape[:2]
        weight = self.weight * scale.reshape(groups, outputs, 1, 1)
        return self._with(weight, shift if self.bias is None else self.bias * scale + shift)

    def after(self, scale: Array, shift: Array) -> Self:
        """With · scale + shift, each [groups · in], before it; where every tap of every output meets shifted data."""
        groups, outputs, inputs = self.weight.shape[:3]
        passed = np.einsum("goit,gi->go", self.weight, shift.reshape(groups, inputs)).reshape(groups * outputs)
        weight = self.weight * scale.reshape(groups, 1, inputs, 1)
        return self._with(weight, passed if self.bias is None else self.bias + passed)

    def _with(self, weight: Array, bias: Array) -> Self:
        """A bias of zeros is none, where there was none."""
        return replace(self, weight=weight, bias=bias if self.bias is not None or bias.any() else None)


@dataclass(frozen=True)
class ChannelMapCall(ABC):
    """`node` applies a linear map with constant weights to the channels of `data`, along `axis` of data and output."""

    node: ir.Node
    data: ir.Value
    axis: int

    @property
    def output(self) -> ir.Value:
        """Of the rank of `data`."""
        return self.node.outputs[0]

    @property
    def name(self) -> str:
        """Prefix for what replaces the node."""
        return self.node.name or str(self.output.name)

    @property
    @abstractmethod
    def keeps_shifts(self) -> bool:
        """Whether a constant added to the data is a constant added to the output: no output meets padding."""

    @property
    @abstractmethod
    def bias_nodes(self) -> int:
        """How many more nodes a bias takes."""

    @abstractmethod
    def map(self) -> ChannelMap:
        """The weights in float64; reads all of them."""

    @abstractmethod
    def build(self, builder: NodeBuilder, data: ir.Value, map_: ChannelMap) -> ir.Value:
        """The output of new nodes of the same form that apply `map_`, rounded to the output's dtype."""


@dataclass(frozen=True)
class _Convolution(ChannelMapCall):
    call: ConvolutionCall

    @property
    def keeps_shifts(self) -> bool:
        found = self.call.map
        # Of a transposed convolution some outputs meet more taps than others, unless there is one tap for all.
        return not found.is_padded and (not found.transposed or (found.kernel == (1, 1) and found.strides == (1, 1)))

    @property
    def bias_nodes(self) -> int:
        return 0

    def map(self) -> ChannelMap:
        found = self.call.map.wide()
        first, second, height, width = found.weight.shape
        weight = found.weight.reshape(found.group, first // found.group, second, height * width)
        return ChannelMap(weight.swapaxes(1, 2) if found.transposed else weight, found.bias)

    def build(self, builder: NodeBuilder, data: ir.Value, map_: ChannelMap) -> ir.Value:
        found = self.call.map
        weight = map_.weight.swapaxes(1, 2) if found.transposed else map_.weight
        composed = replace(found, weight=weight.reshape(found.weight.shape), bias=map_.bias)
        return composed.rounded(self.call.dtype).build(builder, data, self.output)


@dataclass(frozen=True)
class _MatMul(ChannelMapCall):
    """data [..., in] · weight [in, out]."""

    weight: Array

    @property
    def keeps_shifts(self) -> bool:
        return True

    @property
    def bias_nodes(self) -> int:
        return 1

    def map(self) -> ChannelMap:
        return ChannelMap(self.weight.astype(np.float64).T[None, :, :, None], None)

    def build(self, builder: NodeBuilder, data: ir.Value, map_: ChannelMap) -> ir.Value:
        dtype = self.weight.dtype
        output = builder.node("MatMul", data, builder.constant("weight", map_.weight[0, :, :, 0].T.astype(dtype)))
        output.type, output.shape = self.output.type, self.output.shape
        if map_.bias is not None:
            output = builder.node("Add", output, builder.constant("bias", map_.bias.astype(dtype)))
            output.type, output.shape = self.output.type, self.output.shape
        return output


@dataclass(frozen=True)
class _Gemm(ChannelMapCall):
    """alpha · data [rows, in] · weight + beta · bias; weight is [out, in] where `transposed`, else [in, out]."""

    weight: Array
    bias: Array | None
    alpha: float
    beta: float
    transposed: bool

    @property
    def keeps_shifts(self) -> bool:
        return True

    @property
    def bias_nodes(self) -> int:
        return 0

    def map(self) -> ChannelMap:
        weight = self.alpha * self.weight.astype(np.float64)
        weight = weight if self.transposed else weight.T
        bias = None
        if self.bias is not None:
            bias = np.array(np.broadcast_to(self.beta * self.bias.astype(np.float64).reshape(-1), weight.shape[:1]))
        return ChannelMap(weight[None, :, :, None], bias)

    def build(self, builder: NodeBuilder, data: ir.Value, map_: ChannelMap) -> ir.Value:
        weight = map_.weight[0, :, :, 0]
        weight = (weight if self.transposed else weight.T).astype(self.weight.dtype)
        bias = None if map_.bias is None else builder.constant("bias", map_.bias.astype(self.weight.dtype))
        constant = builder.constant("weight", weight)
        output = builder.node("Gemm", data, constant, bias, transB=int(self.transposed))
        output.type, output.shape = self.output.type, self.output.shape
        return output


def read_channel_map(node: ir.Node) -> ChannelMapCall:
    """Raises `UnreadableChannelMapError`: another operator, weights that are not constant or that another node reads
    too, products with the constant on the left, transposed data, a bias for each row, symbolic shapes, other dtypes."""
    if is_convolution(node):
        try:
            call = read_convolution(node)
        except UnreadableConvolutionError as error:
            raise UnreadableChannelMapError(str(error)) from error
        found: ChannelMapCall = _Convolution(node, call.data, 1, call)
    elif node.op_type in ("MatMul", "Gemm") and not node.domain:
        found = _product(node)
    else:
        raise UnreadableChannelMapError("not a linear operator")
    weight = node.inputs[1]
    if weight is None or len(list(weight.uses())) != 1 or weight.is_graph_output():
        raise UnreadableChannelMapError("another node reads its weights: new ones would be a copy")
    return found


def _product(node: ir.Node) -> ChannelMapCall:
    data, weight = node.inputs[0], constant_array(node.inputs[1])
    shape = static_shape(data)
    if data is None or not shape or static_shape(node.outputs[0]) is None:
        raise UnreadableChannelMapError("its shapes are not static")
    if weight is None or weight.ndim != 2 or constant_array(data) is not None:
        raise UnreadableChannelMapError("its weights are not one constant matrix")
    if data.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        raise UnreadableChannelMapError(f"its dtype is {data.dtype}")
    axis = len(shape) - 1
    if node.op_type == "MatMul":
        return _MatMul(node, data, axis, weight)
    transposed = bool(node.attributes.get_int("transB", 0))
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    bias = constant_array(bias_value)
    outputs = weight.shape[0 if transposed else 1]
    if node.attributes.get_int("transA", 0):
        raise UnreadableChannelMapError("its data is transposed")
    if bias_value is not None and (bias is None or bias.shape not in ((), (1,), (outputs,), (1, 1), (1, outputs))):
        raise UnreadableChannelMapError("its bias is not one constant an output channel")
    alpha, beta = node.attributes.get_float("alpha", 1.0), node.attributes.get_float("beta", 1.0)
    return _Gemm(node, data, axis, weight, bias, alpha, beta, transposed)
