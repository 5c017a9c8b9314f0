"""Masks and probabilities around XMem's networks: padding of frames, soft aggregation, masks that a frame is given.

Upstream `util/tensor_util.py` (padding), `model/aggregate.py` (from STM: Oh et al., 2019) and, for given masks,
`inference/inference_core.py`. Rows are objects O; rows without an object are inert: they come out as 0 and change
nothing else.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["aggregate", "crop", "merge_given", "pad", "padded_size", "sum_of_others"]

SMALLEST = 1e-7
"""Probabilities are kept this far from 0 and 1 before their logit is taken. In float32, 1 - 1e-7 is 1 - 1.19e-7."""

FAR = -1e9
"""A logit whose softmax is exactly 0 beside those of probabilities, which lie within ±17."""


def padded_size(pixels: int, multiple: int = 16) -> int:
    """The next multiple."""
    return (pixels + multiple - 1) // multiple * multiple


def pad(x: Tensor, multiple: int = 16) -> Tensor:
    """[..., H, W] → zeros around it up to the next multiples, evenly; an odd pixel goes right and to the bottom.

    For images after normalisation, and for masks."""
    height, width = x.shape[-2:]
    rows, columns = padded_size(height, multiple) - height, padded_size(width, multiple) - width
    return F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """Take back `pad` of [..., height, width]."""
    top, left = (x.shape[-2] - height) // 2, (x.shape[-1] - width) // 2
    return x[..., top : top + height, left : left + width]


def aggregate(probabilities: Tensor, known: Tensor | None = None) -> Tensor:
    """Soft aggregation: f32 [O, H, W], each object's on its own → f32 [1 + O, H, W], background first, summing to 1.

    The background's is the product of all (1 - p); all are clamped, then odds p / (1 - p) are divided by their sum.
    `known` bool [O]: rows where it is false are left out and become 0 (None: all count).
    """
    if known is not None:
        probabilities = torch.where(known[:, None, None], probabilities, 0.0)
    background = (1 - probabilities).prod(0, keepdim=True)
    clamped = torch.cat([background, probabilities]).clamp(SMALLEST, 1 - SMALLEST)
    logits = (clamped / (1 - clamped)).log()
    if known is not None:
        counted = torch.cat([torch.ones_like(known[:1]), known])
        logits = torch.where(counted[:, None, None], logits, FAR)
    return logits.softmax(0)


def merge_given(predicted: Tensor, given: Tensor, is_given: Tensor) -> Tensor:
    """What is aggregated on a frame with masks: f32 [O, H, W].

    predicted f32 [O, H, W]: probabilities of this frame after aggregation, 0 for objects that are new; given f32
    [O, H, W]: masks of 0 and 1; is_given bool [O]. An object with a mask has that; another keeps its prediction, except
    where the given masks sum to more than 1/2.
    """
    row = is_given[:, None, None]
    masks = torch.where(row, given, 0.0)
    taken = masks.sum(0, keepdim=True) > 0.5
    return torch.where(row, masks, torch.where(taken, 0.0, predicted))


def sum_of_others(masks: Tensor) -> Tensor:
    """[O, H, W] → for each object the sum of all other objects' masks (zeros for one object).

    A product with a matrix of ones, zeros on its diagonal: the total minus one's own would lose the small ones."""
    count = masks.shape[0]
    other = 1 - torch.eye(count, dtype=masks.dtype, device=masks.device)
    summed: Tensor = (other @ masks.flatten(1)).unflatten(1, masks.shape[1:])
    return summed
