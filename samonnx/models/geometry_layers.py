"""Parts of the geometry encoder: the sine encoding of coordinates, and the transformer layer over prompt tokens."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.packed_attention import PackedAttention
from samonnx.pins import BranchPoint, declare

__all__ = ["GeometryLayer", "sine_of_coordinate"]


def sine_of_coordinate(coordinate: Tensor, channels: int) -> Tensor:
    """f32 […], shares of the image → f32 […, channels]: sines on even and cosines on odd features.

    Angle i is 2 pi · coordinate / 10000^(2 (i // 2) / channels) (`_encode_xy` in upstream's
    `model/position_encoding.py`).
    """
    exponent = 2 * torch.div(torch.arange(channels, dtype=torch.float32), 2, rounding_mode="floor") / channels
    angle = (coordinate * (2 * math.pi))[..., None] / 10000.0**exponent
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-2)


class GeometryLayer(nn.Module):
    """Prompt tokens attend each other, then the image; ReLU feed-forward; norms before (pre-norm) or after each.

    Upstream `TransformerEncoderLayer` in `model/encoder.py`, as the geometry encoder calls it: without positions of the
    tokens. Adding them is therefore no choice here; upstream fails when it is asked to.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("pre_norm", (True, False), "norms before each part; false: after the residual sum"),
        BranchPoint("position_at_self_attention", (False,), "never: tokens of boxes and points have no position"),
        BranchPoint(
            "position_at_cross_attention_queries", (False,), "never: tokens of boxes and points have no position"
        ),
        BranchPoint("position_at_cross_attention_keys", (True, False), "sine position added to the image's keys"),
    )

    def __init__(self, hidden_dim: int, ffn_dim: int, heads: int) -> None:
        super().__init__()
        declare(self)
        self.self_attn = PackedAttention(hidden_dim, heads)
        self.cross_attn_image = PackedAttention(hidden_dim, heads)
        self.linear1 = nn.Linear(hidden_dim, ffn_dim)
        self.linear2 = nn.Linear(ffn_dim, hidden_dim)
        self.norm1 = nn.LayerNorm(hidden_dim)
        self.norm2 = nn.LayerNorm(hidden_dim)
        self.norm3 = nn.LayerNorm(hidden_dim)

    def forward(self, x: Tensor, attended: Tensor, cells: Tensor, position: Tensor) -> Tensor:
        """x f32 [B, T, D]; attended bool [B, T], the tokens that others see; cells f32 [B, g·g, D], the image;
        position f32 [1, g·g, D] → f32 [B, T, D]."""
        keys = cells + position if self.position_at_cross_attention_keys else cells

        def attend_self(y: Tensor) -> Tensor:
            seen: Tensor = self.self_attn(y, y, y, key_valid=attended)
            return seen

        def attend_image(y: Tensor) -> Tensor:
            seen: Tensor = self.cross_attn_image(y, keys, cells)
            return seen

        def feed_forward(y: Tensor) -> Tensor:
            out: Tensor = self.linear2(F.relu(self.linear1(y)))
            return out

        for norm, part in ((self.norm1, attend_self), (self.norm2, attend_image), (self.norm3, feed_forward)):
            x = x + part(norm(x)) if self.pre_norm else norm(x + part(x))
        return x
