"""ROI pooling of boxes in PyTorch's own operators: what the operator `samonnx::roi_align` computes outside of graphs.

He et al., "Mask R-CNN" (ICCV 2017), in the variant that upstream's `model/geometry_encoders.py` calls: torchvision's
`roi_align(aligned=False, sampling_ratio=-1)`, which is ONNX's `RoiAlign` with mode `avg`, `output_half_pixel` and
`sampling_ratio` 0. That operator is what graphs hold (`roi_align_operator`); PyTorch without torchvision has none.

The number of samples depends on the box, yet the shapes here do not. Samples lie on a grid, so weights of rows and of
columns separate, and a cell is touched only by samples less than one cell away. A bin of more than two samples has them
more than 2/3 cell apart: per bin and cell at most three count, whatever the size of the box.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["roi_align"]

_CANDIDATES = 5
"""Consecutive samples looked at per bin and cell: the three that can count, and one more on each side for rounding."""


def _axis_weights(start: Tensor, end: Tensor, bins: int, cells: int) -> Tensor:
    """How much each cell of an axis counts in each bin: f32 [B, R, bins, cells]; start, end f32 [B, R], in cells.

    Of the side d = max(end - start, 1) each bin takes step = d / bins, sampled at the middles of m = ceil(step) equal
    parts. A sample beyond [-1, cells] is zero; any other is brought into [0, cells - 1] and interpolated between the
    two cells beside it. The bin is the mean of its m samples, zeros included.

    All in float32 and in the order of torchvision and the engines: where a side is a multiple of `bins`, rounding
    alone decides m.
    """
    start, end = start[..., None, None, None], end[..., None, None, None]
    cell = torch.arange(cells, dtype=torch.float32)[:, None]
    step = (end - start).clamp(min=1) / bins
    samples = step.ceil()
    begin = start + torch.arange(bins, dtype=torch.float32)[:, None, None] * step
    first = ((cell - 1 - begin) / step * samples - 0.5).floor().clamp(min=0)
    sample = first + torch.arange(_CANDIDATES, dtype=torch.float32)
    place = begin + (sample + 0.5) * step / samples
    counts = (sample < samples) & (place >= -1) & (place <= cells)
    weight = (1 - (place.clamp(0, cells - 1) - cell).abs()).clamp(min=0)
    return (weight * counts).sum(-1) / samples[..., 0]


def roi_align(features: Tensor, boxes: Tensor, size: int) -> Tensor:
    """features f32 [B, C, H, W], boxes f32 [B, R, 4] (x0, y0, x1, y1) → f32 [B, R, C, size, size].

    Corners are in cells and finite, the centre of the first cell is 0; sides below 1, also of inverted boxes, count
    as 1. Boxes may reach beyond the map. R is at least 1.
    """
    channels, height, width = features.shape[1:]
    count = boxes.shape[1]
    x0, y0, x1, y1 = boxes.unbind(-1)
    rows, columns = _axis_weights(y0, y1, size, height), _axis_weights(x0, x1, size, width)
    narrow = features.flatten(1, 2) @ columns.flatten(1, 2).transpose(1, 2)  # [B, C·H, R·size]
    narrow = narrow.unflatten(2, (count, size)).unflatten(1, (channels, height)).permute(0, 3, 2, 1, 4).flatten(3)
    pooled: Tensor = (rows @ narrow).unflatten(3, (channels, size))
    return pooled.transpose(2, 3)
