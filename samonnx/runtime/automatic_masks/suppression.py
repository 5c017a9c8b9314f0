"""Of boxes that overlap, the one with the best score."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["distinct_boxes"]


def distinct_boxes(
    boxes: npt.NDArray[np.integer], scores: npt.NDArray[np.float32], threshold: float
) -> npt.NDArray[np.intp]:
    """Indices of the boxes that stay, best score first, of equal scores the earlier first.

    `boxes` [n, 4] are x0, y0, x1, y1, width x1 - x0. In the order of their scores each box takes those after it whose
    IoU with it is above `threshold`. As in torchvision (`ops/cpu/nms_kernel.cpp`) the IoU is a float32 and the
    threshold a double, which matters where they are the same number; two boxes without area have no IoU (NaN), and
    both stay.
    """
    order = np.argsort(-scores, kind="stable")
    x0, y0, x1, y1 = boxes[order].astype(np.float32).T
    areas = (x1 - x0) * (y1 - y0)
    left = np.arange(len(order))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        width = np.minimum(x1[best], x1[left]) - np.maximum(x0[best], x0[left])
        height = np.minimum(y1[best], y1[left]) - np.maximum(y0[best], y0[left])
        shared = np.maximum(width, np.float32(0)) * np.maximum(height, np.float32(0))
        with np.errstate(invalid="ignore"):
            overlap = shared / (areas[best] + areas[left] - shared)
        left = left[~(overlap.astype(np.float64) > threshold)]
    chosen: npt.NDArray[np.intp] = order[np.array(kept, dtype=np.intp)]
    return chosen
