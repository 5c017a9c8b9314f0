"""Class scores of queries: the dot product with the pooled prompt.

Carion et al., "SAM 3: Segment Anything with Concepts" (2025); upstream `model/model_misc.py` (`DotProductScoring`).
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from samonnx.models.layers import MLP
from samonnx.pins import BranchPoint, declare

__all__ = ["DotProductScoring"]

LOGIT_LIMIT = 12.0


class _ResidualMLP(MLP):
    """LayerNorm(x + MLP(x))."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, width, depth=2)
        self.out_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out_norm(super().forward(x) + x)
        return out


class DotProductScoring(nn.Module):
    """queries f32 [B, Q, D], prompt f32 [B, T, D], prompt_valid bool [B, T] (true: a real token) → logits f32 [B, Q].

    Each prompt token goes through a residual MLP; the mean of the real ones, projected, meets the projected queries in
    a dot product over sqrt(D).
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("clamp_logits", (True, False), "logits are clamped to ±12; false: as they are"),
    )

    def __init__(self, hidden_dim: int, ffn_dim: int) -> None:
        super().__init__()
        declare(self)
        self.prompt_mlp = _ResidualMLP(hidden_dim, ffn_dim)
        self.prompt_proj = nn.Linear(hidden_dim, hidden_dim)
        self.hs_proj = nn.Linear(hidden_dim, hidden_dim)
        self.scale = 1.0 / math.sqrt(hidden_dim)

    def forward(self, queries: Tensor, prompt: Tensor, prompt_valid: Tensor) -> Tensor:
        tokens = torch.where(prompt_valid[..., None], self.prompt_mlp(prompt), 0.0)
        count = prompt_valid.to(tokens.dtype).sum(1, keepdim=True).clamp(min=1.0)
        pooled = self.prompt_proj(tokens.sum(1) / count)
        logits: Tensor = (self.hs_proj(queries) @ pooled[..., None]).squeeze(-1) * self.scale
        return logits.clamp(-LOGIT_LIMIT, LOGIT_LIMIT) if self.clamp_logits else logits
