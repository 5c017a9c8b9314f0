"""Mask prompts of the detector: a mask and the image features below it → one token a cell.

Upstream `FusedMaskEncoder` in `model/geometry_encoders.py`, with the downsampler and the fuser that upstream's tracker
gives to the memory encoder, whose class is its model. No released detector has one: its weights are seeded.
"""

from __future__ import annotations

from torch import Tensor, nn

from samonnx.models.memory_encoder import ConvNeXtBlock, MaskDownsampler
from samonnx.models.position_encoding import sine_map

__all__ = ["MaskPromptEncoder"]


class _Fuser(nn.Module):
    """The level `fuser` in upstream's names."""

    def __init__(self, channels: int, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(ConvNeXtBlock(channels) for _ in range(depth))


class MaskPromptEncoder(nn.Module):
    """features f32 [B, D, g, g] (normed as for pooling), masks f32 [B, M, n, n] (0…1) → tokens f32 [B, M, g·g, D].

    Cells are in row-major order, their sine position is added. The downsampler's pin `resize_to_16x_grid` must be true
    unless n is 16 g.
    """

    position: Tensor

    def __init__(self, width: int, grid: int, depth: int = 2) -> None:
        super().__init__()
        self.mask_downsampler = MaskDownsampler(width, grid, final_width=width)
        self.fuser = _Fuser(width, depth)
        self.pix_feat_proj = nn.Conv2d(width, width, 1)
        self.register_buffer("position", sine_map(width, grid, grid), persistent=False)

    def forward(self, features: Tensor, masks: Tensor) -> Tensor:
        count = masks.shape[1]
        downsampled = self.mask_downsampler(masks.flatten(0, 1)[:, None]).unflatten(0, (-1, count))
        fused = (self.pix_feat_proj(features)[:, None] + downsampled).flatten(0, 1)
        for block in self.fuser.layers:
            fused = block(fused)
        tokens: Tensor = (fused + self.position).flatten(2).transpose(1, 2).unflatten(0, (-1, count))
        return tokens
