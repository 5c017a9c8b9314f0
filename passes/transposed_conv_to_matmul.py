"""The pass `transposed_conv_to_matmul`: a transposed convolution whose tiles do not overlap as a matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.convolution_call import (
    Convolution,
    ConvolutionCall,
    UnreadableConvolutionError,
    read_convolution,
)
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["TransposedConvToMatmul", "join_tiles", "tile_side", "tiles_as_channels"]


@dataclass(frozen=True)
class TransposedConvToMatmul(GraphPass):
    """ConvTranspose with kernel = stride → MatMul and DepthToSpace, where the engine's own kernel is slower.

        x [N, C, h, w] ── ConvTranspose k × k, stride k ── y [N, D, kh, kw]
        →
        x [N, C, hw] ── W [D·k², C] · x ── + b ── [N, D·k², h, w] ── DepthToSpace ── y

    Measured, milliseconds (lowest and, in brackets, median of 15 alternating runs; 2 cores with AVX2, busy with other
    work, so compare within a column and an engine only; k = 2, float32; C → D at h = w):

                                            1024 → 512   512 → 256    256 → 64     64 → 32
                                            at 32        at 144       at 72        at 144
        ONNX Runtime 1.31, ConvTranspose    88 (100)     323 (488)    43 (77)      12 (54)
        ONNX Runtime, Conv, DepthToSpace    102 (113)    534 (803)    98 (125)     85 (124)
        ONNX Runtime, this                  102 (120)    386 (638)    107 (137)    100 (133)
        ONNX Runtime, xᵀ · Wᵀ, Transpose    99 (121)     530 (898)    107 (149)    150 (204)
        OpenVINO 2026.4, ConvTranspose      125 (132)    651 (719)    25 (30)      24 (32)
        OpenVINO, Conv, DepthToSpace        112 (132)    670 (736)    20 (25)      28 (36)
        OpenVINO, this                      119 (140)    828 (919)    18 (23)      16 (20)
        OpenVINO, xᵀ · Wᵀ, Transpose        125 (142)    789 (826)    20 (24)      19 (25)

    and the whole upscaling of a mask decoder, 256 → 64 → 32 channels from 72 × 72 with its norm and its two Gelus:

        ConvTranspose, Conv + DepthToSpace, this    ONNX Runtime 175 (280), 225 (367), 244 (343)
                                                    OpenVINO 113 (132), 120 (139), 92 (107)

    So ONNX Runtime does best without this pass at every size (its DepthToSpace runs in one thread), and OpenVINO
    gains with about 256 channels and less (at 72, this for ConvTranspose: 128 → 64 17 (28) for 16 (24), 256 → 128
    34 (48) for 55 (64), 384 → 128 96 (117) for 88 (122), 512 → 128 140 (149) for 104 (128)). DepthToSpace was of mode
    DCR in the table and CRD, as here, in the upscaling; with Conv in front both modes took the same.

    Exact:    in real arithmetic: with kernel = stride each output has one pixel of x below it,
              y[d, k·u + i, k·v + j] = b[d] + Σ over c of x[c, u, v] · W[c, d, i, j]. The weights
              are reordered, not rounded.
    Declines: tiles that overlap, leave gaps or are not square, padding, dilation, groups, weights that are not
              constant, more than `most_channels` input channels, what `read_convolution` refuses.
    Cost:     the same multiply-adds; three to four more nodes.

    Attributes:
        most_channels: largest number of input channels for which the matrix product is the faster one.
    """

    name: ClassVar[str] = "transposed_conv_to_matmul"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    most_channels: int = 256

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        for node in list(model.graph):
            if node.op_type != "ConvTranspose" or node.domain:
                continue
            try:
                call = read_convolution(node)
            except UnreadableConvolutionError:
                continue
            side = tile_side(call.map)
            if side is not None and call.map.in_channels <= self.most_channels:
                _rewrite(model.graph, call, side)
                modified = True
        return PassResult(model, modified)


def tile_side(convolution: Convolution) -> int | None:
    """k where each pixel makes its own k × k tile by a linear map of all its channels (1 for a 1 × 1 convolution);
    None for every other convolution, and for tiles that are not square, which `DepthToSpace` cannot lay."""
    if convolution.is_pointwise:
        return 1
    height, width = convolution.kernel
    tiles = convolution.is_tiling and convolution.group == 1 and height == width
    return height if tiles else None


def tiles_as_channels(convolution: Convolution) -> Convolution:
    """The 1 × 1 convolution that gives the k · k pixels of a tile as channels, in the order (channel, row, column) that
    `DepthToSpace` of mode CRD reads; `convolution` must have a `tile_side`."""
    if not convolution.transposed:
        return convolution
    pixels = convolution.kernel[0] * convolution.kernel[1]
    weight = convolution.weight.transpose(1, 2, 3, 0).reshape(convolution.out_channels * pixels, -1, 1, 1)
    bias = None if convolution.bias is None else np.repeat(convolution.bias, pixels)
    return Convolution(weight, bias)


def join_tiles(build: NodeBuilder, tiles: ir.Value, side: int) -> ir.Value:
    """[N, C · side², h, w] → [N, C, h · side, w · side]; `tiles` itself where `side` is 1."""
    if side == 1:
        return tiles
    batch, channels, height, width = static_shape(tiles) or ()
    joined = build.node("DepthToSpace", tiles, blocksize=side, mode="CRD")
    joined.type, joined.shape = tiles.type, ir.Shape([batch, channels // side**2, height * side, width * side])
    return joined


def _rewrite(graph: ir.Graph, call: ConvolutionCall, side: int) -> None:
    build = NodeBuilder(graph, call.name, call.node)
    tiles = tiles_as_channels(call.map)
    batch, channels, height, width = call.input_shape

    def typed(value: ir.Value, *shape: int) -> ir.Value:
        value.type, value.shape = call.output.type, ir.Shape(shape)
        return value

    def reshaped(value: ir.Value, *shape: int) -> ir.Value:
        return typed(build.node("Reshape", value, build.integers("shape", *shape)), *shape)

    pixels = reshaped(call.data, batch, channels, height * width)
    weight = build.constant("weight", tiles.weight.reshape(tiles.out_channels, channels))
    result = typed(build.node("MatMul", weight, pixels), batch, tiles.out_channels, height * width)
    if tiles.bias is not None:
        bias = build.constant("bias", tiles.bias.reshape(-1, 1))
        result = typed(build.node("Add", result, bias), batch, tiles.out_channels, height * width)
    result = reshaped(result, batch, tiles.out_channels, height, width)
    replace_value(graph, call.output, join_tiles(build, result, side))
    graph.remove(call.node, safe=True)
