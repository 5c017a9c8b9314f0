"""Automatic masks drawn over their picture: hundreds of them, small ones over large ones."""

from __future__ import annotations

import colorsys

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.found_masks import FoundMasks
from samonnx.runtime.overlay import TINT, line_thickness

__all__ = ["colours", "draw_masks"]

Frame = npt.NDArray[np.uint8]

GOLDEN = 0.61803398875
"""Of the circle of hues, from one mask to the next: neighbours in any number of masks lie far apart."""


def draw_masks(frame: Frame, found: FoundMasks) -> Frame:
    """A copy of `frame` uint8 [H, W, 3] in which every pixel has a tint of the smallest mask that it belongs to.

    Where that mask changes there is a line in its colour. No mask is decoded: runs are written into one map.
    """
    uppermost = _uppermost(found)
    table = np.concatenate([np.zeros((1, 3)), colours(len(found)) * TINT]).astype(np.float32)
    share = np.where(np.arange(len(table)) == 0, 1.0, 1 - TINT).astype(np.float32)
    picture = frame.copy()
    for row, labels in zip(picture, uppermost, strict=True):  # row by row: floats of a picture take 24 times a map
        row[...] = row * share[labels][:, None] + table[labels]
    line = _borders(uppermost, max(1, line_thickness(frame) // 2)) & (uppermost > 0)
    picture[line] = colours(len(found))[uppermost[line] - 1]
    return picture


def colours(number: int) -> Frame:
    """[number, 3]: bright ones, hue after hue, in three lightnesses."""
    values = [colorsys.hls_to_rgb(n * GOLDEN % 1, (0.5, 0.62, 0.4)[n % 3], 0.95) for n in range(number)]
    table: Frame = np.rint(np.array(values).reshape(-1, 3) * 255).astype(np.uint8)
    return table


def _uppermost(found: FoundMasks) -> npt.NDArray[np.int32]:
    """1 + the index of the smallest mask of each pixel, of equal ones the first; 0: of none. [H, W]."""
    flat = np.zeros(found.width * found.height, dtype=np.int32)
    for index in np.argsort(-found.areas()[::-1], kind="stable"):
        place = len(found) - 1 - int(index)
        edges = found.edges[place]
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            flat[start:stop] = place + 1
    return np.ascontiguousarray(flat.reshape(found.width, found.height).T)


def _borders(labels: npt.NDArray[np.int32], thickness: int) -> npt.NDArray[np.bool_]:
    """Pixels within `thickness` steps (up, down, left, right) of one with another label."""
    border = np.zeros(labels.shape, dtype=np.bool_)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    border[:, 1:] |= across
    border[:, :-1] |= across
    border[1:] |= down
    border[:-1] |= down
    for _ in range(thickness - 1):
        grown = border.copy()
        grown[:, 1:] |= border[:, :-1]
        grown[:, :-1] |= border[:, 1:]
        grown[1:] |= border[:-1]
        grown[:-1] |= border[1:]
        border = grown
    return border
