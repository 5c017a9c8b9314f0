"""Mask decoder of the original SAM: four masks of an image embedding and prompts, and the predicted IoU of each.

Kirillov et al., "Segment Anything" (ICCV 2023); upstream `segment_anything/modeling/mask_decoder.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samonnx.models.mask_decoder_parts import MaskDecoderParts

__all__ = ["SamMaskDecoder", "SamMasks"]


@dataclass(frozen=True)
class SamMasks:
    """`logits` f32 [O, 4, 4h, 4w] and `ious` f32 [O, 4], which are not confined to 0…1. 0 is the single mask, 1…3 are
    the candidates."""

    logits: Tensor
    ious: Tensor

    def of_mode(self, multimask: bool) -> SamMasks:
        """What the original returns by its `multimask_output`: the three candidates, or the single mask."""
        kept = slice(1, None) if multimask else slice(0, 1)
        return SamMasks(self.logits[:, kept], self.ious[:, kept])


class SamMaskDecoder(MaskDecoderParts):
    """Image embedding + prompts → `SamMasks`, whose parts do not depend on which mode is wanted."""

    def __init__(self, channels: int, hidden: int, heads: int = 8) -> None:
        super().__init__(channels, hidden, heads)

    def forward(
        self,
        image: Tensor,
        image_position: Tensor,
        sparse: Tensor,
        sparse_valid: Tensor | None,
        dense: Tensor,
        one_image: bool = False,
    ) -> SamMasks:
        """Inputs as in `attend`."""
        own = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens, embedding = self.attend(own, image, image_position, sparse, sparse_valid, dense, one_image)
        return SamMasks(self.masks(tokens[:, 1:5], embedding), self.iou_prediction_head(tokens[:, 0]))
