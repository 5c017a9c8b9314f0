"""How XMem brings a map of the image and maps of the objects together: residual blocks and CBAM attention.

Cheng and Schwing, "XMem" (2022); upstream `model/group_modules.py`, `model/modules.py` (`FeatureFusionBlock`),
`model/cbam.py` (Woo et al., "CBAM", 2018). Rows are objects O; the image's map has one row.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeatureFusion", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(ReLU(x)))), 3x3, without norm. Where the width changes, the shortcut is a 3x3 convolution of x
    as it is, before its ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.downsample = nn.Conv2d(inputs, outputs, 3, padding=1) if inputs != outputs else None
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return y + (x if self.downsample is None else self.downsample(x))


class _Flatten(nn.Module):
    """[O, C, 1, 1] → [O, C]; it holds place 0 of the released file's `mlp`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class _ChannelGate(nn.Module):
    """x · sigmoid(MLP(mean) + MLP(maximum)), mean and maximum over all positions, one MLP for both."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        inner = channels // reduction
        self.mlp = nn.Sequential(_Flatten(), nn.Linear(channels, inner), nn.ReLU(), nn.Linear(inner, channels))

    def forward(self, x: Tensor) -> Tensor:
        mean, largest = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        gate: Tensor = (self.mlp(mean) + self.mlp(largest)).sigmoid()
        return x * gate[:, :, None, None]


class _SpatialConvolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)


class _SpatialGate(nn.Module):
    """x · sigmoid(7x7 convolution of [maximum, mean]), maximum and mean over all channels."""

    def __init__(self) -> None:
        super().__init__()
        self.spatial = _SpatialConvolution()

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.amax(1, keepdim=True), x.mean(1, keepdim=True)], 1)
        gated: Tensor = x * self.spatial.conv(pooled).sigmoid()
        return gated


class _CBAM(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ChannelGate = _ChannelGate(channels)
        self.SpatialGate = _SpatialGate()

    def forward(self, x: Tensor) -> Tensor:
        gated: Tensor = self.SpatialGate(self.ChannelGate(x))
        return gated


class FeatureFusion(nn.Module):
    """image f32 [1, X, h, w], objects f32 [O, G, h, w] → f32 [O, outputs, h, w].

    With g = block1([image, objects]) it is block2(g + CBAM(g))."""

    def __init__(self, image: int, objects: int, middle: int, outputs: int) -> None:
        super().__init__()
        self.block1 = ResidualBlock(image + objects, middle)
        self.attention = _CBAM(middle)
        self.block2 = ResidualBlock(middle, outputs)

    def forward(self, image: Tensor, objects: Tensor) -> Tensor:
        g = self.block1(torch.cat([image.expand(objects.shape[0], -1, -1, -1), objects], 1))
        fused: Tensor = self.block2(g + self.attention(g))
        return fused
