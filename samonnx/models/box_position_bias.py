"""Box position bias: what a query's box adds to the logits with which it attends the cells of the image.

Lin et al., "DETR Doesn't Need Multi-Scale or Locality Design" (ICCV 2023), relative position bias; upstream
`model/decoder.py` (`boxRPB`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from samonnx.models.reference_boxes import box_corners

__all__ = ["box_position_bias", "log_distance"]

DISTANCE_SCALE = 8.0


def log_distance(distance: Tensor) -> Tensor:
    """sign(d) · log2(8 |d| + 1) / log2(8): about linear near 0, and 1 at d = 7/8."""
    scaled = distance * DISTANCE_SCALE
    return torch.sign(scaled) * torch.log2(scaled.abs() + 1.0) / 3.0


def box_position_bias(
    boxes: Tensor,
    grid: int,
    embed_x: Callable[[Tensor], Tensor],
    embed_y: Callable[[Tensor], Tensor],
    *,
    logarithmic: bool,
) -> Tensor:
    """Boxes f32 [B, Q, 4] (centre x, centre y, width, height, 0…1) → bias f32 [B, heads, Q, grid · grid], row-major.

    Along each axis, the signed distances from a cell to the box's low and high side (`logarithmic`: their
    `log_distance`) go through `embed_x` / `embed_y`: f32 [..., 2] → [..., heads]. The bias of a cell is the sum of its
    column's and its row's. A cell's coordinate is its index over the grid, its low side rather than its middle.
    """
    cells = torch.arange(grid, dtype=torch.float32) / grid
    x0, y0, x1, y1 = box_corners(boxes)

    def along(low: Tensor, high: Tensor, embed: Callable[[Tensor], Tensor]) -> Tensor:
        distance = cells[:, None] - torch.stack((low, high), dim=-1)[:, :, None]
        return embed(log_distance(distance) if logarithmic else distance).permute(0, 3, 1, 2)

    rows, columns = along(y0, y1, embed_y), along(x0, x1, embed_x)
    return (rows[..., :, None] + columns[..., None, :]).flatten(-2)
