"""One `Conv` or `ConvTranspose` node with constant weights, read as what it computes, and made from the same terms."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Self

import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["Convolution", "ConvolutionCall", "UnreadableConvolutionError", "is_convolution", "read_convolution"]


class UnreadableConvolutionError(Exception):
    """Why a convolution node is beyond the form that the passes work on."""


@dataclass(frozen=True)
class Convolution:
    """The linear map of a convolution over two space axes; arrays are the engine's, of one float dtype.

    `weight` is [out, in / group, kh, kw], or, where `transposed`, [in, out / group, kh, kw], as ONNX has it. `bias` is
    [out] or None. `strides` and `dilations` are (height, width), `pads` (top, left, bottom, right).
    """

    weight: Array
    bias: Array | None = None
    group: int = 1
    strides: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilations: tuple[int, int] = (1, 1)
    transposed: bool = False

    @property
    def kernel(self) -> tuple[int, int]:
        """(height, width)."""
        return self.weight.shape[2], self.weight.shape[3]

    @property
    def in_channels(self) -> int:
        return int(self.weight.shape[0] if self.transposed else self.weight.shape[1] * self.group)

    @property
    def out_channels(self) -> int:
        return int(self.weight.shape[1] * self.group if self.transposed else self.weight.shape[0])

    @property
    def is_padded(self) -> bool:
        return any(self.pads)

    @property
    def is_pointwise(self) -> bool:
        """A linear map of each pixel's channels on its own: 1 x 1, stride 1, no padding, one group."""
        plain = self.kernel == (1, 1) and self.strides == (1, 1) and not self.is_padded
        return plain and self.group == 1 and not self.transposed

    @property
    def is_depthwise(self) -> bool:
        """Each channel on its own."""
        return not self.transposed and self.group == self.in_channels == self.out_channels

    @property
    def is_tiling(self) -> bool:
        """A transposed convolution whose kernel equals its stride: each pixel makes a tile of its own."""
        return self.transposed and self.kernel == self.strides and not self.is_padded and self.dilations == (1, 1)

    def output_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """[N, out, h', w'] for an input of `shape` [N, in, h, w]."""
        sides = []
        for axis in range(2):
            padding = self.pads[axis] + self.pads[axis + 2]
            reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
            if self.transposed:
                sides.append(self.strides[axis] * (shape[axis + 2] - 1) + reach - padding)
            else:
                sides.append((shape[axis + 2] + padding - reach) // self.strides[axis] + 1)
        return (shape[0], self.out_channels, *sides)

    def multiply_adds(self, shape: tuple[int, ...]) -> int:
        """For an input of `shape` [N, in, h, w]."""
        places = shape if self.transposed else self.output_shape(shape)
        per_channel = self.out_channels // self.group if self.transposed else int(self.weight.shape[1])
        channels = self.in_channels if self.transposed else self.out_channels
        return places[0] * channels * math.prod(places[2:]) * per_channel * math.prod(self.kernel)

    def wide(self) -> Self:
        """With weights in float64, for composing before one rounding."""
        return self._cast("float64")

    def rounded(self, dtype: ir.DataType) -> Self:
        """With weights in the graph's dtype."""
        return self._cast(dtype.numpy().name)

    def _cast(self, dtype: str) -> Self:
        bias = None if self.bias is None else self.bias.astype(dtype)
        return replace(self, weight=self.weight.astype(dtype), bias=bias)

    def build(self, builder: NodeBuilder, data: ir.Value, like: ir.Value) -> ir.Value:
        """A node that applies it to `data` [N, in, h, w], whose output has its type and shape set; `like` lends its
        dtype, to which the weights must have been rounded."""
        shape = static_shape(data)
        if shape is None:
            raise UnreadableConvolutionError(f"{data.name} has shape {data.shape}; expected a static one")
        weight = builder.constant("weight", self.weight)
        bias = None if self.bias is None else builder.constant("bias", self.bias)
        output = builder.node(
            "ConvTranspose" if self.transposed else "Conv",
            data,
            weight,
            bias,
            group=self.group,
            strides=self.strides,
            pads=self.pads,
            dilations=self.dilations,
            kernel_shape=self.kernel,
        )
        output.type, output.shape = like.type, ir.Shape(self.output_shape(shape))
        return output


@dataclass(frozen=True)
class ConvolutionCall:
    """`node` applies `map` to `data`, an [N, in, h, w] of static shape."""

    node: ir.Node
    data: ir.Value
    map: Convolution

    @property
    def output(self) -> ir.Value:
        """[N, out, h', w']."""
        return self.node.outputs[0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        return static_shape(self.data) or ()

    @property
    def dtype(self) -> ir.DataType:
        """Of data, weights and output."""
        return self.data.dtype or ir.DataType.FLOAT

    @property
    def name(self) -> str:
        """Prefix for what replaces the node."""
        return self.node.name or str(self.output.name)

    @property
    def multiply_adds(self) -> int:
        return self.map.multiply_adds(self.input_shape)

    @property
    def is_read_once(self) -> bool:
        """Whether exactly one operand reads the output, so that the node dies when that reader is rewritten."""
        return len(list(self.output.uses())) == 1 and not self.output.is_graph_output()


def is_convolution(node: ir.Node | None) -> bool:
    """Whether `node` is one of the two standard operators."""
    return node is not None and node.op_type in ("Conv", "ConvTranspose") and not node.domain


def read_convolution(node: ir.Node | None) -> ConvolutionCall:
    """Raises `UnreadableConvolutionError`: another operator, weights that are not constant, automatic padding, output
    padding, other than two space axes, symbolic shapes, dtypes other than float32 and float64."""
    if node is None or not is_convolution(node):
        raise UnreadableConvolutionError("not a convolution")
    data, weight_value, bias_value = [*node.inputs, None][:3]
    weight = constant_array(weight_value)
    bias = constant_array(bias_value)
    shape = static_shape(data)
    if data is None or shape is None or len(shape) != 4:
        raise UnreadableConvolutionError("its input is not [N, C, h, w] with static sizes")
    if weight is None or (bias_value is not None and bias is None):
        raise UnreadableConvolutionError("its weights are not constant")
    if data.dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE):
        raise UnreadableConvolutionError(f"its dtype is {data.dtype}")
    if node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET" or "output_shape" in node.attributes:
        raise UnreadableConvolutionError("its padding is automatic")
    if any(node.attributes.get_ints("output_padding", (0, 0))):
        raise UnreadableConvolutionError("it pads its output")
    strides, dilations = node.attributes.get_ints("strides", (1, 1)), node.attributes.get_ints("dilations", (1, 1))
    top, left, bottom, right = node.attributes.get_ints("pads", (0, 0, 0, 0))
    found = Convolution(
        weight,
        bias,
        node.attributes.get_int("group", 1),
        (strides[0], strides[1]),
        (top, left, bottom, right),
        (dilations[0], dilations[1]),
        node.op_type == "ConvTranspose",
    )
    return ConvolutionCall(node, data, found)
