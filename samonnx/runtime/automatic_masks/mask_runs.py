"""Masks as run-length codes: where the runs of set pixels begin and end, columns first.

`edges` of a mask of H x W pixels is a sorted array of even length: pixels edges[0] to edges[1] (not included), edges[2]
to edges[3], … are set, pixel (row, column) being number column * H + row. Runs do not touch. This is COCO's code: the
counts are the differences, the first of them unset pixels (0 if the first pixel is set).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from samonnx.runtime.extras import require_extra

__all__ = ["MOST_PIXELS", "Edges", "area", "coco_code", "counts", "edges_of", "join_touching", "mask_of"]

Edges = npt.NDArray[np.int32]

MOST_PIXELS = np.iinfo(np.int32).max
"""Of a picture: a code of many edges is the largest thing that is kept of a mask, so that they are 4 bytes each."""


def edges_of(mask: npt.NDArray[np.bool_], *, top: int = 0, left: int = 0, height: int | None = None) -> Edges:
    """Runs of a mask bool [h, w] whose first pixel is at row `top` and column `left` of a picture of that `height`.

    Pixels are compared with the one above, along the rows as they lie in memory; only the edges found are sorted.
    """
    rows, columns = mask.shape
    height = rows if height is None else height
    changes = np.empty((rows + 1, columns), dtype=np.bool_)
    changes[0], changes[-1] = mask[0], mask[-1]
    np.not_equal(mask[1:], mask[:-1], out=changes[1:-1])
    row, column = np.divmod(np.flatnonzero(changes), columns)
    # a run that ends at the bottom of one column touches one that begins at the top of the next: both edges are the
    # same number, so that they stand side by side
    edges = np.sort((column + left) * height + (row + top))
    return join_touching(edges.astype(np.int32))


def join_touching(edges: Edges) -> Edges:
    """Drop the ends at which the next run begins, and those beginnings."""
    touching = edges[1:-1:2] == edges[2::2]
    if not touching.any():
        return edges
    kept = np.ones(len(edges), dtype=np.bool_)
    kept[1:-1:2] = kept[2::2] = ~touching
    return edges[kept]


def area(edges: Edges) -> int:
    """Number of set pixels."""
    return int((edges[1::2] - edges[::2]).sum(dtype=np.int64))


def mask_of(edges: Edges, height: int, width: int) -> npt.NDArray[np.bool_]:
    """The mask, bool [height, width]."""
    flat = np.zeros(height * width + 1, dtype=np.int8)
    flat[edges[::2]] = 1
    flat[edges[1::2]] = -1  # a run never ends where another begins
    return np.cumsum(flat[:-1], dtype=np.int8).astype(np.bool_).reshape(width, height).T


def counts(edges: Edges, height: int, width: int) -> list[int]:
    """COCO's counts: unset, set, unset, … pixels."""
    borders = np.concatenate([[0], edges.astype(np.int64), [height * width]])
    found: list[int] = np.diff(borders).tolist()
    return found[:-1] if len(found) > 1 and found[-1] == 0 else found


def coco_code(all_edges: Sequence[Edges], height: int, width: int) -> list[dict[str, object]]:
    """Each as {"size": [height, width], "counts": text}, COCO's compressed form. Raises MissingExtraError."""
    coco = require_extra("pycocotools.mask", "coco")
    plain = [{"size": [height, width], "counts": counts(edges, height, width)} for edges in all_edges]
    codes = coco.frPyObjects(plain, height, width) if plain else []
    return [{"size": [height, width], "counts": code["counts"].decode("ascii")} for code in codes]
