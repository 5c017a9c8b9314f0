"""The original SAM under the parameter names of the released checkpoints: vit_b, vit_l, vit_h.

Kirillov et al., "Segment Anything" (ICCV 2023); upstream `segment_anything/build_sam.py` and
`segment_anything/modeling/sam.py`. Its prompt encoder and mask decoder are those that SAM 2 has grown from
(`samonnx.models.prompt_encoder`, `samonnx.models.mask_decoder_parts`). No branch is left to a pin: which tokens a
prompt has is decided by its places, and both modes of masks are always computed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.prompt_encoder import SamPromptEncoder
from samonnx.models.sam_mask_decoder import SamMaskDecoder, SamMasks
from samonnx.models.sam_vit import PATCH, SAM_VIT_SIZES, SamVit, SamVitSize
from samonnx.models.tracker import RGB

__all__ = ["IMAGE_MEAN", "IMAGE_STD", "MODEL_TYPES", "TINY", "Sam", "SamSizes", "build", "corner_places"]

IMAGE_MEAN: RGB = (0.485, 0.456, 0.406)
IMAGE_STD: RGB = (0.229, 0.224, 0.225)

TINY = SamVitSize(32, 4, 2, (1, 3), window=3)
"""For tests: no checkpoint has it. Windowed and global blocks; windows that reach over the edge of 8 x 8 cells."""

MODEL_TYPES: Mapping[str, SamVitSize] = MappingProxyType({**SAM_VIT_SIZES, "tiny": TINY})
"""The image encoders that `build` knows: the released ones, and one for tests."""


@dataclass(frozen=True)
class SamSizes:
    """`image_size`: pixels a side of the network's frame; `hidden_dim`: channels of the image embedding and of tokens;
    `ffn_dim`: width inside the mask decoder's MLPs.

    Raises SamonnxError for figures that the network cannot have.
    """

    image_size: int = 1024
    hidden_dim: int = 256
    ffn_dim: int = 2048

    def __post_init__(self) -> None:
        for name in ("image_size", "hidden_dim", "ffn_dim"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise SamonnxError(f"model.args.{name}: {value!r} found, a whole number of at least 1 expected")
        if self.hidden_dim % 32:
            raise SamonnxError(
                f"model.args.hidden_dim: {self.hidden_dim} found, a multiple of 32 expected (8 heads, channels / 8)"
            )

    @property
    def grid(self) -> int:
        """Side of the image embedding, h = w."""
        return self.image_size // PATCH

    @property
    def low_res(self) -> int:
        """Side of the decoder's masks and of mask prompts, in pixels: a quarter of the frame's."""
        return 4 * self.grid


class Sam(nn.Module):
    """Image encoder, prompt encoder and mask decoder, as the checkpoint has them."""

    image_mean: ClassVar[RGB] = IMAGE_MEAN
    image_std: ClassVar[RGB] = IMAGE_STD
    """Of red, green and blue in 0…1: the image encoder takes (value - mean) / deviation."""

    # Component name → key prefixes, for the report of a loaded checkpoint.
    components: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "image encoder": ("image_encoder.",),
            "image encoder: neck": ("image_encoder.neck.",),
            "prompt encoder": ("prompt_encoder.",),
            "mask decoder": ("mask_decoder.",),
        }
    )

    def __init__(self, encoder: SamVitSize, sizes: SamSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.image_encoder = SamVit(encoder, sizes.image_size, sizes.hidden_dim)
        self.prompt_encoder = SamPromptEncoder(sizes.hidden_dim, sizes.grid, sizes.image_size)
        self.mask_decoder = SamMaskDecoder(sizes.hidden_dim, sizes.ffn_dim)

    def encode_image(self, image: Tensor) -> Tensor:
        """Image f32 [1, 3, S, S], normalised → features f32 [1, D, h, w]."""
        features: Tensor = self.image_encoder(image)
        return features

    def predict(
        self,
        features: Tensor,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_input: Tensor,
        mask_input_valid: Tensor,
    ) -> SamMasks:
        """Features of one image and O prompts → masks of each prompt.

        features f32 [1, D, h, w]; point_coords f32 [O, K, 2], x and y in pixels of the S x S frame; point_labels i32
        [O, K]: 1 positive, 0 negative, 2 and 3 the first and second corner of the prompt's one box (`corner_places`),
        -1 an empty place; mask_input f32 [O, 1, 4h, 4w], logits; mask_input_valid bool [O]. What lies in empty places
        and in masks that are not valid does not matter. Raises SamonnxError for other shapes.
        """
        self._check(features, point_coords, point_labels)
        self._check_masks(point_labels, mask_input, mask_input_valid)
        encoder = self.prompt_encoder
        sparse, valid = encoder.padded_point_tokens(point_coords, point_labels)
        given = mask_input_valid[:, None, None, None]
        dense = torch.where(given, encoder.mask_map(torch.where(given, mask_input, 0.0)), encoder.no_mask_map())
        image = features.expand(point_labels.shape[0], -1, -1, -1)
        masks: SamMasks = self.mask_decoder(image, encoder.dense_position(), sparse, valid, dense)
        return masks

    def predict_points(self, features: Tensor, point_coords: Tensor, point_labels: Tensor) -> SamMasks:
        """`predict` of prompts none of which has a mask: what depends on the image alone is computed once for all."""
        self._check(features, point_coords, point_labels)
        encoder = self.prompt_encoder
        sparse, valid = encoder.padded_point_tokens(point_coords, point_labels)
        masks: SamMasks = self.mask_decoder(
            features, encoder.dense_position(), sparse, valid, encoder.no_mask_map(), one_image=True
        )
        return masks

    def _check(self, features: Tensor, coords: Tensor, labels: Tensor) -> None:
        prompts, places, sizes = labels.shape[0], labels.shape[-1], self.sizes
        self._require("features", features, (1, sizes.hidden_dim, sizes.grid, sizes.grid), labels)
        self._require("point_labels", labels, (prompts, places), labels)
        self._require("point_coords", coords, (prompts, places, 2), labels)

    def _check_masks(self, labels: Tensor, mask: Tensor, valid: Tensor) -> None:
        prompts, low = labels.shape[0], self.sizes.low_res
        self._require("mask_input", mask, (prompts, 1, low, low), labels)
        self._require("mask_input_valid", valid, (prompts,), labels)

    def _require(self, name: str, tensor: Tensor, shape: tuple[int, ...], labels: Tensor) -> None:
        if tuple(tensor.shape) != shape:
            raise SamonnxError(
                f"{name}: {list(tensor.shape)} found, {list(shape)} expected for point_labels {list(labels.shape)} "
                f"and an image of {self.sizes.image_size} pixels a side"
            )


def corner_places(boxes: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """boxes f32 [O, 4] (x0, y0, x1, y1 in pixels of the frame), valid bool [O] → two places of each prompt, to be
    joined with those of its points: coordinates f32 [O, 2, 2] and labels i32 [O, 2].

    Corners are taken as they are, sorted or not. The coordinates of a box that is not valid do not matter.
    """
    corners = torch.tensor((2, 3), dtype=torch.int32)
    return boxes.unflatten(1, (2, 2)), torch.where(valid[:, None], corners, -1).to(torch.int32)


def build(model_type: str = "vit_b", image_size: int = 1024, hidden_dim: int = 256, ffn_dim: int = 2048) -> Sam:
    """Build the module (weights as torch initialises them), in eval mode.

    `model_type`: one of `MODEL_TYPES`; `image_size`: pixels, a multiple of 16 (released weights have the shapes of
    1024); the widths scale the architecture down for tests. Raises SamonnxError for an unknown name and sizes that do
    not fit.
    """
    if model_type not in MODEL_TYPES:
        raise SamonnxError(f"model.args.model_type: {model_type!r} found, one of {', '.join(MODEL_TYPES)} expected")
    sizes = SamSizes(image_size=image_size, hidden_dim=hidden_dim, ffn_dim=ffn_dim)
    return Sam(MODEL_TYPES[model_type], sizes).eval()
