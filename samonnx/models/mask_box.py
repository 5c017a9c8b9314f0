"""The box of a mask, its overlap with another, and the coordinates in which it is tracked.

Boxes are f32 [..., 4]. Corners: x0, y0, x1, y1 in pixels of the mask, the last ones inclusive (a mask of one pixel
has x1 = x0), and areas without the +1 that this would call for. States: centre x, centre y, aspect ratio w/h, height
h. Upstream SAMURAI: `sam2/modeling/sam2_base.py` (`_forward_sam_heads`), `sam2/utils/kalman_filter.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["box_iou", "corners_of_state", "mask_box", "state_of_corners"]


def mask_box(logits: Tensor) -> Tensor:
    """logits f32 [..., H, W] → corners f32 [..., 4] of the pixels above 0, whole numbers; 0, 0, 0, 0 if there is none.

    A column has a pixel above 0 just when its maximum is: two maxima over the map, and nothing of its size is stored.
    """
    x0, x1 = _extent(logits.amax(-2) > 0)
    y0, y1 = _extent(logits.amax(-1) > 0)
    return torch.stack((x0, y0, x1, y1), -1)


def _extent(present: Tensor) -> tuple[Tensor, Tensor]:
    """bool [..., L] → first and last place that is true, f32 [...]; 0 and 0 if none is."""
    length = present.shape[-1]
    place = torch.arange(length, dtype=torch.float32)
    first = torch.where(present, place, float(length)).amin(-1)
    last = torch.where(present, place, 0.0).amax(-1)
    return torch.where(first < length, first, 0.0), last


def state_of_corners(corners: Tensor) -> Tensor:
    """Corners → states; the height of a flat box counts as 1."""
    x0, y0, x1, y1 = corners.unbind(-1)
    height = torch.where(y1 == y0, 1.0, y1 - y0)
    return torch.stack(((x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / height, height), -1)


def corners_of_state(states: Tensor) -> Tensor:
    """States → corners, neither clipped nor sorted: a predicted ratio or height may be negative."""
    x, y, aspect, height = states.unbind(-1)
    half_width, half_height = aspect * height / 2, height / 2
    return torch.stack((x - half_width, y - half_height, x + half_width, y + half_height), -1)


def box_iou(one: Tensor, other: Tensor) -> Tensor:
    """Corners f32 [..., 4], broadcast against each other → f32 [...] in 0…1.

    Boxes without a common area give 0, and so does any box without an area: of an empty mask, of one pixel, of one
    row. Where there is a common area, both areas are at least as large, so that nothing is divided by 0; with negative
    extents there is none. The original's special cases (a candidate 0, 0, 0, 0; a union of 0) are contained in this.
    """
    ax0, ay0, ax1, ay1 = one.unbind(-1)
    bx0, by0, bx1, by1 = other.unbind(-1)
    width = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0.0)
    height = (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(min=0.0)
    common = width * height
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - common
    return common / torch.where(common > 0, union, 1.0)
