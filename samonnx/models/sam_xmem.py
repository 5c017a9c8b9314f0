"""SAM in front of XMem: a click or a box on any frame becomes a mask, which XMem follows from then on.

SAM looks at a picture of its own, S x S, of which the frame fills the upper left part; that part has the proportions of
XMem's frame of H x W pixels, so that its masks have one way into that frame: enlarged to S x S, cut, resized, as the
original does it (`samonnx.models.sam_geometry.original_masks`), here as one matrix an axis. Its mask is that of
`multimask_output=False`, and a pixel belongs to it where its logit is above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from samonnx.models import sam as sam_module
from samonnx.models import xmem as xmem_module
from samonnx.models.sam import Sam
from samonnx.models.sam_geometry import Size, resized_size
from samonnx.models.xmem import XMem
from samonnx.runtime.separable_resize import bilinear, composed, cut

__all__ = ["PromptMasks", "SamXMem", "args_of_shapes", "build", "frame_masks", "xmem_of"]


class PromptMasks(NamedTuple):
    """`logits` f32 [O, H, W] in XMem's frame; `ious` f32 [O], as SAM predicts them; `masks` f32 [O, H, W] of 0 and 1,
    0 for rows without a prompt; `is_given` bool [O], which rows have one."""

    logits: Tensor
    ious: Tensor
    masks: Tensor
    is_given: Tensor


class SamXMem(nn.Module):
    """Both networks as their checkpoints have them, under `sam.` and `xmem.`."""

    # Component name → key prefixes, for the report of a loaded checkpoint.
    components: Mapping[str, tuple[str, ...]] = MappingProxyType(
        {
            f"{part}: {name}": tuple(f"{part}.{prefix}" for prefix in prefixes)
            for part, of_part in (("sam", Sam.components), ("xmem", XMem.components))
            for name, prefixes in of_part.items()
        }
    )

    def __init__(self, sam: Sam, xmem: XMem) -> None:
        super().__init__()
        self.sam = sam
        self.xmem = xmem

    def find_masks(self, features: Tensor, point_coords: Tensor, point_labels: Tensor, frame: Size) -> PromptMasks:
        """SAM's features f32 [1, D, h, w] of the frame, and the prompts of O objects as in `Sam.predict_points`, to
        masks in XMem's `frame` (height, width). A row without any label of 0 or more has no prompt."""
        found = self.sam.predict_points(features, point_coords, point_labels).of_mode(False)
        logits = frame_masks(found.logits[:, 0], frame, self.sam.sizes.image_size)
        is_given = (point_labels >= 0).any(1)
        masks = (logits > 0) & is_given[:, None, None]
        return PromptMasks(logits, found.ious[:, 0], masks.to(logits.dtype), is_given)

    @staticmethod
    def checkpoint_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Those of a checkpoint as this module takes them, see `XMem.checkpoint_tensors`."""
        followed = XMem.checkpoint_tensors(_under("xmem.", tensors))
        others = {name: tensor for name, tensor in tensors.items() if not name.startswith("xmem.")}
        return others | {f"xmem.{name}": tensor for name, tensor in followed.items()}


def xmem_of(module: nn.Module | object) -> XMem | None:
    """XMem in `module`: itself, or with SAM in front; None for another model."""
    if isinstance(module, SamXMem):
        return module.xmem
    return module if isinstance(module, XMem) else None


def frame_masks(logits: Tensor, frame: Size, image_size: int) -> Tensor:
    """SAM's low-resolution logits f32 [O, n, n] → f32 [O, H, W] in the `frame` (height, width) that fills the upper
    left part of its picture of `image_size` pixels a side."""
    rows, columns = (
        torch.from_numpy(_matrix(logits.shape[-1], image_size, part, side))
        for part, side in zip(resized_size(frame, image_size), frame, strict=True)
    )
    return rows @ (logits @ columns.T)


def _matrix(low: int, image_size: int, part: int, side: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """f32 [side, low]: bilinear to the picture, the padding cut off, bilinear to the frame."""
    resize = composed(cut(bilinear(low, image_size), part), bilinear(part, side))
    matrix = np.zeros((resize.new, resize.old))
    np.add.at(matrix, (np.arange(resize.new)[:, None], resize.places), resize.weights)
    return matrix.astype(np.float32)


def build(sam: Mapping[str, Any] = MappingProxyType({}), xmem: Mapping[str, Any] = MappingProxyType({})) -> SamXMem:
    """Build both (weights as torch initialises them), in eval mode, from the arguments of `samonnx.models.sam:build`
    and `samonnx.models.xmem:build`. Raises SamonnxError for arguments that do not fit."""
    return SamXMem(sam_module.build(**sam), xmem_module.build(**xmem)).eval()


def args_of_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Arguments of `build` that a checkpoint of these shapes tells: XMem's widths."""
    followed = _under("xmem.", shapes)
    return {"xmem": xmem_module.args_of_shapes(followed)} if followed else {}


def _under(prefix: str, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The entries below a prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in entries.items() if name.startswith(prefix)}
