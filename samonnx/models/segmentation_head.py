"""Segmentation head of the detector: a mask for each query, and one for the concept as a whole.

Cheng et al., "Per-Pixel Classification is Not All You Need for Semantic Segmentation" (NeurIPS 2021, MaskFormer), as
used by SAM 3; upstream `model/maskformer_segmentation.py` (`UniversalSegmentationHead`).
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.group_norm import GroupNorm
from samonnx.models.layers import MLP
from samonnx.models.packed_attention import PackedAttention
from samonnx.pins import BranchPoint, declare

__all__ = ["MaskPredictor", "PixelDecoder", "SegmentationHead", "doubled"]

NORM_GROUPS = 8


def doubled(x: Tensor) -> Tensor:
    """f32 [B, C, h, w] → [B, C, 2h, 2w]: every cell becomes four. Bit-exact, nearest-neighbour enlargement by 2."""
    _, _, height, width = x.shape
    spread = x[:, :, :, None, :, None].expand(-1, -1, -1, 2, -1, 2)
    return spread.reshape(*x.shape[:2], 2 * height, 2 * width)


class PixelDecoder(nn.Module):
    """Maps f32 [B, D, s·g, s·g] at s = 1, 2 and 4 → one at s = 4: enlarged, added to the next, 3x3 convolution, group
    norm, ReLU.

    The third convolution and norm are in released files and nothing reads them.
    """

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.conv_layers = nn.ModuleList(nn.Conv2d(hidden_dim, hidden_dim, 3, padding=1) for _ in range(3))
        self.norms = nn.ModuleList(GroupNorm(NORM_GROUPS, hidden_dim) for _ in range(3))

    def forward(self, x: Tensor, high_res_1: Tensor, high_res_0: Tensor) -> Tensor:
        for level, conv, norm in zip((high_res_1, high_res_0), self.conv_layers, self.norms, strict=False):
            x = F.relu(norm(conv(level + doubled(x))))
        return x


class MaskPredictor(nn.Module):
    """The level `mask_predictor` in the checkpoint's names: queries f32 [..., Q, D] and pixels f32 [B, D, H, W] → masks
    f32 [..., Q, H, W]."""

    def __init__(self, hidden_dim: int) -> None:
        super().__init__()
        self.mask_embed = MLP(hidden_dim, hidden_dim, hidden_dim, 3)

    def forward(self, queries: Tensor, pixels: Tensor) -> Tensor:
        masks: Tensor = (self.mask_embed(queries) @ pixels.flatten(2)).unflatten(-1, pixels.shape[2:])
        return masks


class SegmentationHead(nn.Module):
    """Masks as logits, at four times the grid.

    `no_decoder` builds the head that reads no queries: a 3x3 convolution (`mask_predictor.weight`, `.bias`) stands for
    the mask MLP (`mask_predictor.mask_embed`) of the released model.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "mask_source",
            ("last_layer", "all_layers", "no_decoder"),
            "masks of the queries of the decoder's last layer, or of every layer; no_decoder: one mask, of the pixels "
            "alone (a head built for it, with weights of its own)",
        ),
        BranchPoint(
            "prompt_cross_attention",
            (True, False),
            "the encoded image attends the prompt once more before masks are made; false: it is taken as it is",
        ),
    )

    def __init__(self, hidden_dim: int, heads: int, grid: int, no_decoder: bool = False) -> None:
        super().__init__()
        declare(self)
        self.grid = grid
        self.pixel_decoder = PixelDecoder(hidden_dim)
        self.mask_predictor = nn.Conv2d(hidden_dim, 1, 3, padding=1) if no_decoder else MaskPredictor(hidden_dim)
        self.cross_attend_prompt = PackedAttention(hidden_dim, heads)
        self.cross_attn_norm = nn.LayerNorm(hidden_dim)
        self.semantic_seg_head = nn.Conv2d(hidden_dim, 1, 1)
        self.instance_seg_head = nn.Conv2d(hidden_dim, hidden_dim, 1)

    def forward(
        self,
        memory: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        queries: Tensor,
        prompt: Tensor,
        prompt_valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """memory f32 [B, g·g, D], high_res_0 f32 [B, D, 4g, 4g], high_res_1 f32 [B, D, 2g, 2g], prompt f32 [B, T, D],
        prompt_valid bool [B, T] (true: a real token; at least one a row) → masks and semantic_mask f32 [B, 1, 4g, 4g],
        logits.

        By `mask_source`: `last_layer` takes queries f32 [B, Q, D] and gives masks f32 [B, Q, 4g, 4g]; `all_layers`
        takes f32 [layers, B, Q, D] and gives [layers, B, Q, 4g, 4g]; `no_decoder` reads no queries and gives
        [B, 1, 4g, 4g]. Raises SamonnxError where the queries or the head's weights do not fit the pin.
        """
        if self.prompt_cross_attention:
            normed = self.cross_attn_norm(memory)
            memory = memory + self.cross_attend_prompt(normed, prompt, prompt, key_valid=prompt_valid)
        encoded = memory.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        pixels = self.pixel_decoder(encoded, high_res_1, high_res_0)
        return self._masks(self.instance_seg_head(pixels), queries), self.semantic_seg_head(pixels)

    def _masks(self, pixels: Tensor, queries: Tensor) -> Tensor:
        without_decoder = self.mask_source == "no_decoder"
        if without_decoder is isinstance(self.mask_predictor, MaskPredictor):
            raise SamonnxError(
                f"segmentation head: `mask_source: {self.mask_source}` found, but the head was built "
                f"{'with' if without_decoder else 'without'} the mask MLP of the decoder's queries; pin "
                f"`mask_source: {'last_layer' if without_decoder else 'no_decoder'}`, or build the head with "
                f"no_decoder={without_decoder} and give weights of such a model"
            )
        if without_decoder:
            masks: Tensor = self.mask_predictor(pixels)
            return masks
        dimensions = 4 if self.mask_source == "all_layers" else 3
        if queries.dim() != dimensions:
            shape = "[layers, B, Q, D]" if dimensions == 4 else "[B, Q, D]"
            raise SamonnxError(
                f"segmentation head: queries of shape {list(queries.shape)} found, but `mask_source: "
                f"{self.mask_source}` takes {shape}; give those, or pin another mask_source"
            )
        masks = self.mask_predictor(queries, pixels)
        return masks
