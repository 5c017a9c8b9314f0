"""Position encodings that depend on sizes only: sine maps, the 1-D sine of object pointers, axial rotary tables."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["axial_rotary_table", "rotate_pairs", "sine_1d", "sine_map"]


def sine_map(channels: int, height: int, width: int) -> Tensor:
    """Sine position encoding of a grid, f32 [channels, height, width]: the first half encodes y, the second x.

    Positions 1…n are divided by n + 1e-6 and multiplied by 2 pi; even features are sines and odd ones cosines of the
    position over 10000^(2 (i // 2) / half) (upstream `model/position_encoding.py`, after DETR).
    """
    half = channels // 2
    exponent = 2 * torch.div(torch.arange(half, dtype=torch.float32), 2, rounding_mode="floor") / half
    period = 10000.0**exponent

    def encode(size: int) -> Tensor:
        position = torch.arange(1, size + 1, dtype=torch.float32) / (size + 1e-6) * (2 * math.pi)
        angle = position[:, None] / period
        return torch.stack((angle[:, 0::2].sin(), angle[:, 1::2].cos()), dim=2).flatten(1)

    y = encode(height).T[:, :, None].expand(half, height, width)
    x = encode(width).T[:, None, :].expand(half, height, width)
    return torch.cat((y, x), dim=0).contiguous()


def sine_1d(position: Tensor, channels: int) -> Tensor:
    """[…] → f32 […, channels]: all sines, then all cosines, of position / 10000^(2 (i // 2) / half); no factor 2 pi.

    Upstream `get_1d_sine_pe` (SAM 2).
    """
    half = channels // 2
    exponent = 2 * torch.div(torch.arange(half, dtype=torch.float32), 2, rounding_mode="floor") / half
    angle = position[..., None] / 10000.0**exponent
    return torch.cat((angle.sin(), angle.cos()), dim=-1)


def axial_rotary_table(channels: int, height: int, width: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the axial rotary embedding, each f32 [height · width, channels // 2], row-major.

    The first half of the pairs turns with x, the second with y, at frequencies theta^(-4 i / channels); positions
    start at 0.
    """
    frequency = 1.0 / theta ** (torch.arange(0, channels, 4, dtype=torch.float32) / channels)
    index = torch.arange(height * width, dtype=torch.float32)
    x = index % width
    y = torch.div(index, width, rounding_mode="floor")
    angle = torch.cat((torch.outer(x, frequency), torch.outer(y, frequency)), dim=1)
    return angle.cos(), angle.sin()


def rotate_pairs(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Turn adjacent channel pairs (2i, 2i+1) of x […, tokens, channels] by the table's angles [tokens, channels //
    2]."""
    pairs = x.unflatten(-1, (-1, 2))
    real, imaginary = pairs[..., 0], pairs[..., 1]
    turned = torch.stack((real * cosine - imaginary * sine, real * sine + imaginary * cosine), dim=-1)
    return turned.flatten(-2)
