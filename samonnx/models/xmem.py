"""XMem: key encoder, value encoder and decoder, under the parameter names of the released checkpoint.

Cheng and Schwing, "XMem: Long-Term Video Object Segmentation with an Atkinson-Shiffrin Memory Model" (2022); upstream
`model/network.py`. Only networks are here; the memory is in `samonnx.models.xmem_bank` (bounded, traceable) and
`samonnx.models.xmem_reference` (eager). A frame is padded to multiples of 16 by the caller
(`samonnx.models.xmem_masks`); grid h x w is a sixteenth of it. Rows are objects O.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.xmem_decoder import Decoder
from samonnx.models.xmem_encoders import KeyEncoder, KeyProjection, ValueEncoder
from samonnx.models.xmem_masks import sum_of_others

__all__ = [
    "IMAGE_MEAN",
    "IMAGE_STD",
    "STRIDE",
    "FrameFeatures",
    "XMem",
    "XMemWidths",
    "args_of_shapes",
    "build",
    "widen_single_object",
]

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

STRIDE = 16
"""Pixels along a side of a cell of the grid."""

_FIRST_VALUE_LAYER = "value_encoder.conv1.weight"


class FrameFeatures(NamedTuple):
    """Of one frame: key f32 [1, K, h, w], shrinkage f32 [1, 1, h, w] (at least 1), selection f32 [1, K, h, w] (0 to 1);
    maps f32 [1, 16t, h, w], [1, 8t, 2h, 2w], [1, 4t, 4h, 4w] with t the trunk's width."""

    key: Tensor
    shrinkage: Tensor
    selection: Tensor
    f16: Tensor
    f8: Tensor
    f4: Tensor


@dataclass(frozen=True)
class XMemWidths:
    """Channels: `key`, `value`, `sensory` (0: no sensory memory), `trunk` of the stems (inner widths are multiples of
    it), and blocks in each of the three stages of the two ResNets. The defaults are the released network's."""

    key: int = 64
    value: int = 512
    sensory: int = 64
    trunk: int = 64
    key_blocks: tuple[int, int, int] = (3, 4, 6)
    value_blocks: tuple[int, int, int] = (2, 2, 2)

    def __post_init__(self) -> None:
        # CBAM's inner width is a sixteenth of the width that it looks at.
        least = {"key": 1, "value": 16, "sensory": 0, "trunk": 2}
        wrong = [
            f"{name} {getattr(self, name)} (at least {low})" for name, low in least.items() if getattr(self, name) < low
        ]
        for name in ("key_blocks", "value_blocks"):
            blocks = getattr(self, name)
            if len(blocks) != 3 or min(blocks) < 1:
                wrong.append(f"{name} {list(blocks)} (three numbers, at least 1 each)")
        if wrong:
            raise SamonnxError(f"XMem cannot have these widths: {', '.join(wrong)}")

    @classmethod
    def of_shapes(cls, shapes: Mapping[str, Sequence[int]]) -> XMemWidths:
        """Read off the names and shapes of a state dict, as upstream does for key, value and sensory memory.

        Raises SamonnxError where a key that tells a width is missing."""

        def rows(key: str) -> int:
            if key not in shapes:
                raise SamonnxError(f"{key!r} is not among the {len(shapes)} weights, so this is no XMem checkpoint")
            return shapes[key][0]

        def blocks(*stages: str) -> tuple[int, int, int]:
            first, second, third = (sum(f"{name}.{n}.conv1.weight" in shapes for n in range(64)) for name in stages)
            return first, second, third

        gated = "decoder.hidden_update.transform.weight"
        return cls(
            key=rows("key_proj.key_proj.weight"),
            value=rows("value_encoder.fuser.block2.conv2.weight"),
            sensory=rows(gated) // 3 if gated in shapes else 0,
            trunk=rows("key_encoder.conv1.weight"),
            key_blocks=blocks("key_encoder.res2", "key_encoder.layer2", "key_encoder.layer3"),
            value_blocks=blocks("value_encoder.layer1", "value_encoder.layer2", "value_encoder.layer3"),
        )


class XMem(nn.Module):
    """The three networks; they keep nothing from frame to frame."""

    image_mean: ClassVar[tuple[float, float, float]] = IMAGE_MEAN
    image_std: ClassVar[tuple[float, float, float]] = IMAGE_STD

    # Component name → key prefixes, for the report of a loaded checkpoint.
    components: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            "key encoder": ("key_encoder.", "key_proj."),
            "value encoder": ("value_encoder.",),
            "decoder": ("decoder.",),
        }
    )

    def __init__(self, widths: XMemWidths) -> None:
        super().__init__()
        self.widths = widths
        self.key_encoder = KeyEncoder(widths.trunk, widths.key_blocks)
        self.value_encoder = ValueEncoder(widths.trunk, widths.value, widths.sensory, widths.value_blocks)
        self.key_proj = KeyProjection(16 * widths.trunk, widths.key)
        self.decoder = Decoder(widths.trunk, widths.value, widths.sensory)

    @staticmethod
    def checkpoint_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a checkpoint as this module takes them, see `widen_single_object`."""
        return widen_single_object(tensors)

    def encode_key(self, image: Tensor) -> FrameFeatures:
        """image f32 [1, 3, 16h, 16w], normalised and padded."""
        f16, f8, f4 = self.key_encoder(image)
        key, shrinkage, selection = self.key_proj(f16)
        return FrameFeatures(key, shrinkage, selection, f16, f8, f4)

    def encode_value(self, image: Tensor, f16: Tensor, sensory: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """masks f32 [O, 16h, 16w], probabilities after aggregation, 0 for rows without an object; sensory f32
        [O, C, h, w] → value f32 [O, V, h, w], the new sensory state."""
        value, updated = self.value_encoder(image, f16, sensory, masks, sum_of_others(masks))
        return value, updated

    def decode(self, features: FrameFeatures, readout: Tensor, sensory: Tensor) -> tuple[Tensor, Tensor]:
        """readout f32 [O, V, h, w]; sensory f32 [O, C, h, w] → logits f32 [O, 16h, 16w], the new sensory state."""
        logits, updated = self.decoder(features.f16, features.f8, features.f4, readout, sensory)
        return logits, updated


def args_of_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, int | tuple[int, ...]]:
    """Arguments of `build` for a checkpoint of these shapes. Raises SamonnxError where it is no XMem checkpoint."""
    widths = XMemWidths.of_shapes(shapes)
    return {
        "key_dim": widths.key,
        "value_dim": widths.value,
        "hidden_dim": widths.sensory,
        "trunk_dim": widths.trunk,
        "key_blocks": widths.key_blocks,
        "value_blocks": widths.value_blocks,
    }


def widen_single_object(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that was trained with one object (its value encoder takes 4 channels: image and
    mask), with a zero fifth channel for the other objects' masks; those of any other checkpoint as they are."""
    widened = dict(tensors)
    first = widened.get(_FIRST_VALUE_LAYER)
    if first is not None and first.ndim == 4 and first.shape[1] == 4:
        widened[_FIRST_VALUE_LAYER] = torch.cat([first, torch.zeros_like(first[:, :1])], 1)
    return widened


def build(
    key_dim: int = 64,
    value_dim: int = 512,
    hidden_dim: int = 64,
    trunk_dim: int = 64,
    key_blocks: Sequence[int] = (3, 4, 6),
    value_blocks: Sequence[int] = (2, 2, 2),
) -> XMem:
    """Build the module (weights as torch initialises them), in eval mode; see `XMemWidths`, `hidden_dim` is the sensory
    memory's. Raises SamonnxError for widths that do not fit."""
    blocks = tuple(key_blocks), tuple(value_blocks)
    return XMem(XMemWidths(key_dim, value_dim, hidden_dim, trunk_dim, *blocks)).eval()  # type: ignore[arg-type]  # checked
