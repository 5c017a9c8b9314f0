"""What the mask decoders of SAM, SAM 2 and SAM 3 share: their parameters, and the way from prompts to masks.

Kirillov et al., "Segment Anything" (ICCV 2023); upstream `segment_anything/modeling/mask_decoder.py`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.layers import MLP, LayerNorm2d
from samonnx.models.two_way_transformer import TwoWayTransformer

__all__ = ["MaskDecoderParts"]


class MaskDecoderParts(nn.Module):
    """The decoder's parameters under the names that the released files have in common.

    What SAM 2 adds to SAM: `object_score`, one more token and its head; `finer_maps`, projections of image features at
    twice and four times the grid; `iou_sigmoid`, IoUs in 0…1. `numbered_mlp`: see `TwoWayBlock`.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        heads: int = 8,
        *,
        numbered_mlp: bool = False,
        object_score: bool = False,
        finer_maps: bool = False,
        iou_sigmoid: bool = False,
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(channels, heads, hidden, numbered_mlp=numbered_mlp)
        self.iou_token = nn.Embedding(1, channels)
        self.mask_tokens = nn.Embedding(4, channels)
        if object_score:
            self.obj_score_token = nn.Embedding(1, channels)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        if finer_maps:
            self.conv_s0 = nn.Conv2d(channels, channels // 8, 1)
            self.conv_s1 = nn.Conv2d(channels, channels // 4, 1)
        self.output_hypernetworks_mlps = nn.ModuleList(MLP(channels, channels, channels // 8, 3) for _ in range(4))
        self.iou_prediction_head = MLP(channels, channels, 4, 3, sigmoid=iou_sigmoid)
        if object_score:
            self.pred_obj_score_head = MLP(channels, channels, 1, 3)

    def attend(
        self,
        own: Tensor,
        image: Tensor,
        image_position: Tensor,
        sparse: Tensor,
        sparse_valid: Tensor | None,
        dense: Tensor,
        one_image: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """The two-way transformer on the decoder's own tokens, f32 [tokens, C], and the prompts.

        image f32 [O, C, h, w]; image_position f32 [1, C, h, w]; sparse f32 [O, T, C]; sparse_valid bool [O, T] or None
        (all count); dense f32 [O or 1, C, h or 1, w or 1] → tokens f32 [O, own + T, C], embedding f32 [O, C, h, w].
        `one_image`: image and dense are f32 [1, ...], the same for all objects.
        """
        objects = sparse.shape[0]
        tokens = torch.cat((own[None].expand(objects, -1, -1), sparse), dim=1)
        mask = None
        if sparse_valid is not None:
            always = torch.ones(objects, own.shape[0], dtype=torch.bool)
            mask = torch.cat((always, sparse_valid), dim=1)[:, None, None]
        embedding = image + dense
        height, width = embedding.shape[-2:]
        cells = embedding.flatten(2).transpose(1, 2)
        position = image_position.flatten(2).transpose(1, 2)
        tokens, cells = self.transformer(cells, position, tokens, mask, one_image)
        return tokens, cells.transpose(1, 2).unflatten(2, (height, width))

    def masks(self, mask_tokens: Tensor, embedding: Tensor, finer: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """mask_tokens f32 [O, 4, C], embedding f32 [O, C, h, w]; finer f32 [1, C/8, 4h, 4w] and [1, C/4, 2h, 2w], added
        on the way up → logits f32 [O, 4, 4h, 4w]."""
        up0, norm, _, up1, _ = self.output_upscaling
        height, width = embedding.shape[-2:]
        upscaled = up0(embedding)
        if finer is not None:
            upscaled = upscaled + finer[1]
        upscaled = up1(F.gelu(norm(upscaled)))
        if finer is not None:
            upscaled = upscaled + finer[0]
        upscaled = F.gelu(upscaled)
        weights = torch.stack([mlp(mask_tokens[:, i]) for i, mlp in enumerate(self.output_hypernetworks_mlps)], dim=1)
        logits: Tensor = (weights @ upscaled.flatten(2)).unflatten(2, (4 * height, 4 * width))
        return logits
