"""One block of SAM 3's image trunk: attention turned by rotary positions, over windows or over the whole map.

Heo et al., "Rotary Position Embedding for Vision Transformer" (ECCV 2024); upstream `model/vitdet.py` (`Block`,
`Attention`), with the rotation in real numbers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.position_encoding import rotate_pairs
from samonnx.pins import BranchPoint, declare

__all__ = ["RotaryTable", "ViTAttention", "ViTBlock", "scaled_rotary_table"]

RotaryTable = tuple[Tensor, Tensor]
"""Cosines and sines of the angles, each f32 [tokens, head width // 2]."""

THETA = 10000.0


def scaled_rotary_table(head_width: int, side: int, trained_side: int) -> RotaryTable:
    """Axial rotary table of a square of side² tokens, row-major, whose side is stretched to `trained_side` cells.

    The first half of the pairs turns with x, the second with y: position · trained_side / side · θ^(-4 i / head width).
    """
    frequency = 1.0 / THETA ** (torch.arange(0, head_width, 4, dtype=torch.float32) / head_width)
    position = torch.arange(side, dtype=torch.float32) * (trained_side / side)
    angle = torch.outer(position, frequency)
    x = angle[None, :, :].expand(side, -1, -1)
    y = angle[:, None, :].expand(-1, side, -1)
    turned = torch.cat((x, y), dim=-1).flatten(0, 1)
    return turned.cos(), turned.sin()


class ViTAttention(nn.Module):
    """Multi-head self-attention with the three projections in one matrix (`qkv`, rows in the order q, k, v)."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("rotary", (True, False), "rotary positions turn queries and keys; false: no position in attention"),
    )

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        declare(self)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, table: RotaryTable) -> Tensor:
        """f32 [sequences, tokens, width] → the same shape; each sequence attends to itself alone."""
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, dim=-1))
        if self.rotary:
            q, k = rotate_pairs(q, *table), rotate_pairs(k, *table)
        attended: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return attended


class _FeedForward(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return projected


class ViTBlock(nn.Module):
    """x + attention(norm1(x)), then + feed-forward(norm2) with the exact GELU.

    `windows`: the number of equal, consecutive pieces of the sequence that attend to themselves alone; 1: all tokens
    attend to all.
    """

    def __init__(self, width: int, heads: int, hidden: int, windows: int) -> None:
        super().__init__()
        self.windows = windows
        self.norm1 = nn.LayerNorm(width)
        self.attn = ViTAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = _FeedForward(width, hidden)

    def forward(self, x: Tensor, table: RotaryTable) -> Tensor:
        """f32 [B, tokens, width] → the same shape; `table` is that of one piece."""
        pieces = self.norm1(x).unflatten(1, (self.windows, -1)).flatten(0, 1)
        x = x + self.attn(pieces, table).unflatten(0, (-1, self.windows)).flatten(1, 2)
        fed: Tensor = x + self.mlp(self.norm2(x))
        return fed
