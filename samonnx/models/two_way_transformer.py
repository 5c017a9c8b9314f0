"""The mask decoder's transformer: prompt tokens and image attend each other both ways.

Kirillov et al., "Segment Anything" (ICCV 2023); upstream `sam/transformer.py`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.layers import MLP, ProjectedAttention

__all__ = ["MLPBlock", "TwoWayTransformer"]


class MLPBlock(nn.Module):
    """`MLP` of two layers under the names of SAM and SAM 3; f32 [..., width] → the same shape."""

    def __init__(self, width: int, hidden: int, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.lin1 = nn.Linear(width, hidden)
        self.lin2 = nn.Linear(hidden, width)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.lin2(self.activation(self.lin1(x)))
        return out


class TwoWayBlock(nn.Module):
    """Self-attention of tokens, tokens to image, MLP, image to tokens; post-norm. The first block's self-attention
    has neither position nor residual. `numbered_mlp`: the MLP's layers are called layers.0 and layers.1, as in SAM 2,
    instead of lin1 and lin2."""

    def __init__(self, width: int, heads: int, hidden: int, first: bool, numbered_mlp: bool = False) -> None:
        super().__init__()
        self.self_attn = ProjectedAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn_token_to_image = ProjectedAttention(width, heads, inner=width // 2)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, hidden, width, 2) if numbered_mlp else MLPBlock(width, hidden)
        self.norm3 = nn.LayerNorm(width)
        self.norm4 = nn.LayerNorm(width)
        self.cross_attn_image_to_token = ProjectedAttention(width, heads, inner=width // 2)
        self.first = first

    def forward(
        self,
        tokens: Tensor,
        image: Tensor,
        token_position: Tensor,
        image_position: Tensor,
        token_mask: Tensor | None,
        one_image: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """`one_image`: `image` is f32 [1, cells, width], the same for all objects, and what is projected from it is so
        once; it leaves as f32 [O, cells, width]."""
        rows = tokens.shape[0] if one_image else None
        if self.first:
            tokens = self.self_attn(tokens, tokens, tokens, token_mask)
        else:
            q = tokens + token_position
            tokens = tokens + self.self_attn(q, q, tokens, token_mask)
        tokens = self.norm1(tokens)
        k = image + image_position
        tokens = self.norm2(tokens + self.cross_attn_token_to_image(tokens + token_position, k, image, rows=rows))
        tokens = self.norm3(tokens + self.mlp(tokens))
        image = self.norm4(image + self.cross_attn_image_to_token(k, tokens + token_position, tokens, token_mask, rows))
        return tokens, image


class TwoWayTransformer(nn.Module):
    """tokens f32 [O, T, width], image f32 [O, cells, width] ([1, cells, width] if `one_image`) → both, updated."""

    def __init__(self, width: int, heads: int, hidden: int, depth: int = 2, numbered_mlp: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayBlock(width, heads, hidden, first=i == 0, numbered_mlp=numbered_mlp) for i in range(depth)
        )
        self.final_attn_token_to_image = ProjectedAttention(width, heads, inner=width // 2)
        self.norm_final_attn = nn.LayerNorm(width)

    def forward(
        self, image: Tensor, image_position: Tensor, tokens: Tensor, token_mask: Tensor | None, one_image: bool = False
    ) -> tuple[Tensor, Tensor]:
        """`token_mask`: bool [O, 1, 1, T], false tokens are attended by nobody (None: all count)."""
        position = tokens
        for i, layer in enumerate(self.layers):
            tokens, image = layer(tokens, image, position, image_position, token_mask, one_image and i == 0)
        q = tokens + position
        tokens = self.norm_final_attn(tokens + self.final_attn_token_to_image(q, image + image_position, image))
        return tokens, image
