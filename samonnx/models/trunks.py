"""The trunks by name: SAM 3's own, and the small ones in its place, each with EfficientSAM3's projection head."""

from __future__ import annotations

from torch import nn

from samonnx.errors import SamonnxError
from samonnx.models.efficientvit import EFFICIENTVIT_SIZES, EfficientViT
from samonnx.models.repvit import REPVIT_SIZES, RepViT
from samonnx.models.student_trunk import StudentTrunk
from samonnx.models.tiny_vit import TINYVIT_SIZES, TinyViT
from samonnx.models.vit import VIT_SIZES, ViTTrunk

__all__ = ["TRUNKS", "build_trunk"]

TRUNKS: tuple[str, ...] = (*REPVIT_SIZES, *TINYVIT_SIZES, *EFFICIENTVIT_SIZES, *VIT_SIZES)
"""Every name that `build_trunk` knows; those that end in `_tiny` are scaled down for tests."""


def build_trunk(name: str, channels: int, grid: int) -> StudentTrunk | ViTTrunk:
    """The trunk `name` (one of `TRUNKS`): image f32 [1, 3, S, S], about -1…1 → f32 [1, channels, grid, grid].

    Its branch points are still to be pinned. Raises SamonnxError for an unknown name, and for channels or a grid that
    SAM 3's trunk, which has no head, does not give.
    """
    if name in VIT_SIZES:
        if channels != VIT_SIZES[name].width:
            raise SamonnxError(
                f"model.args.trunk_dim: {channels} found, {VIT_SIZES[name].width} expected: the map of {name!r} is not "
                "projected"
            )
        return ViTTrunk(VIT_SIZES[name], grid)
    model, width = _backbone(name)
    return StudentTrunk(model, width, channels, grid)


def _backbone(name: str) -> tuple[nn.Module, int]:
    """The model without its head, and the channels of its map."""
    if name in REPVIT_SIZES:
        return RepViT(REPVIT_SIZES[name]), REPVIT_SIZES[name].widths[-1]
    if name in TINYVIT_SIZES:
        return TinyViT(TINYVIT_SIZES[name]), TINYVIT_SIZES[name].widths[-1]
    if name in EFFICIENTVIT_SIZES:
        return EfficientViT(EFFICIENTVIT_SIZES[name]), EFFICIENTVIT_SIZES[name].widths[-1]
    raise SamonnxError(f"model.args.backbone: unknown backbone {name!r}; known: {', '.join(TRUNKS)}")
