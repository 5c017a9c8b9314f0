"""Fusion encoder of the detector: the image's cells attend one another and the prompt.

Carion et al., "SAM 3: Segment Anything with Concepts" (2025); upstream `model/encoder.py` (`TransformerEncoderLayer`,
`TransformerEncoderFusion`).
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.packed_attention import PackedAttention
from samonnx.models.position_encoding import sine_map
from samonnx.pins import BranchPoint, declare

__all__ = ["FusionEncoder", "FusionEncoderLayer"]


class FusionEncoderLayer(nn.Module):
    """Self-attention of the cells, attention to the prompt, ReLU feed-forward; norms before (pre-norm) or after each.

    Positions never reach values, and prompt tokens have none.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("pre_norm", (True, False), "norms before each part; false: after the residual sum"),
        BranchPoint(
            "dac",
            (True, False),
            "divide and conquer, of pre-norm layers: the first half of the cells attend one another, the second half "
            "nobody; false: all cells attend all",
        ),
        BranchPoint(
            "position_at_self_attention", (True, False), "sine position added to queries and keys of self-attention"
        ),
        BranchPoint(
            "position_at_cross_attention_queries", (True, False), "sine position added to the queries to the prompt"
        ),
    )

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        declare(self)
        self.self_attn = PackedAttention(width, heads)
        self.cross_attn_image = PackedAttention(width, heads)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor, prompt: Tensor, prompt_valid: Tensor) -> Tensor:
        """x f32 [B, cells, width], position f32 [1, cells, width], prompt f32 [B, T, width], prompt_valid bool [B, T]
        → f32 [B, cells, width].

        Raises SamonnxError where `dac` is pinned and the layer is post-norm or the number of cells is odd.
        """
        attending = self._attending_cells(x.shape[1])

        def attend_self(y: Tensor) -> Tensor:
            y = y[:, :attending]
            q = y + position[:, :attending] if self.position_at_self_attention else y
            attended: Tensor = self.self_attn(q, q, y)
            return F.pad(attended, (0, 0, 0, x.shape[1] - attending)) if self.dac else attended

        def attend_prompt(y: Tensor) -> Tensor:
            q = y + position if self.position_at_cross_attention_queries else y
            attended: Tensor = self.cross_attn_image(q, prompt, prompt, key_valid=prompt_valid)
            return attended

        def feed_forward(y: Tensor) -> Tensor:
            out: Tensor = self.linear2(F.relu(self.linear1(y)))
            return out

        for norm, part in ((self.norm1, attend_self), (self.norm2, attend_prompt), (self.norm3, feed_forward)):
            x = x + part(norm(x)) if self.pre_norm else norm(x + part(x))
        return x

    def _attending_cells(self, cells: int) -> int:
        if not self.dac:
            return cells
        if not self.pre_norm:
            raise SamonnxError(
                "fusion encoder layer: `dac: true` with `pre_norm: false` found, but only pre-norm layers divide and "
                "conquer; pin `dac: false` or `pre_norm: true`"
            )
        if cells % 2:
            raise SamonnxError(
                f"fusion encoder layer: `dac: true` needs an even number of cells to halve, {cells} found; pin "
                "`dac: false`, or choose an image size whose grid is even"
            )
        return cells // 2


class FusionEncoder(nn.Module):
    """features f32 [B, D, g, g], prompt f32 [B, T, D], prompt_valid bool [B, T] → memory f32 [B, g·g, D], row-major.

    `prompt_valid` is true where a token is real, at least once a row. No norm at the end: the sum of the residuals is
    the result.
    """

    position: Tensor

    def __init__(self, hidden_dim: int, ffn_dim: int, heads: int, layers: int, grid: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(FusionEncoderLayer(hidden_dim, ffn_dim, heads) for _ in range(layers))
        # Depends on sizes only: not in checkpoints, and one copy for all layers.
        position = sine_map(hidden_dim, grid, grid).flatten(1).T[None].contiguous()
        self.register_buffer("position", position, persistent=False)

    def forward(self, features: Tensor, prompt: Tensor, prompt_valid: Tensor) -> Tensor:
        x = features.flatten(2).transpose(1, 2)
        for layer in self.layers:
            x = layer(x, self.position, prompt, prompt_valid)
        return x
