"""EfficientSAM3: a small trunk in place of SAM 3's, under the parameter names of the released video checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from torch import nn

from samonnx.errors import SamonnxError
from samonnx.models.feature_pyramid import VisionBackbone
from samonnx.models.repvit import REPVIT_SIZES, RepViTTrunk
from samonnx.models.sam3_tracker import Tracker, TrackerSizes

__all__ = ["EfficientSAM3", "build"]


class _Backbone(nn.Module):
    def __init__(self, vision_backbone: VisionBackbone) -> None:
        super().__init__()
        self.vision_backbone = vision_backbone


class _Detector(nn.Module):
    """The part of `detector.*` that tracking needs: the image encoder."""

    def __init__(self, backbone: _Backbone) -> None:
        super().__init__()
        self.backbone = backbone


class EfficientSAM3(nn.Module):
    """`detector.backbone.vision_backbone` (trunk and the tracker's neck) and `tracker`."""

    # Keys of released files inside the loaded prefixes that tracking never reads: the detector's own copy of the neck.
    ignored_keys: tuple[str, ...] = ("detector.backbone.vision_backbone.convs.*",)
    # Component name → key prefixes, for the report of a loaded checkpoint.
    components: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "image encoder: trunk": ("detector.backbone.vision_backbone.trunk.",),
            "image encoder: neck": ("detector.backbone.vision_backbone.",),
            "memory attention": ("tracker.transformer.",),
            "memory encoder": ("tracker.maskmem_backbone.",),
            "prompt encoder": ("tracker.sam_prompt_encoder.",),
            "mask decoder": ("tracker.sam_mask_decoder.",),
            "embeddings and pointers": ("tracker.",),
        }
    )

    def __init__(self, vision_backbone: VisionBackbone, tracker: Tracker) -> None:
        super().__init__()
        self.detector = _Detector(_Backbone(vision_backbone))
        self.tracker = tracker


def build(
    backbone: str = "repvit_m0_9",
    image_size: int = 1008,
    hidden_dim: int = 256,
    memory_dim: int = 64,
    ffn_dim: int = 2048,
    trunk_dim: int = 1024,
) -> EfficientSAM3:
    """Build the module (weights as torch initialises them), in eval mode.

    `backbone`: a key of `REPVIT_SIZES`; `image_size`: pixels, a multiple of 28; the widths scale the architecture
    down for tests. Raises SamonnxError for an unknown backbone or sizes that do not fit.
    """
    if backbone not in REPVIT_SIZES:
        raise SamonnxError(
            f"model.args.backbone: unknown backbone {backbone!r}; known: {', '.join(sorted(REPVIT_SIZES))}"
        )
    sizes = TrackerSizes(image_size=image_size, hidden_dim=hidden_dim, memory_dim=memory_dim, ffn_dim=ffn_dim)
    trunk = RepViTTrunk(REPVIT_SIZES[backbone], trunk_dim, sizes.grid)
    return EfficientSAM3(VisionBackbone(trunk, trunk_dim, hidden_dim), Tracker(sizes)).eval()
