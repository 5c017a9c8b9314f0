"""Multi-head attention whose three input projections lie in one tensor, under the parameter names of
`torch.nn.MultiheadAttention`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["PackedAttention"]


class PackedAttention(nn.Module):
    """softmax(q kᵀ / sqrt(width / heads) + mask) v, projected; parameters `in_proj_weight` (rows in the order q, k,
    v), `in_proj_bias`, `out_proj`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.zeros(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, *, key_valid: Tensor | None = None, bias: Tensor | None = None
    ) -> Tensor:
        """q f32 [B, Q, width], k and v f32 [B, K, width] → f32 [B, Q, width].

        At most one of: `key_valid` bool [B, K], keys that are false are not attended (one of them must be true);
        `bias` f32 [B, heads, Q, K], added to the logits.
        """
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        queries, keys, values = (
            F.linear(x, weight, offset).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for x, weight, offset in zip((q, k, v), weights, biases, strict=True)
        )
        mask = bias
        if key_valid is not None:
            # ONNX Runtime's Attention takes a mask for every query and broadcasts only its batch and heads.
            mask = key_valid[:, None, None, :].expand(-1, -1, q.shape[1], -1)
        merged = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask).transpose(1, 2).flatten(2)
        attended: Tensor = self.out_proj(merged)
        return attended
