"""Low-resolution logits → the pixels of a mask in its crop, and how stable it is: the heavy part of automatic masks.

A mask costs three comparisons and one enlargement of every pixel, 2 million in a picture of 1800 x 1200. So:

- both of SAM's enlargements and the cut between them are one small matrix an axis (samonnx.runtime.separable_resize);
- only a window of the mask is enlarged. Bilinear values lie between those they are made of: where no low-resolution
  logit is above -offset, no pixel is above -offset, 0 or +offset, and nothing is there to be counted or to be set;
- it goes band by band of rows: each band is enlarged and compared three times while it lies in the cache, and the
  enlarged logits of a whole mask exist nowhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.separable_resize import Band, Resize

__all__ = ["CutMask", "MaskCutter"]

ROUNDING = 1e-5
"""Of a logit: more than a sum of nine products can be off in float32."""


@dataclass(frozen=True, eq=False)
class CutMask:
    """The part of a mask in which all its pixels lie."""

    top: int
    left: int
    """Of its first pixel, in the crop."""
    pixels: npt.NDArray[np.bool_]
    """[h, w], logits above 0. Overwritten when the next mask is cut."""
    core: int
    """Pixels above +offset, in the whole crop."""
    reach: int
    """Pixels above -offset."""


class MaskCutter:
    """Cuts one mask after the other, all of the same crop, in the same memory.

    `rows` and `columns` enlarge low-resolution logits to the crop; `offset` is the stability score's, 0 or more.
    """

    def __init__(self, rows: Resize, columns: Resize, offset: float) -> None:
        self._rows, self._columns, self._offset = rows, columns, offset
        self._widened = np.empty((rows.old, columns.new), dtype=np.float32)
        tallest = max(band.stop - band.start for band in rows.bands)
        self._band = np.empty(tallest * columns.new, dtype=np.float32)
        self._above = np.empty(tallest * columns.new, dtype=np.bool_)
        self._pixels = np.empty(rows.new * columns.new, dtype=np.bool_)

    def cut(self, logits: npt.NDArray[np.float32]) -> CutMask:
        """Logits f32 [h, w] of one mask, finite."""
        there = logits > -self._offset * (1 + ROUNDING)
        rows = _touched(self._rows, np.flatnonzero(there.any(axis=1)))
        columns = _touched(self._columns, np.flatnonzero(there.any(axis=0)))
        if not rows or not columns:
            return CutMask(0, 0, np.zeros((0, 0), dtype=np.bool_), 0, 0)
        top, left = rows[0].start, columns[0].start
        height, width = rows[-1].stop - top, columns[-1].stop - left
        widened = self._widen(logits, rows, columns)
        pixels = self._pixels[: height * width].reshape(height, width)
        core = reach = 0
        for band in rows:
            size = band.stop - band.start
            values = self._band[: size * width].reshape(size, width)
            above = self._above[: size * width].reshape(size, width)
            np.matmul(band.weights, widened[band.first : band.last], out=values)
            core += int(np.count_nonzero(np.greater(values, self._offset, out=above)))
            reach += int(np.count_nonzero(np.greater(values, -self._offset, out=above)))
            np.greater(values, 0, out=pixels[band.start - top : band.stop - top])
        return CutMask(top, left, pixels, core, reach)

    def _widen(
        self, logits: npt.NDArray[np.float32], rows: tuple[Band, ...], columns: tuple[Band, ...]
    ) -> npt.NDArray[np.float32]:
        """Columns enlarged, of the low-resolution rows that are read."""
        read = slice(rows[0].first, max(band.last for band in rows))
        left = columns[0].start
        widened = self._widened[:, : columns[-1].stop - left]
        for band in columns:
            target = widened[read, band.start - left : band.stop - left]
            np.matmul(logits[read, band.first : band.last], band.weights.T, out=target)
        return widened


def _touched(resize: Resize, places: npt.NDArray[np.intp]) -> tuple[Band, ...]:
    """The bands from the one that reads the first of these places to the one that reads the last; none without any."""
    if not len(places):
        return ()
    first, last = int(places[0]), int(places[-1])
    return tuple(band for band in resize.bands if band.first <= last and band.last > first)
