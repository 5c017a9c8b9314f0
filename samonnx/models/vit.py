"""SAM 3's image trunk: a plain vision transformer in which most blocks attend within windows.

Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (ECCV 2022), with absolute positions
tiled as in Bolya et al., "Window Attention is Bugged" (ICLR 2024); upstream `model/vitdet.py` (`ViT`) and the figures
of `model_builder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.trunk import Trunk
from samonnx.models.vit_attention import RotaryTable, ViTBlock, scaled_rotary_table
from samonnx.pins import BranchPoint, declare

__all__ = ["PATCH", "VIT_SIZES", "ViTSize", "ViTTrunk", "from_windows", "in_windows"]

PATCH = 14
"""Pixels of a grid cell, a side."""


@dataclass(frozen=True)
class ViTSize:
    """`window` and `position_side`: cells a side of an attention window and of the learned position table (the grid of
    the pre-training images). The blocks in `global_blocks` attend over the whole map."""

    width: int
    depth: int
    heads: int
    hidden: int
    window: int
    position_side: int
    global_blocks: tuple[int, ...]


VIT_SIZES: Mapping[str, ViTSize] = MappingProxyType(
    {
        "sam3_vit": ViTSize(1024, 32, 16, 4736, 24, 24, (7, 15, 23, 31)),
        "sam3_vit_tiny": ViTSize(32, 4, 4, 148, 4, 4, (1, 3)),
    }
)


def in_windows(x: Tensor, window: int) -> Tensor:
    """[B, side, side, C] → [B, side², C], window after window, row-major among the windows and within each."""
    split: Tensor = x.unflatten(2, (-1, window)).unflatten(1, (-1, window))
    return split.transpose(2, 3).flatten(1, 4)


def from_windows(x: Tensor, window: int, side: int) -> Tensor:
    """The inverse of `in_windows`: [B, side², C] → [B, side, side, C]."""
    split: Tensor = x.unflatten(1, (side // window, side // window, window, window))
    return split.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class _PatchEmbedding(nn.Module):
    """The level `patch_embed.proj` in the checkpoint's names."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, PATCH, PATCH, bias=False)


class ViTTrunk(Trunk):
    """Image f32 [B, 3, 14 grid, 14 grid], normalised to about -1…1 → f32 [B, size.width, grid, grid].

    All blocks run on tokens in the order of the windows, which the original has within its windowed blocks only: the
    rest does not depend on the order of tokens, as long as the rotary table of the global blocks follows it.

    The first row of `pos_embed` belongs to the class token of the pre-training and is never read. Raises SamonnxError
    if the windows do not cover the grid without a rest.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "tile_positions", (True, False), "the position table is repeated over the grid; false: enlarged bicubically"
        ),
    )

    # Rotary tables in the order of the tokens: of the whole map, and of one window.
    global_cosine: Tensor
    global_sine: Tensor
    window_cosine: Tensor
    window_sine: Tensor

    def __init__(self, size: ViTSize, grid: int) -> None:
        super().__init__()
        if grid % size.window:
            multiple = PATCH * size.window
            raise SamonnxError(
                f"model.args.image_size: {PATCH * grid} pixels give {grid} cells a side, which windows of "
                f"{size.window} do not cover without a rest; take a multiple of {multiple}"
            )
        declare(self)
        self.grid, self.size = grid, size
        self.patch_embed = _PatchEmbedding(size.width)
        self.pos_embed = nn.Parameter(torch.zeros(1, size.position_side**2 + 1, size.width))
        self.ln_pre = nn.LayerNorm(size.width)
        windows = (grid // size.window) ** 2
        self.blocks = nn.ModuleList(
            ViTBlock(size.width, size.heads, size.hidden, 1 if index in size.global_blocks else windows)
            for index in range(size.depth)
        )
        whole_map = scaled_rotary_table(size.width // size.heads, grid, size.window)
        for name, table in zip(("global_cosine", "global_sine"), whole_map, strict=True):
            ordered = in_windows(table.unflatten(0, (1, grid, grid)), size.window)[0]
            self.register_buffer(name, ordered, persistent=False)
        one_window = scaled_rotary_table(size.width // size.heads, size.window, size.window)
        for name, table in zip(("window_cosine", "window_sine"), one_window, strict=True):
            self.register_buffer(name, table, persistent=False)

    def encode(self, image: Tensor) -> Tensor:
        size = self.size
        cells = self.patch_embed.proj(image).permute(0, 2, 3, 1) + self.positions()
        x: Tensor = self.ln_pre(in_windows(cells, size.window))
        for index, block in enumerate(self.blocks):
            x = block(x, self._table(index))
        return from_windows(x, size.window, self.grid).permute(0, 3, 1, 2)

    def positions(self) -> Tensor:
        """The learned positions of the grid's cells, f32 [1, grid, grid, width]."""
        side, grid = self.size.position_side, self.grid
        table: Tensor = self.pos_embed[:, 1:].unflatten(1, (side, side))
        if self.tile_positions:
            times = -(-grid // side)
            return table.repeat(1, times, times, 1)[:, :grid, :grid]
        if side == grid:
            return table
        channels_first = table.permute(0, 3, 1, 2)
        enlarged = F.interpolate(channels_first, size=(grid, grid), mode="bicubic", align_corners=False)
        return enlarged.permute(0, 2, 3, 1)

    def _table(self, index: int) -> RotaryTable:
        if index in self.size.global_blocks:
            return self.global_cosine, self.global_sine
        return self.window_cosine, self.window_sine
