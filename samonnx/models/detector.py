"""The detector of SAM 3: words, boxes and points → boxes, masks and scores of every instance of a concept.

    features ─► geometry encoder ─┐
    words ──────────────────────► prompt ─► fusion encoder ─► decoder ─┬► boxes, scores
                                                    │                  │
                                                    └────────► segmentation head ─► masks

Carion et al., "SAM 3: Segment Anything with Concepts" (2025); upstream `model/sam3_image.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from samonnx.models.detector_decoder import DetectorDecoder
from samonnx.models.dot_product_scoring import DotProductScoring
from samonnx.models.feature_pyramid import VisionBackbone
from samonnx.models.fusion_encoder import FusionEncoder
from samonnx.models.geometry_encoder import GeometryEncoder
from samonnx.models.segmentation_head import SegmentationHead
from samonnx.pins import BranchPoint, declare

__all__ = ["Detector", "DetectorSizes"]

JOINT_EPSILON = 1e-3
JOINT_LIMIT = 10.0


@dataclass(frozen=True)
class DetectorSizes:
    """Figures of the released model; tests scale them down. `grid`: cells of the feature map a side."""

    grid: int = 72
    hidden_dim: int = 256
    ffn_dim: int = 2048
    heads: int = 8
    queries: int = 200
    geometry_layers: int = 3
    encoder_layers: int = 6
    decoder_layers: int = 6
    context_length: int = 32
    mask_prompts: bool = False


class _Backbone(nn.Module):
    """The level `detector.backbone` in the checkpoint's names."""

    def __init__(self, vision_backbone: VisionBackbone, language_backbone: nn.Module) -> None:
        super().__init__()
        self.vision_backbone = vision_backbone
        self.language_backbone = language_backbone


class _Transformer(nn.Module):
    """The level `detector.transformer` in the checkpoint's names."""

    def __init__(self, sizes: DetectorSizes) -> None:
        super().__init__()
        d, ffn, heads = sizes.hidden_dim, sizes.ffn_dim, sizes.heads
        self.encoder = FusionEncoder(d, ffn, heads, sizes.encoder_layers, sizes.grid)
        self.decoder = DetectorDecoder(d, ffn, heads, sizes.decoder_layers, sizes.queries, sizes.grid)


class Detector(nn.Module):
    """All of `detector.*`; its parts are run one by one by the programs (`samonnx.programs.detect_components`)."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "joint_box_scores",
            (True, False),
            "logits are of the joint probability of class and presence, as in the video model; false: of the class, as "
            "in the image model",
        ),
    )

    def __init__(self, sizes: DetectorSizes, vision_backbone: VisionBackbone, language_backbone: nn.Module) -> None:
        super().__init__()
        declare(self)
        self.sizes = sizes
        d, ffn, heads = sizes.hidden_dim, sizes.ffn_dim, sizes.heads
        self.backbone = _Backbone(vision_backbone, language_backbone)
        self.geometry_encoder = GeometryEncoder(
            d, ffn, heads, sizes.geometry_layers, sizes.grid, mask_prompts=sizes.mask_prompts
        )
        self.transformer = _Transformer(sizes)
        self.segmentation_head = SegmentationHead(d, heads, sizes.grid)
        self.dot_prod_scoring = DotProductScoring(d, ffn)

    def scored(self, class_logits: Tensor, presence_logits: Tensor) -> tuple[Tensor, Tensor]:
        """Class logits f32 [B, Q] and presence logits f32 [B] → logits f32 [B, Q] (of what `joint_box_scores` says)
        and scores f32 [B, Q], 0…1, the joint probability.

        With joint logits the score is their sigmoid, so that it is at least 1e-3, as in the video model.
        """
        joint = class_logits.sigmoid() * presence_logits.sigmoid()[:, None]
        if not self.joint_box_scores:
            return class_logits, joint
        odds = joint.clamp(min=JOINT_EPSILON) / (1 - joint).clamp(min=JOINT_EPSILON)
        logits = torch.log(odds).clamp(-JOINT_LIMIT, JOINT_LIMIT)
        return logits, logits.sigmoid()
