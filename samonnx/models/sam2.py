"""SAM 2.1: Hiera and the tracker, under the parameter names of the released checkpoints.

Ravi et al., "SAM 2: Segment Anything in Images and Videos" (2024); upstream `sam2/modeling/sam2_base.py` with the
figures of `sam2/configs/sam2.1`. SAMURAI (Yang et al., 2024) is the same network with other branches and another
memory policy. What this model has in common with SAM 3 is in `samonnx.models.tracker`; it differs by

- the image encoder, the size of the image (1024 pixels, stride 16) and its normalisation (`IMAGE_MEAN`, `IMAGE_STD`);
- names: `memory_attention` and `memory_encoder`, and the numbered layers of the mask decoder's MLPs;
- the mask that the memory encoder is given, which has 16 times the grid's side already and is not resized;
- the mask prompt, which upstream's video predictor takes through the low resolution (`mask_prompt_round_trip`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.hiera import HIERA_SIZES, HieraSizes
from samonnx.models.memory_attention import MemoryAttention
from samonnx.models.memory_encoder import MemoryEncoder
from samonnx.models.sam2_image_encoder import ImageEncoder
from samonnx.models.tracker import RGB, Tracker, TrackerSizes
from samonnx.pins import BranchPoint

__all__ = ["IMAGE_MEAN", "IMAGE_STD", "STRIDE", "TINY", "TRUNKS", "Sam2", "build"]

IMAGE_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGE_STD: RGB = (0.229, 0.224, 0.225)

STRIDE = 16
"""Pixels along a side of a cell of the image embedding."""

TINY = HieraSizes(8, 1, (1, 1, 3, 1), (8, 4, 14, 7), (3,), 7)
"""For tests: no checkpoint has it. Blocks that pool, a global one, and windows that reach over the map's edge."""

TRUNKS: Mapping[str, HieraSizes] = MappingProxyType({**HIERA_SIZES, "tiny": TINY})
"""The trunks that `build` knows: those of the released hiera_t, hiera_s, hiera_b+ and hiera_l, and one for tests."""


class Sam2(Tracker):
    """Image encoder and tracker in one module, as the checkpoint has them."""

    image_mean: ClassVar[RGB] = IMAGE_MEAN
    image_std: ClassVar[RGB] = IMAGE_STD

    # Component name → key prefixes, for the report of a loaded checkpoint.
    components: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "image encoder: trunk": ("image_encoder.trunk.",),
            "image encoder: neck": ("image_encoder.neck.",),
            "memory attention": ("memory_attention.",),
            "memory encoder": ("memory_encoder.",),
            "prompt encoder": ("sam_prompt_encoder.",),
            "mask decoder": ("sam_mask_decoder.",),
            "embeddings and pointers": ("",),
        }
    )

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "presence_threshold",
            (0.0, -1.0),
            "object score above which masks and pointer are those of a present object (SAMURAI: -1)",
        ),
        BranchPoint(
            "memory_presence_threshold",
            (0.0, -1.0),
            "object score above which the memory is that of a present object (SAMURAI leaves it at 0)",
        ),
        BranchPoint(
            "mask_prompt_round_trip",
            (True, False),
            "a mask prompt's output and memory go by its low-resolution logits, enlarged again, the memory by those "
            "thresholded, as in upstream's video predictor; false: by the mask itself",
        ),
    )

    def __init__(self, encoder: ImageEncoder, sizes: TrackerSizes) -> None:
        super().__init__(sizes, numbered_mlp=True)
        width, memory = sizes.hidden_dim, sizes.memory_dim
        self.image_encoder = encoder
        self.memory_attention = MemoryAttention(width, memory, sizes.ffn_dim, sizes.grid)
        self.memory_encoder = MemoryEncoder(width, memory, sizes.grid)

    @property
    def tracker(self) -> Tracker:
        """The model itself: its parameters stand beside the image encoder's."""
        return self

    def tracker_levels(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Image f32 [1, 3, S, S], normalised → feature maps f32 [1, D, 4h, 4w], [1, D, 2h, 2w], [1, D, h, w]."""
        level_0, level_1, level_2 = self.image_encoder(image)
        return level_0, level_1, level_2

    def attend_memory(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointer: Tensor, pointer_position: Tensor
    ) -> Tensor:
        conditioned: Tensor = self.memory_attention(features, memory, memory_position, pointer, pointer_position)
        return conditioned

    def memory_map(self, features: Tensor, mask_values: Tensor) -> Tensor:
        memory: Tensor = self.memory_encoder(features, mask_values)
        return memory


def build(
    trunk: str = "t", image_size: int = 1024, hidden_dim: int = 256, memory_dim: int = 64, ffn_dim: int = 2048
) -> Sam2:
    """Build the module (weights as torch initialises them), in eval mode.

    `trunk`: one of `TRUNKS`; `image_size`: pixels, a multiple of 32; the widths scale the architecture down for tests.
    Raises SamonnxError for an unknown name and sizes that do not fit.
    """
    if trunk not in TRUNKS:
        raise SamonnxError(f"model.args.trunk: {trunk!r} found, one of {', '.join(TRUNKS)} expected")
    sizes = TrackerSizes(
        image_size=image_size, hidden_dim=hidden_dim, memory_dim=memory_dim, ffn_dim=ffn_dim, stride=STRIDE
    )
    return Sam2(ImageEncoder(TRUNKS[trunk], image_size, hidden_dim), sizes).eval()
