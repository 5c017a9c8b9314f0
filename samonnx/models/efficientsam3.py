"""EfficientSAM3 and SAM 3: detector and tracker over one trunk, under the parameter names of the released video
checkpoints. The members of the family differ in trunk and text encoder alone."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.detector import Detector, DetectorSizes
from samonnx.models.feature_pyramid import VisionBackbone
from samonnx.models.sam3_tracker import Sam3Tracker
from samonnx.models.text_encoders import build_language_backbone
from samonnx.models.tracker import RGB, TrackerSizes
from samonnx.models.trunks import build_trunk

__all__ = ["EfficientSAM3", "build"]


class EfficientSAM3(nn.Module):
    """`detector` and `tracker`. Keys that nothing reads are parameters too, so that a released file loads whole."""

    image_mean: ClassVar[RGB] = (0.5, 0.5, 0.5)
    image_std: ClassVar[RGB] = (0.5, 0.5, 0.5)

    # Rotary tables that SAM 3's own files carry, as complex numbers; ours are computed.
    ignored_keys: tuple[str, ...] = ("detector.backbone.vision_backbone.trunk.blocks.*.attn.freqs_cis",)
    # Component name → key prefixes, for the report of a loaded checkpoint.
    components: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "image encoder: trunk": ("detector.backbone.vision_backbone.trunk.",),
            "image encoder: detector's neck": ("detector.backbone.vision_backbone.convs.",),
            "image encoder: tracker's neck": ("detector.backbone.vision_backbone.sam2_convs.",),
            "text encoder": ("detector.backbone.language_backbone.",),
            "geometry encoder": ("detector.geometry_encoder.",),
            "fusion encoder": ("detector.transformer.encoder.",),
            "decoder": ("detector.transformer.decoder.",),
            "segmentation head": ("detector.segmentation_head.",),
            "scoring": ("detector.dot_prod_scoring.",),
            "memory attention": ("tracker.transformer.",),
            "memory encoder": ("tracker.maskmem_backbone.",),
            "prompt encoder": ("tracker.sam_prompt_encoder.",),
            "mask decoder": ("tracker.sam_mask_decoder.",),
            "embeddings and pointers": ("tracker.",),
        }
    )

    def __init__(self, detector: Detector, tracker: Sam3Tracker, trunk_dim: int) -> None:
        super().__init__()
        self.detector = detector
        self.tracker = tracker
        self._trunk_dim = trunk_dim

    @property
    def trunk_map_shape(self) -> tuple[int, int, int, int]:
        """Of what the trunk encodes an image to, before it is enlarged to the grid."""
        side = self.detector.backbone.vision_backbone.trunk.map_side(self.tracker.sizes.image_size)
        return 1, self._trunk_dim, side, side

    def tracker_levels(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image f32 [1, 3, S, S], normalised → the tracker's feature maps, f32 [1, D, 4h, 4w], [1, D, 2h, 2w], [1, D,
        h, w]."""
        backbone = self.detector.backbone.vision_backbone
        level_0, level_1, level_2 = backbone.tracker_maps(backbone.trunk(image))
        return level_0, level_1, level_2


def build(
    backbone: str = "repvit_m0_9",
    text_encoder: str = "mobileclip_s1",
    context_length: int = 32,
    text_positions: int = 77,
    image_size: int = 1008,
    hidden_dim: int = 256,
    memory_dim: int = 64,
    ffn_dim: int = 2048,
    trunk_dim: int = 1024,
    queries: int = 200,
    geometry_layers: int = 3,
    encoder_layers: int = 6,
    decoder_layers: int = 6,
    mask_prompts: bool = False,
) -> EfficientSAM3:
    """Build the module (weights as torch initialises them), in eval mode.

    `backbone`: one of `TRUNKS`; `text_encoder`: one of `TEXT_ENCODERS`; `context_length`: tokens of a text, at most
    `text_positions`, the rows of the checkpoint's position table; `image_size`: pixels, a multiple of 28; the widths
    and numbers scale the architecture down for tests. `mask_prompts` adds an encoder for masks given to the detector,
    which no released checkpoint has. Raises SamonnxError for unknown names and sizes that do not fit.
    """
    tracker = Sam3Tracker(
        TrackerSizes(image_size=image_size, hidden_dim=hidden_dim, memory_dim=memory_dim, ffn_dim=ffn_dim)
    )
    for name, value in {"queries": queries, "encoder_layers": encoder_layers, "decoder_layers": decoder_layers}.items():
        if value < 1:
            raise SamonnxError(f"model.args.{name}: {value} found, at least 1 expected")
    sizes = DetectorSizes(
        grid=tracker.sizes.grid,
        hidden_dim=hidden_dim,
        ffn_dim=ffn_dim,
        queries=queries,
        geometry_layers=geometry_layers,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        context_length=context_length,
        mask_prompts=mask_prompts,
    )
    trunk = build_trunk(backbone, trunk_dim, sizes.grid)
    words = build_language_backbone(text_encoder, context_length, hidden_dim, positions=text_positions)
    detector = Detector(sizes, VisionBackbone(trunk, trunk_dim, hidden_dim), words)
    return EfficientSAM3(detector, tracker, trunk_dim).eval()
