"""A transposed convolution whose tiles overlap, as one convolution for all phases of its stride and an interleaving."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir

from samonnx.passes.convolution_call import Convolution
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["PhaseConvolution", "phase_convolution"]


@dataclass(frozen=True)
class PhaseConvolution:
    """`map` makes [N, s·s·C, h, w], `DepthToSpace` by `stride` s lays its channels out to [N, C, s·h, s·w], and the
    rows from `top` and the columns from `left` on are the output."""

    map: Convolution
    stride: int
    top: int
    left: int

    def build(self, builder: NodeBuilder, data: ir.Value, like: ir.Value, shape: tuple[int, ...]) -> ir.Value:
        """Nodes that apply it to `data` [N, in, h, w] and give `shape`; `like` lends its dtype, that of the weights."""
        phases = self.map.build(builder, data, like)
        whole = builder.node("DepthToSpace", phases, blocksize=self.stride)
        batch, _, height, width = self.map.output_shape(tuple(data.shape.numpy()) if data.shape else ())
        whole.type, whole.shape = like.type, ir.Shape((batch, shape[1], self.stride * height, self.stride * width))
        cropped = builder.node(
            "Slice",
            whole,
            builder.integers("crop/start", self.top, self.left),
            builder.integers("crop/end", self.top + shape[2], self.left + shape[3]),
            builder.integers("crop/axes", 2, 3),
        )
        cropped.type, cropped.shape = like.type, ir.Shape(shape)
        return cropped


def phase_convolution(map_: Convolution) -> PhaseConvolution | None:
    """The same map; None for one that tiles, has groups, dilations, unequal strides or a kernel that is no multiple of
    its stride.

    Along an axis, pixel i reaches place s i + t - p by tap t = s a + b. With j = i + a that is phase b of s j - p: a
    convolution over i = j - a with k / s taps, zero-padded by one less on both sides, whose s phases alternate; the
    first place is number p. Multiply-adds: those of the transposed one, and of k / s - 1 further rows and columns.
    """
    stride, kernel = map_.strides[0], map_.kernel
    if not map_.transposed or map_.is_tiling or map_.group > 1 or map_.dilations != (1, 1):
        return None
    if map_.strides != (stride, stride) or kernel[0] % stride or kernel[1] % stride or stride == 1:
        return None
    rows, columns = kernel[0] // stride, kernel[1] // stride
    taps = map_.weight.reshape(map_.in_channels, map_.out_channels, rows, stride, columns, stride)
    weight = taps.transpose(3, 5, 1, 0, 2, 4)[..., ::-1, ::-1]  # [phase y, phase x, out, in, rows, columns]
    weight = np.ascontiguousarray(weight).reshape(-1, map_.in_channels, rows, columns)
    bias = None if map_.bias is None else np.tile(map_.bias, stride * stride)
    pads = (rows - 1, columns - 1, rows - 1, columns - 1)
    plain = replace(map_, weight=weight, bias=bias, strides=(1, 1), pads=pads, transposed=False)
    return PhaseConvolution(plain, stride, map_.pads[0], map_.pads[1])
