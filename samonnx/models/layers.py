"""Small layers that several modules of the SAM family share under the same parameter names."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["MLP", "LayerNorm2d", "ProjectedAttention"]


class LayerNorm2d(nn.Module):
    """Layer norm over the channels of f32 [B, C, H, W]: (x - mean) / sqrt(variance + eps) * weight + bias."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        centred = x - x.mean(1, keepdim=True)
        variance = (centred * centred).mean(1, keepdim=True)
        return centred / torch.sqrt(variance + self.eps) * self.weight[:, None, None] + self.bias[:, None, None]


class MLP(nn.Module):
    """`depth` linear layers with ReLU between them; optionally a sigmoid at the end."""

    def __init__(self, inputs: int, hidden: int, outputs: int, depth: int, sigmoid: bool = False) -> None:
        super().__init__()
        widths = [inputs, *[hidden] * (depth - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.sigmoid = sigmoid

    def forward(self, x: Tensor) -> Tensor:
        for layer in list(self.layers)[:-1]:
            x = F.relu(layer(x))
        x = self.layers[-1](x)
        return x.sigmoid() if self.sigmoid else x


class ProjectedAttention(nn.Module):
    """Multi-head attention with separate projections (`q_proj`, `k_proj`, `v_proj`, `out_proj`), of inner width
    `inner`."""

    def __init__(self, width: int, heads: int, inner: int | None = None, key_width: int | None = None) -> None:
        super().__init__()
        inner = width if inner is None else inner
        key_width = width if key_width is None else key_width
        self.heads = heads
        self.q_proj = nn.Linear(width, inner)
        self.k_proj = nn.Linear(key_width, inner)
        self.v_proj = nn.Linear(key_width, inner)
        self.out_proj = nn.Linear(inner, width)

    def split_heads(self, x: Tensor) -> Tensor:
        """[B, tokens, heads · d] → [B, heads, tokens, d]."""
        heads: Tensor = x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return heads

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of split heads, merged and projected: [B, heads, tokens, d] → [B, tokens, width]."""
        merged = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        projected: Tensor = self.out_proj(merged)
        return projected

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor | None = None, rows: int | None = None
    ) -> Tensor:
        """`key_mask`: bool [B, 1, 1, keys], false keys are not attended (None: all are). `rows`: the B of all of them,
        where some are given once for all, as f32 [1, ...]: these are projected once."""
        if key_mask is not None:
            # ONNX Runtime's Attention takes a mask for every query and broadcasts only its batch and heads.
            key_mask = key_mask.expand(-1, -1, q.shape[1], -1)
        projected = (self.split_heads(part) for part in (self.q_proj(q), self.k_proj(k), self.v_proj(v)))
        if rows is not None:
            projected = (part.expand(rows, -1, -1, -1) for part in projected)
        q, k, v = projected
        return self.attend(q, k, v, key_mask)
