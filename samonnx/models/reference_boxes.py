"""Reference boxes of the detector's decoder: each query carries one, reads its position from it and refines it.

Boxes are f32 [..., 4]: centre x, centre y, width, height, as fractions of the image (0…1).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["box_corners", "box_sine", "refined_boxes"]


def box_corners(boxes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x0, y0, x1, y1, each f32 [...]; they may lie outside 0…1."""
    x, y, width, height = boxes.unbind(-1)
    return x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height


def box_sine(boxes: Tensor, channels: int) -> Tensor:
    """Sine encoding of boxes, f32 [..., 4 · channels], in the order y, x, width, height.

    Even features are sines and odd ones cosines of 2 pi times the value over 10000^(2 (i // 2) / channels) (upstream
    `model/model_misc.py`, `gen_sineembed_for_position`, after Conditional and DAB-DETR).
    """
    exponent = 2 * torch.div(torch.arange(channels, dtype=torch.float32), 2, rounding_mode="floor") / channels
    x, y, width, height = (boxes * (2 * math.pi)).unbind(-1)
    angle = torch.stack((y, x, width, height), dim=-1)[..., None] / 10000.0**exponent
    return torch.stack((angle[..., 0::2].sin(), angle[..., 1::2].cos()), dim=-1).flatten(-3)


def refined_boxes(boxes: Tensor, offsets: Tensor, epsilon: float = 1e-3) -> Tensor:
    """sigmoid(logit(boxes) + offsets), where the logit takes neither a value nor one minus it for less than
    `epsilon`."""
    inside = boxes.clamp(0, 1)
    logits = torch.log(inside.clamp(min=epsilon) / (1 - inside).clamp(min=epsilon))
    return torch.sigmoid(logits + offsets)
