"""The points that are asked for masks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.parameters import MaskParameters

__all__ = ["crop_points", "point_grid"]

Points = npt.NDArray[np.float64]


def point_grid(per_side: int) -> Points:
    """[per_side², 2], x and y in 0…1: the centres of equal cells, row by row (upstream `utils/amg.py:179-186`)."""
    margin = 1 / (2 * per_side)
    side = np.linspace(margin, 1 - margin, per_side)
    y, x = np.meshgrid(side, side, indexing="ij")
    return np.stack([x, y], axis=-1).reshape(-1, 2)


def crop_points(parameters: MaskParameters, layer: int, *, width: int, height: int) -> Points:
    """The points of a crop of that layer, f64 [n, 2], in pixels of the crop."""
    if parameters.point_grids is not None:
        grid = np.array(parameters.point_grids[layer], dtype=np.float64)
    else:
        grid = point_grid(parameters.points_on(layer))
    return grid * (width, height)
