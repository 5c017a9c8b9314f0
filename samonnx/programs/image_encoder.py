"""The components that encode a frame for the tracker: trunk and neck, which differ between the models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.sam2 import Sam2
from samonnx.models.tracker import TrackedModel
from samonnx.programs.detect_components import EncodeTrunk
from samonnx.programs.program import Component

__all__ = ["FrameEncoder", "TrackerNeck", "frame_encoder", "trunk_component"]


@dataclass(frozen=True)
class FrameEncoder:
    """`components`, the last of them `tracker_neck`, which gives high_res_0 f32 [1, D/8, 4h, 4w], high_res_1 f32 [1,
    D/4, 2h, 2w] and features f32 [1, D, h, w]; `feeds`: component → its input → what feeds it ("image" is the
    program's)."""

    components: tuple[Component, ...]
    feeds: Mapping[str, Mapping[str, str]]


class TrackerNeck(nn.Module):
    """trunk_map f32 [1, C', t, t] → high_res_0, high_res_1, features."""

    def __init__(self, model: EfficientSAM3) -> None:
        super().__init__()
        self.vision_backbone = model.detector.backbone.vision_backbone
        self.conv_s0 = model.tracker.sam_mask_decoder.conv_s0
        self.conv_s1 = model.tracker.sam_mask_decoder.conv_s1

    def forward(self, trunk_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grid_map = self.vision_backbone.trunk.to_grid(trunk_map)
        level_0, level_1, features = self.vision_backbone.tracker_maps(grid_map)
        return self.conv_s0(level_0), self.conv_s1(level_1), features


class _HieraTrunk(nn.Module):
    """image f32 [1, 3, S, S] → the maps of Hiera's four stages, fine to coarse."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.trunk = model.image_encoder.trunk

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.trunk(image))


class _HieraTrackerNeck(nn.Module):
    """The maps of four stages → high_res_0, high_res_1, features."""

    def __init__(self, model: Sam2) -> None:
        super().__init__()
        self.neck = model.image_encoder.neck
        self.conv_s0 = model.sam_mask_decoder.conv_s0
        self.conv_s1 = model.sam_mask_decoder.conv_s1

    def forward(self, *stages: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        level_0, level_1, features = self.neck(stages)
        return self.conv_s0(level_0), self.conv_s1(level_1), features


def frame_encoder(model: TrackedModel) -> FrameEncoder:
    """Trunk and neck of `model`, an `EfficientSAM3` or a `Sam2`."""
    neck = partial(Component, "tracker_neck", outputs=("high_res_0", "high_res_1", "features"))
    if isinstance(model, EfficientSAM3):
        return FrameEncoder(
            (
                trunk_component(model),
                # `track` is compared behind the neck's maps
                neck(
                    TrackerNeck(model).eval(),
                    {"trunk_map": torch.zeros(model.trunk_map_shape)},
                    seen_in=frozenset({"step"}),
                ),
            ),
            {"encode_trunk": {"image": "image"}, "tracker_neck": {"trunk_map": "encode_trunk.trunk_map"}},
        )
    if not isinstance(model, Sam2):
        raise TypeError(f"{type(model).__name__}: EfficientSAM3 or Sam2 expected")
    size, widths = model.sizes.image_size, model.image_encoder.trunk.sizes.widths
    stages = {f"stage_{i}": torch.zeros(1, width, size >> (2 + i), size >> (2 + i)) for i, width in enumerate(widths)}
    trunk = Component(
        "encode_trunk",
        _HieraTrunk(model).eval(),
        {"image": torch.zeros(1, 3, size, size)},
        tuple(stages),
        seen_in=frozenset({"encode_image"}),
    )
    return FrameEncoder(
        (trunk, neck(_HieraTrackerNeck(model).eval(), stages, seen_in=frozenset({"encode_image"}))),
        {"encode_trunk": {"image": "image"}, "tracker_neck": {name: f"encode_trunk.{name}" for name in stages}},
    )


def trunk_component(model: EfficientSAM3) -> Component:
    """The trunk that detector and tracker share: image → trunk_map."""
    size = model.tracker.sizes.image_size
    backbone = model.detector.backbone.vision_backbone
    return Component(
        "encode_trunk", EncodeTrunk(backbone).eval(), {"image": torch.zeros(1, 3, size, size)}, ("trunk_map",)
    )
