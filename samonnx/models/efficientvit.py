"""EfficientViT (the B series): convolutions at high resolution, multi-scale linear attention at low.

Architecture: Cai et al., "EfficientViT: Multi-Scale Linear Attention for High-Resolution Dense Prediction" (ICCV 2023);
the figures of each size are those of upstream's `backbones/efficientvit/efficientvit/backbone.py`, the blocks those of
`backbones/efficientvit/nn/ops.py`. The activation is hard-swish: x · min(max(x + 3, 0), 6) / 6.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["EFFICIENTVIT_SIZES", "EfficientViT", "EfficientViTSize"]


@dataclass(frozen=True)
class EfficientViTSize:
    """Widths and depths of the stem and the four stages, and the channels of one attention head.

    A stage of convolutions has `depth` blocks, the first of stride 2; a stage of attention has `depth` blocks besides
    the one of stride 2.
    """

    widths: tuple[int, int, int, int, int]
    depths: tuple[int, int, int, int, int]
    head_width: int


EFFICIENTVIT_SIZES: Mapping[str, EfficientViTSize] = MappingProxyType(
    {
        "efficientvit_b0": EfficientViTSize((8, 16, 32, 64, 128), (1, 2, 2, 2, 2), 16),
        "efficientvit_b1": EfficientViTSize((16, 32, 64, 128, 256), (1, 2, 3, 3, 4), 16),
        "efficientvit_b2": EfficientViTSize((24, 48, 96, 192, 384), (1, 3, 4, 4, 6), 32),
        "efficientvit_tiny": EfficientViTSize((8, 8, 16, 24, 32), (1, 2, 1, 1, 1), 8),
    }
)


class ConvLayer(nn.Module):
    """Convolution that keeps the side (halves it at stride 2, rounded up), then batch norm and hard-swish, where asked
    for."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        bias: bool = False,
        norm: bool = True,
        activation: bool = True,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(outputs) if norm else nn.Identity()
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return F.hardswish(x) if self.activation else x


class DSConv(nn.Module):
    """Depthwise 3x3, then 1x1 without activation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depth_conv = ConvLayer(width, width, 3, groups=width)
        self.point_conv = ConvLayer(width, width, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point_conv(self.depth_conv(x))
        return out


class MBConv(nn.Module):
    """1x1 to four times the width, depthwise 3x3, 1x1 without activation.

    `inner_norms` false: the first two have a bias in place of a batch norm.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, *, inner_norms: bool) -> None:
        super().__init__()
        hidden, bias = 4 * inputs, not inner_norms
        self.inverted_conv = ConvLayer(inputs, hidden, bias=bias, norm=inner_norms)
        self.depth_conv = ConvLayer(hidden, hidden, 3, stride, hidden, bias=bias, norm=inner_norms)
        self.point_conv = ConvLayer(hidden, outputs, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point_conv(self.depth_conv(self.inverted_conv(x)))
        return out


class LinearAttention(nn.Module):
    """Multi-scale linear attention over all cells, f32 [B, C, H, W] → the same. With q and k after a ReLU:

        out(cell) = Σ_other v(other) (k(other)·q(cell)) / (Σ_other k(other)·q(cell) + 1e-15)

    computed as (v kᵀ) q, so that the cost is linear in the cells. There are two sets of heads: those of a 1x1
    convolution, and those of the same q, k, v after a depthwise 5x5 and a 1x1 convolution inside each of q, k and v of
    a head. Upstream computes kᵀ q first where there are no more cells than a head has channels, which is the same sum.
    """

    eps: Tensor

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        # Without it a cell whose q meets no k is 0/0. Not a scalar: onnxscript's rewriter, which the exporter runs,
        # takes any scalar below 1e-8 for 0 and drops the sum.
        self.register_buffer("eps", torch.full((1,), 1e-15), persistent=False)
        self.head_width = head_width
        heads = width // head_width
        inner = heads * head_width
        self.qkv = ConvLayer(width, 3 * inner, norm=False, activation=False)
        self.aggreg = nn.ModuleList(
            [
                nn.Sequential(
                    nn.Conv2d(3 * inner, 3 * inner, 5, padding=2, groups=3 * inner, bias=False),
                    nn.Conv2d(3 * inner, 3 * inner, 1, groups=3 * heads, bias=False),
                )
            ]
        )
        self.proj = ConvLayer(2 * inner, width, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.qkv(x)
        both = torch.cat((fine, *(scale(fine) for scale in self.aggreg)), dim=1)
        # [B, heads of both sets, channels of q, k, v of the head, cells]
        q, k, v = both.flatten(2).unflatten(1, (-1, 3 * self.head_width)).chunk(3, dim=2)
        q, k = F.relu(q), F.relu(k)
        weighted = v @ k.transpose(2, 3) @ q
        total = k.sum(3)[:, :, None] @ q
        out: Tensor = self.proj((weighted / (total + self.eps)).flatten(1, 2).unflatten(2, x.shape[2:]))
        return out


class MainBranch(nn.Module):
    """The level `main` in the checkpoint's names: main(x), plus x where `shortcut` is set."""

    def __init__(self, main: nn.Module, *, shortcut: bool) -> None:
        super().__init__()
        self.main = main
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.main(x)
        return x + out if self.shortcut else out


class EfficientViTBlock(nn.Module):
    """Residual linear attention, then a residual MBConv."""

    def __init__(self, width: int, head_width: int) -> None:
        super().__init__()
        self.context_module = MainBranch(LinearAttention(width, head_width), shortcut=True)
        self.local_module = MainBranch(MBConv(width, width, inner_norms=False), shortcut=True)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.local_module(self.context_module(x))
        return out


class _OpList(nn.Module):
    """The level `op_list` in the checkpoint's names: blocks, one after the other."""

    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.op_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.op_list:
            x = block(x)
        return x


def _convolution_stage(inputs: int, width: int, depth: int) -> _OpList:
    first = MainBranch(MBConv(inputs, width, stride=2, inner_norms=True), shortcut=False)
    others = [MainBranch(MBConv(width, width, inner_norms=True), shortcut=True) for _ in range(depth - 1)]
    return _OpList([first, *others])


def _attention_stage(inputs: int, width: int, depth: int, head_width: int) -> _OpList:
    first = MainBranch(MBConv(inputs, width, stride=2, inner_norms=False), shortcut=False)
    return _OpList([first, *(EfficientViTBlock(width, head_width) for _ in range(depth))])


class EfficientViT(nn.Module):
    """f32 [B, 3, S, S] → f32 [B, widths[4], ceil(S/32), ceil(S/32)]: stem of stride 2, two stages of convolutions, two
    of attention, no classifier."""

    def __init__(self, size: EfficientViTSize) -> None:
        super().__init__()
        widths, depths = size.widths, size.depths
        stem = [MainBranch(DSConv(widths[0]), shortcut=True) for _ in range(depths[0])]
        self.input_stem = _OpList([ConvLayer(3, widths[0], 3, stride=2), *stem])
        self.stages = nn.ModuleList(
            [
                _convolution_stage(widths[0], widths[1], depths[1]),
                _convolution_stage(widths[1], widths[2], depths[2]),
                _attention_stage(widths[2], widths[3], depths[3], size.head_width),
                _attention_stage(widths[3], widths[4], depths[4], size.head_width),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.input_stem(x)
        for stage in self.stages:
            x = stage(x)
        return x
