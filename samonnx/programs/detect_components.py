"""The components of the programs that detect: words and image in, detections out, free of branches and of state.

L context length, B, K and M places for boxes, points and masks, T = L + B + K + M + 1 prompt tokens, D hidden width, g
cells of the feature map a side, Q queries.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samonnx.models.detector import Detector
from samonnx.models.feature_pyramid import VisionBackbone

__all__ = ["Decode", "DetectorNeck", "EncodePrompts", "EncodeTrunk", "Fuse", "SegmentQueries"]


class EncodeTrunk(nn.Module):
    """image f32 [1, 3, S, S] → trunk_map f32 [1, C, t, t], shared by detector and tracker; the necks enlarge it to the
    grid of g x g cells."""

    def __init__(self, vision_backbone: VisionBackbone) -> None:
        super().__init__()
        self.trunk = vision_backbone.trunk

    def forward(self, image: Tensor) -> Tensor:
        return self.trunk.encode(image)


class DetectorNeck(nn.Module):
    """trunk_map → high_res_0 f32 [1, D, 4g, 4g], high_res_1 f32 [1, D, 2g, 2g], features f32 [1, D, g, g]."""

    def __init__(self, vision_backbone: VisionBackbone) -> None:
        super().__init__()
        self.vision_backbone = vision_backbone

    def forward(self, trunk_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grid_map = self.vision_backbone.trunk.to_grid(trunk_map)
        level_0, level_1, features = self.vision_backbone.detector_maps(grid_map)
        return level_0, level_1, features


class EncodePrompts(nn.Module):
    """Words and what was pointed at → prompt f32 [1, T, D], prompt_valid bool [1, T]: words first, then geometry."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.geometry_encoder = detector.geometry_encoder

    def forward(
        self, features: Tensor, text_features: Tensor, text_valid: Tensor, *places: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens, valid = self.geometry_encoder(features, *places)
        words = torch.where(text_valid[..., None], text_features, 0.0)  # masked later, when infinity would spread
        return torch.cat((words, tokens), dim=1), torch.cat((text_valid, valid), dim=1)


class Fuse(nn.Module):
    """Image features that have seen the prompt: memory f32 [1, g·g, D]."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.encoder = detector.transformer.encoder

    def forward(self, features: Tensor, prompt: Tensor, prompt_valid: Tensor) -> Tensor:
        memory: Tensor = self.encoder(features, prompt, prompt_valid)
        return memory


class Decode(nn.Module):
    """memory and prompt → queries f32 [1, Q, D] (of all layers, [layers, 1, Q, D], if masks are made of all), boxes
    f32 [1, Q, 4] (x0, y0, x1, y1), logits f32 [1, Q], presence f32 [1], scores f32 [1, Q]."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(
        self, memory: Tensor, prompt: Tensor, prompt_valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        decoded = self.detector.transformer.decoder(memory, prompt, prompt_valid)
        last, presence = decoded.queries[-1], decoded.presence_logits[-1][:, 0]
        class_logits = self.detector.dot_prod_scoring(last, prompt, prompt_valid)
        queries = decoded.queries if self.detector.segmentation_head.mask_source == "all_layers" else last
        logits, scores = self.detector.scored(class_logits, presence)
        centre, half = decoded.boxes[..., :2], decoded.boxes[..., 2:] * 0.5
        return queries, torch.cat((centre - half, centre + half), dim=-1), logits, presence, scores


class SegmentQueries(nn.Module):
    """→ masks f32 [1, Q, 4g, 4g], semantic_mask f32 [1, 1, 4g, 4g], logits; of masks of all layers the last."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.segmentation_head = detector.segmentation_head

    def forward(
        self,
        memory: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
        queries: Tensor,
        prompt: Tensor,
        prompt_valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        masks, semantic_mask = self.segmentation_head(memory, high_res_0, high_res_1, queries, prompt, prompt_valid)
        return masks[-1] if self.segmentation_head.mask_source == "all_layers" else masks, semantic_mask
