"""The box around a mask."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["mask_boxes"]


def mask_boxes(masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.int32]:
    """Masks bool [O, H, W] to x, y, width, height of their pixels, i32 [O, 4]; zeros for a mask without a pixel.

    Widths count pixels: a single pixel is 1 x 1.
    """
    boxes = np.zeros((len(masks), 4), dtype=np.int32)
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if columns.size:
            box[:] = columns[0], rows[0], columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return boxes
