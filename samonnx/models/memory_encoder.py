"""Memory encoder: a frame's features and mask → the memory map that later frames attend.

Ravi et al., "SAM 2" (2024); upstream `model/memory.py`. The fuser's blocks are ConvNeXt's (Liu et al., 2022).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.layers import LayerNorm2d
from samonnx.pins import BranchPoint, declare

__all__ = ["MemoryEncoder"]


class MaskDownsampler(nn.Module):
    """Mask values f32 [O, 1, n, n] → f32 [O, D, grid, grid]: four 3x3 convolutions of stride 2, each with norm and
    GELU, then 1x1."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "resize_to_16x_grid", (True, False), "bring the mask to 16 x grid first; false: it already has that size"
        ),
    )

    def __init__(self, channels: int, grid: int, final_width: int = 256) -> None:
        super().__init__()
        declare(self)
        self.grid = grid
        layers: list[nn.Module] = []
        width = 1
        for factor in (4, 16, 64, 256):
            outputs = max(4, final_width * factor // 256)
            layers += [nn.Conv2d(width, outputs, 3, stride=2, padding=1), LayerNorm2d(outputs), nn.GELU()]
            width = outputs
        self.encoder = nn.Sequential(*layers, nn.Conv2d(width, channels, 1))

    def forward(self, mask: Tensor) -> Tensor:
        if self.resize_to_16x_grid:
            mask = antialiased_resize(mask, 16 * self.grid)
        encoded: Tensor = self.encoder(mask)
        return encoded


class ConvNeXtBlock(nn.Module):
    """x + gamma * (7x7 depthwise, norm, 4x pointwise, GELU, pointwise)(x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = LayerNorm2d(channels)
        self.pwconv1 = nn.Linear(channels, 4 * channels)
        self.pwconv2 = nn.Linear(4 * channels, channels)
        self.gamma = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.gamma * self.pwconv2(F.gelu(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class _Fuser(nn.Module):
    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(channels) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class MemoryEncoder(nn.Module):
    """features f32 [1, D, h, w] (never conditioned on memory), mask values f32 [O, 1, S, S] → memory f32 [O, C, h,
    w]."""

    def __init__(self, width: int, memory_width: int, grid: int, depth: int = 2) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(width, grid, final_width=width)
        self.pix_feat_proj = nn.Conv2d(width, width, 1)
        self.fuser = _Fuser(width, depth)
        self.out_proj = nn.Conv2d(width, memory_width, 1)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        memory: Tensor = self.out_proj(self.fuser(self.pix_feat_proj(features) + self.mask_downsampler(mask)))
        return memory
