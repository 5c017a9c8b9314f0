"""RepMixer blocks: MobileCLIP-S0's first and last layers, which mix neighbouring tokens by convolution.

Vasu et al., "FastViT" (ICCV 2023), section 3.2.1, and "MobileCLIP" (CVPR 2024); upstream `backbones/mobile_clip.py`
(`RepMixerBlock`). Released files hold the branches of training, not the one convolution that they add up to, so these
modules do too. Inside a block a text is a map of height 1: f32 [B, width, 1, L], with zeros beyond both ends.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["KERNEL", "RepMixerBlock"]

KERNEL = 11
"""Tokens that one convolution spans, itself in the middle."""


class TokenConv(nn.Sequential):
    """Depthwise convolution over `KERNEL` tokens without bias (`conv`), then batch norm (`bn`)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        conv = nn.Conv2d(width, width, (1, KERNEL), padding=(0, KERNEL // 2), groups=width, bias=False)
        self.add_module("conv", conv)
        self.add_module("bn", nn.BatchNorm2d(width))


class SkipNorm(nn.Module):
    """The level `rbr_skip` in the checkpoint's names: a batch norm in place of a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.rbr_skip = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        normed: Tensor = self.rbr_skip(x)
        return normed


class SkipAndConv(SkipNorm):
    """Batch norm of the input plus convolution with batch norm (`rbr_conv.0`)."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.rbr_conv = nn.ModuleList([TokenConv(width)])

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.rbr_skip(x) + self.rbr_conv[0](x)
        return mixed


class RepMixer(nn.Module):
    """x + layer_scale · (mixer(x) - norm(x)), a depthwise convolution in all."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-5))
        self.norm = SkipNorm(width)
        self.mixer = SkipAndConv(width)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = x + self.layer_scale * (self.mixer(x) - self.norm(x))
        return mixed


class ConvFeedForward(nn.Module):
    """fc2(GELU(fc1(convolution(x)))), four times as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = TokenConv(width)
        self.fc1 = nn.Conv2d(width, 4 * width, 1)
        self.fc2 = nn.Conv2d(4 * width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(self.conv(x))))
        return out


class RepMixerBlock(nn.Module):
    """f32 [B, L, width] → the same: token mixer, then a feed-forward, scaled by channel and residual.

    Each of the two reaches `KERNEL // 2` tokens to either side; padding tokens are mixed in like others.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((width, 1, 1), 1e-5))
        self.token_mixer = RepMixer(width)
        self.convffn = ConvFeedForward(width)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.token_mixer(x.transpose(1, 2)[:, :, None])
        tokens = tokens + self.layer_scale * self.convffn(tokens)
        return tokens[:, :, 0].transpose(1, 2)
