"""SAM's image encoder: a plain vision transformer in which most blocks attend within windows, and a neck.

Kirillov et al., "Segment Anything" (ICCV 2023), after Li et al., "Exploring Plain Vision Transformer Backbones for
Object Detection" (ECCV 2022), with the decomposed relative positions of Li et al., "MViTv2" (CVPR 2022); upstream
`segment_anything/modeling/image_encoder.py` and the figures of `segment_anything/build_sam.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.hiera_windows import WindowLayout, row_major
from samonnx.models.layers import LayerNorm2d
from samonnx.models.two_way_transformer import MLPBlock

__all__ = ["PATCH", "SAM_VIT_SIZES", "RelativePositionAttention", "SamVit", "SamVitBlock", "SamVitSize"]

PATCH = 16
"""Pixels of a grid cell, a side."""

EPS = 1e-6
"""Of the blocks' layer norms."""


@dataclass(frozen=True)
class SamVitSize:
    """`window`: cells a side of an attention window. The blocks in `global_blocks` attend over the whole map instead.

    Raises SamonnxError for figures that contradict each other.
    """

    width: int
    depth: int
    heads: int
    global_blocks: tuple[int, ...]
    window: int = 14

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise SamonnxError(f"SAM's image encoder: {self.heads} heads do not divide a width of {self.width}")
        if refused := [index for index in self.global_blocks if not 0 <= index < self.depth]:
            raise SamonnxError(
                f"SAM's image encoder: block {refused[0]} cannot be global; there are blocks 0 to {self.depth - 1}"
            )


SAM_VIT_SIZES: Mapping[str, SamVitSize] = MappingProxyType(
    {
        "vit_b": SamVitSize(768, 12, 12, (2, 5, 8, 11)),
        "vit_l": SamVitSize(1024, 24, 16, (5, 11, 17, 23)),
        "vit_h": SamVitSize(1280, 32, 16, (7, 15, 23, 31)),
    }
)


class RelativePositionAttention(nn.Module):
    """Multi-head self-attention over the cells of squares, `side` cells a side, with the three projections in one
    matrix (`qkv`, rows in the order q, k, v).

    The logit of a query and a key is q · k / √d + q · rows[i] + q · columns[j], where i and j are how many rows and
    columns the query lies behind the key, plus side - 1: `rel_pos_h` and `rel_pos_w` hold 2 side - 1 vectors each.
    """

    distance: Tensor
    """i64 [side, side]: place of the query - place of the key + side - 1."""

    def __init__(self, width: int, heads: int, side: int) -> None:
        super().__init__()
        self.heads, self.side = heads, side
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * side - 1, width // heads))
        place = torch.arange(side)
        self.register_buffer("distance", place[:, None] - place[None] + (side - 1), persistent=False)

    def attend(self, x: Tensor) -> Tensor:
        """f32 [squares, side², width] → the same shape, to be projected by `proj`; each square attends to itself alone.

        The tables' terms are the mask that is added to the logits.
        """
        # Three products instead of one: to cut the matrix costs nothing in a graph, to cut what it gives does.
        weights, biases = self.qkv.weight.chunk(3), self.qkv.bias.chunk(3)
        projected = (F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in projected)
        down, right = self.position_terms(q)
        mask = (down[..., :, None] + right[..., None, :]).flatten(-2)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)

    def position_terms(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """q f32 [squares, heads, side², d] → its products with the tables at the distance of each row of keys and of
        each column of keys, f32 [squares, heads, side², side] both."""
        cells = q.unflatten(2, (self.side, self.side))
        rows, columns = (table[self.distance].transpose(1, 2) for table in (self.rel_pos_h, self.rel_pos_w))
        down = cells @ rows
        right = (cells.transpose(2, 3) @ columns).transpose(2, 3)
        return down.flatten(2, 3), right.flatten(2, 3)


class SamVitBlock(nn.Module):
    """x + attention(norm1(x)), then + feed-forward(norm2) with the exact GELU; cells f32 [B, side, side, width].

    Cells of windows that reach over the edge of the map are zeros after norm1. They are not masked: they have the bias
    of `qkv` for query, key and value, and are attended like others.
    """

    def __init__(self, width: int, heads: int, attends: WindowLayout) -> None:
        super().__init__()
        self.attends = attends
        self.norm1 = nn.LayerNorm(width, eps=EPS)
        self.attn = RelativePositionAttention(width, heads, attends.window)
        self.norm2 = nn.LayerNorm(width, eps=EPS)
        self.mlp = MLPBlock(width, 4 * width, F.gelu)

    def forward(self, x: Tensor) -> Tensor:
        attended = self.attends.join(self.attn.attend(self.attends.split(self.norm1(x))))
        x = x + self.attn.proj(attended)
        fed: Tensor = x + self.mlp(self.norm2(x))
        return fed


class _PatchEmbedding(nn.Module):
    """The level `patch_embed.proj` in the checkpoint's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH)


class SamVit(nn.Module):
    """Image f32 [B, 3, S, S], normalised → f32 [B, channels, S/16, S/16].

    S is `image_size`, on which the shapes of the position tables depend: the released ones are those of 1024 pixels.
    Raises SamonnxError if it is not a multiple of 16, and for an image of another size.
    """

    def __init__(self, size: SamVitSize, image_size: int = 1024, channels: int = 256) -> None:
        super().__init__()
        if image_size <= 0 or image_size % PATCH:
            raise SamonnxError(
                f"model.args.image_size: {image_size} pixels found, a multiple of {PATCH} expected (the patches of "
                "SAM's image encoder)"
            )
        self.size, self.image_size, self.grid = size, image_size, image_size // PATCH
        self.pos_embed = nn.Parameter(torch.zeros(1, self.grid, self.grid, size.width))
        self.patch_embed = _PatchEmbedding(size.width)
        windows, everywhere = WindowLayout(self.grid, size.window), row_major(self.grid)
        self.blocks = nn.ModuleList(
            SamVitBlock(size.width, size.heads, everywhere if index in size.global_blocks else windows)
            for index in range(size.depth)
        )
        self.neck = nn.Sequential(
            nn.Conv2d(size.width, channels, 1, bias=False),
            LayerNorm2d(channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            LayerNorm2d(channels),
        )

    def forward(self, image: Tensor) -> Tensor:
        if tuple(image.shape[1:]) != (3, self.image_size, self.image_size):
            raise SamonnxError(
                f"the image is {list(image.shape)}; this encoder was built for [1, 3, {self.image_size}, "
                f"{self.image_size}] (model.args.image_size)"
            )
        cells = self.patch_embed.proj(image).permute(0, 2, 3, 1) + self.pos_embed
        for block in self.blocks:
            cells = block(cells)
        embedding: Tensor = self.neck(cells.permute(0, 3, 1, 2))
        return embedding
