"""Mask decoder of SAM 2 and SAM 3: four mask candidates with predicted IoUs, an object score, and which candidate is
taken.

Ravi et al., "SAM 2" (2024); upstream `sam/mask_decoder.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from samonnx.models.mask_decoder_parts import MaskDecoderParts
from samonnx.pins import BranchPoint, declare

__all__ = ["DecodedMasks", "MaskChoice", "MaskDecoder"]

STABILITY_DELTA = 0.05
STABILITY_THRESHOLD = 0.98


@dataclass(frozen=True)
class DecodedMasks:
    """`logits` f32 [O, 4, 4h, 4w] (0 is the single mask, 1…3 the candidates), `ious` f32 [O, 4] in 0…1, `tokens` f32
    [O, 4, C], `object_score` f32 [O, 1] (logit)."""

    logits: Tensor
    ious: Tensor
    tokens: Tensor
    object_score: Tensor


@dataclass(frozen=True)
class MaskChoice:
    """The mask taken: `logits` f32 [O, 1, 4h, 4w], its `iou` f32 [O, 1], the `token` f32 [O, C] that makes the object
    pointer, and `index` i32 [O] of the candidate (0…2; -1 for the single mask)."""

    logits: Tensor
    iou: Tensor
    token: Tensor
    index: Tensor


class MaskDecoder(MaskDecoderParts):
    """Image embedding + prompts → `DecodedMasks`; `choose` applies the multimask rules. `numbered_mlp`: see
    `TwoWayBlock`."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("stability_fallback", (True, False), "an unstable single mask is replaced by the best candidate"),
        BranchPoint(
            "pointer_from_chosen_mask", (True, False), "with candidates, the pointer comes from the chosen one's token"
        ),
    )

    def __init__(self, channels: int, hidden: int, heads: int = 8, numbered_mlp: bool = False) -> None:
        super().__init__(
            channels,
            hidden,
            heads,
            numbered_mlp=numbered_mlp,
            object_score=True,
            finer_maps=True,
            iou_sigmoid=True,
        )
        declare(self)

    def forward(
        self,
        image: Tensor,
        image_position: Tensor,
        sparse: Tensor,
        sparse_valid: Tensor | None,
        dense: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
    ) -> DecodedMasks:
        """high_res_0 f32 [1, C/8, 4h, 4w], high_res_1 f32 [1, C/4, 2h, 2w]; the others as in `attend`."""
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens, embedding = self.attend(own, image, image_position, sparse, sparse_valid, dense)
        mask_tokens = tokens[:, 2:6]
        logits = self.masks(mask_tokens, embedding, (high_res_0, high_res_1))
        return DecodedMasks(
            logits, self.iou_prediction_head(tokens[:, 1]), mask_tokens, self.pred_obj_score_head(tokens[:, 0])
        )

    def choose(self, decoded: DecodedMasks, multimask: Tensor, preferred: Tensor | None = None) -> MaskChoice:
        """`multimask` bool [O]: take the candidate with the largest IoU (first on ties); else the single mask, or,
        where its stability |logit > 0.05| / |logit > -0.05| is under 0.98, the best candidate after all, with the
        single mask's token.

        `preferred` i32 [O], candidates 0…2: where `multimask`, that one is taken whatever the IoUs."""
        best = decoded.ious[:, 1:].argmax(1)
        if preferred is not None:
            best = torch.where(multimask, preferred.to(torch.int64), best)
        row = torch.arange(4)[None] == best[:, None] + 1  # bool [O, 4]: exactly one true
        best_logits = torch.where(row[:, :, None, None], decoded.logits, 0.0).sum(1, keepdim=True)
        best_iou = torch.where(row, decoded.ious, 0.0).sum(1, keepdim=True)
        best_token = torch.where(row[:, :, None], decoded.tokens, 0.0).sum(1)
        take_best = multimask
        if self.stability_fallback:
            take_best = take_best | (self.stability(decoded.logits[:, 0]) < STABILITY_THRESHOLD)
        logits = torch.where(take_best[:, None, None, None], best_logits, decoded.logits[:, :1])
        iou = torch.where(take_best[:, None], best_iou, decoded.ious[:, :1])
        token = decoded.tokens[:, 0]
        if self.pointer_from_chosen_mask:
            token = torch.where(multimask[:, None], best_token, token)
        index = torch.where(take_best, best.to(torch.int32), torch.full_like(best, -1, dtype=torch.int32))
        return MaskChoice(logits, iou, token, index)

    @staticmethod
    def stability(logits: Tensor) -> Tensor:
        """f32 [O, H, W] → f32 [O]: area over +delta by area over -delta; 1 where the latter is empty."""
        inner = (logits > STABILITY_DELTA).to(torch.float32).sum((1, 2))
        outer = (logits > -STABILITY_DELTA).to(torch.float32).sum((1, 2))
        return torch.where(outer > 0, inner / outer.clamp(min=1.0), torch.ones_like(outer))
