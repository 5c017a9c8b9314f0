"""Prompt encoder of SAM: points, box corners and masks → sparse tokens and a dense map.

Kirillov et al., "Segment Anything" (ICCV 2023); upstream `sam/prompt_encoder.py`.
"""

from __future__ import annotations

import math
from typing import ClassVar, cast

import torch
from torch import Tensor, nn

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.layers import LayerNorm2d
from samonnx.pins import BranchPoint, declare

__all__ = ["PromptEncoder", "SamPromptEncoder"]


class RandomFourierPosition(nn.Module):
    """Points in 0…1 → f32 […, 2 · features]: sines, then cosines, of 2 pi (2 p - 1) G."""

    positional_encoding_gaussian_matrix: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("positional_encoding_gaussian_matrix", torch.randn(2, features))

    def forward(self, point: Tensor) -> Tensor:
        angle = 2 * math.pi * ((2 * point - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat((angle.sin(), angle.cos()), dim=-1)


class SamPromptEncoder(nn.Module):
    """Sparse tokens of points and box corners, and the dense map of a mask, as in the original SAM.

    `grid` is the side of the image embedding (h = w), `image_size` the side S of the network's input, in pixels.
    """

    def __init__(self, channels: int, grid: int, image_size: int, mask_channels: int = 16) -> None:
        super().__init__()
        self.channels, self.grid, self.image_size = channels, grid, image_size
        self.pe_layer = RandomFourierPosition(channels // 2)
        self.point_embeddings = nn.ModuleList(nn.Embedding(1, channels) for _ in range(4))
        self.not_a_point_embed = nn.Embedding(1, channels)
        self.mask_downscaling = nn.Sequential(
            nn.Conv2d(1, mask_channels // 4, 2, stride=2),
            LayerNorm2d(mask_channels // 4),
            nn.GELU(),
            nn.Conv2d(mask_channels // 4, mask_channels, 2, stride=2),
            LayerNorm2d(mask_channels),
            nn.GELU(),
            nn.Conv2d(mask_channels, channels, 1),
        )
        self.no_mask_embed = nn.Embedding(1, channels)

    def dense_position(self) -> Tensor:
        """Position encoding of the image embedding, f32 [1, channels, grid, grid]; cell (i, j) is at ((j, i) + 0.5) /
        grid."""
        centre = (torch.arange(self.grid, dtype=torch.float32) + 0.5) / self.grid
        y, x = torch.meshgrid(centre, centre, indexing="ij")
        position: Tensor = self.pe_layer(torch.stack((x, y), dim=-1))
        return position.permute(2, 0, 1)[None]

    def point_tokens(self, coords: Tensor, labels: Tensor) -> Tensor:
        """coords f32 [O, K, 2] in pixels (x, y), labels i32 [O, K] (-1 empty, 0 negative, 1 positive, 2/3 corners) →
        f32 [O, K, channels].

        An empty point is `not_a_point_embed` alone.
        """
        position = self.pe_layer((coords + 0.5) / self.image_size)
        position = torch.where((labels < 0)[..., None], self.not_a_point_embed.weight[0], position)
        for label, embedding in enumerate(self.point_embeddings):
            weight = cast(nn.Embedding, embedding).weight[0]
            position = position + torch.where((labels == label)[..., None], weight, torch.zeros_like(weight))
        return position

    def padded_point_tokens(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of K places of which any may be empty, and which count: f32 [O, K + 1, channels], bool [O, K + 1].

        The original appends its padding point to points that come without a box, and to nothing else: here it is the
        last token, and counts only then. The sequence is a set to the decoder (tokens carry no order), so masking
        places out gives the original's numbers.
        """
        used = labels >= 0
        pad = ((labels == 0) | (labels == 1)).any(1, keepdim=True) & ~(labels >= 2).any(1, keepdim=True)
        tokens = (self._place_tokens(coords, labels, used), self._empty_token(labels))
        return torch.cat(tokens, dim=1), torch.cat((used, pad), dim=1)

    def _place_tokens(self, coords: Tensor, labels: Tensor, used: Tensor) -> Tensor:
        """`point_tokens` of places of which only those `used` (bool [O, K]) have coordinates that matter."""
        return self.point_tokens(torch.where(used[..., None], coords, torch.zeros_like(coords)), labels)

    def _empty_token(self, labels: Tensor) -> Tensor:
        """The token of an empty point, for each object of labels [O, K]: f32 [O, 1, channels]."""
        return self.not_a_point_embed.weight[None].expand(labels.shape[0], 1, self.channels)

    def mask_map(self, mask: Tensor) -> Tensor:
        """Mask logits or values f32 [O, 1, n, n] → dense map f32 [O, channels, grid, grid]; resized to 4 · grid first
        if n differs."""
        dense: Tensor = self.mask_downscaling(antialiased_resize(mask, 4 * self.grid))
        return dense

    def no_mask_map(self) -> Tensor:
        """The dense map without a mask, f32 [1, channels, 1, 1] (constant over the grid)."""
        return self.no_mask_embed.weight[:, :, None, None]


class PromptEncoder(SamPromptEncoder):
    """That of SAM 2 and SAM 3: the same, but for the padding point."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "pad_with_empty_point",
            (True, False),
            "append one empty point to the points, as when no box is passed apart",
        ),
    )

    def __init__(self, channels: int, grid: int, image_size: int, mask_channels: int = 16) -> None:
        super().__init__(channels, grid, image_size, mask_channels)
        declare(self)

    def padded_point_tokens(self, coords: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of K places of which any may be empty, and which tokens count: f32 [O, T, channels], bool [O, T].

        The original makes one token a point, or one empty point where there is none, and then appends the padding
        point. Here the K places come first, then that empty point (it counts only without points), then the padding
        point. The sequence is a set to the decoder (tokens carry no order), so masking the places out gives the
        original's numbers.
        """
        used = labels >= 0
        empty = self._empty_token(labels)
        tokens = [self._place_tokens(coords, labels, used), empty]
        valid = [used, ~used.any(1, keepdim=True)]
        if self.pad_with_empty_point:
            tokens.append(empty)
            valid.append(torch.ones_like(valid[1]))
        return torch.cat(tokens, dim=1), torch.cat(valid, dim=1)
