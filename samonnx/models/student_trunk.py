"""What EfficientSAM3 puts behind each of its small trunks: a projection head, and the way to SAM 3's grid.

Source: upstream's `model_builder.py`, `ImageStudentEncoder`.
"""

from __future__ import annotations

from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.trunk import Trunk
from samonnx.pins import BranchPoint, declare

__all__ = ["StudentTrunk"]


class _Backbone(nn.Module):
    """The level `backbone.model` in the checkpoint's names."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class _ProjectedBackbone(nn.Module):
    """The level `model.backbone` / `model.head` in the checkpoint's names."""

    def __init__(self, model: nn.Module, width: int, channels: int) -> None:
        super().__init__()
        self.backbone = _Backbone(model)
        self.head = nn.Sequential(
            nn.Conv2d(width, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        projected: Tensor = self.head(self.backbone.model(x))
        return projected


class StudentTrunk(Trunk):
    """Image f32 [1, 3, S, S], normalised to about -1…1 → trunk map f32 [1, channels, grid, grid].

    `model` maps the image to f32 [1, width, ceil(S/32), ceil(S/32)]. The grid's stride is 14, so the head's map is
    enlarged bilinearly (half-pixel centres) to the grid. Raises SamonnxError if a trunk that is pinned not to resize
    has a map of another size.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "resize_to_grid", (True, False), "enlarge the head's map to the grid; false: it already has that size"
        ),
    )

    def __init__(self, model: nn.Module, width: int, channels: int, grid: int) -> None:
        super().__init__()
        declare(self)
        self.model = _ProjectedBackbone(model, width, channels)
        self.grid = grid

    def map_side(self, image_size: int) -> int:
        return -(-image_size // 32) if self.resize_to_grid else self.grid

    def encode(self, image: Tensor) -> Tensor:
        features: Tensor = self.model(image)
        return features

    def to_grid(self, features: Tensor) -> Tensor:
        if self.resize_to_grid:
            return F.interpolate(features, size=(self.grid, self.grid), mode="bilinear", align_corners=False)
        if features.shape[-1] != self.grid:
            raise SamonnxError(
                f"the trunk's map is {features.shape[-1]} wide and the grid {self.grid}: "
                "pin detector.backbone.vision_backbone.trunk.resize_to_grid to true"
            )
        return features
