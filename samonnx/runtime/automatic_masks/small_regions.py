"""Small holes filled and small islands dropped, on run-length codes: no mask is decoded.

A run is cut at the ends of columns; two pieces in neighbouring columns belong together if they touch, corners included
(8-connected). Regions are what hangs together so, found by handing the least number of a region around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.mask_runs import Edges, join_touching

__all__ = ["box_of", "without_small_regions"]

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Pieces:
    """Runs within a column each, sorted by column and row; `stop` is not included."""

    column: Numbers
    start: Numbers
    stop: Numbers


def without_small_regions(edges: Edges, height: int, width: int, least: int) -> tuple[Edges, bool]:
    """A mask without holes and islands of fewer than `least` pixels, and whether there were any.

    Holes first: regions of unset pixels, those at the border of the picture included. Then islands: regions of set
    pixels; if all are small, the largest stays (upstream `utils/amg.py`, `remove_small_regions`). Of equal ones it is
    the one that OpenCV meets first, going row by row through blocks of 2 x 2 pixels.
    """
    filled, had_holes = _fill_holes(edges, height, width, least)
    kept, had_islands = _drop_islands(filled, height, width, least)
    return kept, had_holes or had_islands


def box_of(edges: Edges, height: int) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of the set pixels, the last two included; zeros for an empty mask."""
    if not len(edges):
        return 0, 0, 0, 0
    pieces = _pieces(edges, height)
    return (
        int(pieces.column[0]),
        int(pieces.start.min()),
        int(pieces.column[-1]),
        int(pieces.stop.max()) - 1,
    )


def _fill_holes(edges: Edges, height: int, width: int, least: int) -> tuple[Edges, bool]:
    outside = _complement(edges, height, width)
    pieces = _pieces(outside, height)
    region, areas = _regions(pieces)
    small = areas < least
    if not small.any():
        return edges, False
    return _complement(_joined(pieces, ~small[region], height), height, width), True


def _drop_islands(edges: Edges, height: int, width: int, least: int) -> tuple[Edges, bool]:
    pieces = _pieces(edges, height)
    region, areas = _regions(pieces)
    small = areas < least
    if not small.any():
        return edges, False
    kept = ~small
    if not kept.any():
        first = np.full(len(areas), height * width, dtype=np.int64)
        np.minimum.at(first, region, pieces.start // 2 * width + pieces.column // 2)
        largest = np.flatnonzero(areas == areas.max())
        kept[largest[np.argmin(first[largest])]] = True
    return _joined(pieces, kept[region], height), True


def _complement(edges: Edges, height: int, width: int) -> Edges:
    """The runs of unset pixels."""
    borders = np.concatenate([[0], edges, [height * width]]).astype(np.int32)
    return borders[(0 if borders[0] < borders[1] else 2) : (None if borders[-2] < borders[-1] else -2)]


def _pieces(edges: Edges, height: int) -> _Pieces:
    start, last = edges[::2].astype(np.int64), edges[1::2].astype(np.int64) - 1
    first_column, number = start // height, last // height - start // height + 1
    run = np.repeat(np.arange(len(start)), number)
    step = np.arange(len(run)) - np.repeat(np.cumsum(number) - number, number)
    column = first_column[run] + step
    return _Pieces(
        column,
        np.maximum(start[run] - column * height, 0),
        np.minimum(last[run] - column * height + 1, height),
    )


def _regions(pieces: _Pieces) -> tuple[Numbers, Numbers]:
    """The number of the region that each piece belongs to, and the pixels of each region."""
    one, other = _touching(pieces)
    label = np.arange(len(pieces.column))
    while True:
        least = np.minimum(label[one], label[other])
        roots = np.concatenate([label[one], label[other]])
        np.minimum.at(label, roots, np.concatenate([least, least]))
        while True:
            further = label[label]
            if np.array_equal(further, label):
                break
            label = further
        if np.array_equal(label[one], label[other]):
            break
    _, region = np.unique(label, return_inverse=True)
    areas = np.bincount(region, weights=pieces.stop - pieces.start).astype(np.int64)
    return region, areas


def _touching(pieces: _Pieces) -> tuple[Numbers, Numbers]:
    """All pairs of pieces that touch, those in one column before those in the next.

    Pieces are sorted, so those of the next column that touch a piece stand together: from the first that does not end
    above its start to the last that does not begin below its end.
    """
    stride = int(pieces.stop.max(initial=0)) + 2
    following = (pieces.column + 1) * stride
    first = np.searchsorted(pieces.column * stride + pieces.stop, following + pieces.start, side="left")
    last = np.searchsorted(pieces.column * stride + pieces.start, following + pieces.stop, side="right")
    number = np.maximum(last - first, 0)
    one = np.repeat(np.arange(len(number)), number)
    step = np.arange(len(one)) - np.repeat(np.cumsum(number) - number, number)
    return one, first[one] + step


def _joined(pieces: _Pieces, kept: npt.NDArray[np.bool_], height: int) -> Edges:
    """The code of the pieces that are kept."""
    starts = (pieces.column * height + pieces.start)[kept]
    stops = (pieces.column * height + pieces.stop)[kept]
    return join_touching(np.stack([starts, stops], axis=1).reshape(-1).astype(np.int32))
