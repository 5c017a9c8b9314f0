"""How a picture lies in the network's frame, and the ways between them: sizes, coordinates, masks.

Two fits (`PreprocessingInfo.fit`): `stretch` gives each axis a factor of its own, so that the picture fills the frame;
`pad` (SAM) makes the long side as long as the frame and keeps the picture's shape, up to a rounding of the short side,
and the picture lies in the upper left corner; with a height and a width in the manifest, it is stretched to that part
of the frame instead. Upstream `segment_anything/utils/transforms.py` (sizes, coordinates) and
`segment_anything/modeling/sam.py` (`postprocess_masks`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.manifest import PreprocessingInfo
from samonnx.runtime.separable_resize import Resize, bilinear, composed, cut

__all__ = ["FitError", "FrameFit", "padded_size"]

Size = tuple[int, int]
"""Height and width in pixels."""


class FitError(SamonnxError):
    """A picture that does not fit into the network's frame."""


def padded_size(height: int, width: int, size: int) -> Size:
    """The size of a picture in a frame that it does not fill: the long side `size`, the other int(side * scale + 0.5).

    Raises FitError for a picture without pixels, and for one so narrow that nothing of it is left.
    """
    if height < 1 or width < 1:
        raise FitError(f"a picture of {width} x {height} pixels has none; give one with pixels")
    scale = size / max(height, width)
    placed = int(height * scale + 0.5), int(width * scale + 0.5)
    if 0 in placed:
        raise FitError(
            f"the picture is {width} x {height} pixels, and {placed[1]} x {placed[0]} when its long side is {size}, "
            f"as the network takes it: nothing is left of it. Cut it to a shorter piece"
        )
    return placed


@dataclass(frozen=True)
class FrameFit:
    """A picture of `height` x `width` pixels, and the part of the network's `frame` that it fills."""

    height: int
    width: int
    frame: Size
    placed: Size
    """Of the picture inside the frame; the same as `frame` where it is stretched."""
    padded: bool
    """Whether the fit is `pad`."""

    @classmethod
    def of(cls, info: PreprocessingInfo, height: int, width: int) -> FrameFit:
        """Raises FitError for a picture that has no pixels, or none left in the frame."""
        if info.fit == "pad":
            pinned = info.height is not None and info.width is not None
            placed = (info.height or 0, info.width or 0) if pinned else padded_size(height, width, info.size)
            return cls(height, width, (info.size, info.size), placed, padded=True)
        if height < 1 or width < 1:
            raise FitError(f"a picture of {width} x {height} pixels has none; give one with pixels")
        return cls(height, width, info.frame_size, info.frame_size, padded=False)

    def to_network(self, coordinates: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """x, y [..., 2] in pixels of the picture → in pixels of the frame. float64: round to float32 once, afterwards.

        Each axis has its own scale, since sizes are rounded.
        """
        scale = np.array((self.placed[1] / self.width, self.placed[0] / self.height))
        scaled: npt.NDArray[np.float64] = np.asarray(coordinates, dtype=np.float64) * scale
        return scaled

    def mask_resize(self, low: Size) -> tuple[Resize, Resize]:
        """Low-resolution masks of `low` (height, width) → masks of the picture's size: rows, columns.

        Stretched, one bilinear resize. Padded, bilinear to the frame, the padding cut off, and bilinear to the picture.
        """
        sides = zip(low, self.frame, self.placed, (self.height, self.width), strict=True)
        rows, columns = (self._side_resize(*side) for side in sides)
        return rows, columns

    def _side_resize(self, low: int, frame: int, placed: int, side: int) -> Resize:
        if not self.padded:
            return bilinear(low, side)
        return composed(cut(bilinear(low, frame), placed), bilinear(placed, side))

    def original_logits(self, logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Low-resolution logits f32 [..., h, w] → logits of the picture's size, f32 [..., height, width].

        A pixel belongs to the mask where its logit is above 0.
        """
        rows, columns = self.mask_resize((logits.shape[-2], logits.shape[-1]))
        flat = logits.reshape(-1, *logits.shape[-2:])
        enlarged = np.empty((len(flat), self.height, self.width), dtype=np.float32)
        for target, one in zip(enlarged, flat, strict=True):
            target[...] = rows.apply(columns.apply(one.T).T)
        return enlarged.reshape(*logits.shape[:-2], self.height, self.width)
