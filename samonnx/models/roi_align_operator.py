"""ROI pooling as one operator, so that a trace holds one node for it.

In eager PyTorch it runs `roi_align`; `samonnx.translations` turns it into ONNX's `RoiAlign`. Traces have opset 23, for
which ONNX Runtime 1.31 has no CPU kernel of it (only for 16 to 21): the pass `lower_opset` ends at 21.
"""

from __future__ import annotations

import torch
from torch import Tensor

from samonnx.models.roi_align import roi_align

__all__ = ["ROI_ALIGN", "pooled_boxes"]


@torch.library.custom_op("samonnx::roi_align", mutates_args=())
def _operator(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    return roi_align(features, boxes, size).contiguous()


@_operator.register_fake
def _shape(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    return features.new_empty((*boxes.shape[:2], features.shape[1], size, size))


ROI_ALIGN = torch.ops.samonnx.roi_align.default
"""The operator as a traced graph has it."""


def pooled_boxes(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """features f32 [B, C, H, W], boxes f32 [B, R, 4] (x0, y0, x1, y1, in cells) → f32 [B, R, C, size, size]; see
    `roi_align`."""
    pooled: Tensor = _operator(features, boxes, size)
    return pooled
