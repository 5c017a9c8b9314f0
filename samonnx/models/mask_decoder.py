"""Mask decoder of SAM 2 and SAM 3: four mask candidates with predicted IoUs, an object score, and which candidate is
taken.

Ravi et al., "SAM 2" (2024); upstream `sam/mask_decoder.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.layers import MLP, LayerNorm2d
from samonnx.models.two_way_transformer import TwoWayTransformer
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


class MaskDecoder(nn.Module):
    """Image embedding + prompts → `DecodedMasks`; `choose` applies the multimask rules. `numbered_mlp`: see
    `TwoWayBlock`."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("stability_fallback", (True, False), "an unstable single mask is replaced by the best candidate"),
        BranchPoint(
            "pointer_from_chosen_mask", (True, False), "with candidates, the pointer comes from the chosen one's token"
        ),
    )

    def __init__(self, channels: int, hidden: int, heads: int = 8, numbered_mlp: bool = False) -> None:
        super().__init__()
        declare(self)
        self.transformer = TwoWayTransformer(channels, heads, hidden, numbered_mlp=numbered_mlp)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(4, channels)
        self.obj_score_token = nn.Embedding(1, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
        self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(channels, channels, channels // 8, 3) for _ in range(4))
        self.iou_prediction_head = MLP(channels, channels, 4, 3, sigmoid=True)
        self.pred_obj_score_head = MLP(channels, channels, 1, 3)

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
        """image f32 [O, C, h, w]; image_position f32 [1, C, h, w]; sparse f32 [O, T, C]; sparse_valid bool [O, T] or
        None (all count); dense f32 [O or 1, C, h or 1, w or 1]; high_res_0 f32 [1, C/8, 4h, 4w]; high_res_1 f32 [1,
        C/4, 2h, 2w]."""
        objects = sparse.shape[0]
        own = torch.cat((self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((own[None].expand(objects, -1, -1), sparse), dim=1)
        mask = None
        if sparse_valid is not None:
            always = torch.ones(objects, own.shape[0], dtype=torch.bool)
            mask = torch.cat((always, sparse_valid), dim=1)[:, None, None]
        embedding = image + dense
        height, width = embedding.shape[-2:]
        cells = embedding.flatten(2).transpose(1, 2)
        position = image_position.flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(cells, position, tokens, mask)

        up0, norm, _, up1, _ = self.output_upscaling
        embedding = cells.transpose(1, 2).unflatten(2, (height, width))
        upscaled = F.gelu(norm(up0(embedding) + high_res_1))
        upscaled = F.gelu(up1(upscaled) + high_res_0)
        mask_tokens = tokens[:, 2:6]
        weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits = (weights @ upscaled.flatten(2)).unflatten(2, (4 * height, 4 * width))
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
