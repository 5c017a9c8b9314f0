"""The parts of a picture that are looked at one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass

from samonnx.runtime.automatic_masks.parameters import MaskParameters, ParameterError

__all__ = ["Crop", "crops_of"]


@dataclass(frozen=True)
class Crop:
    """Pixels from `x0`, `y0` to `x1`, `y1` (not included). Layer 0 is the whole picture."""

    x0: int
    y0: int
    x1: int
    y1: int
    layer: int = 0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def box(self) -> tuple[int, int, int, int]:
        return self.x0, self.y0, self.x1, self.y1


def crops_of(height: int, width: int, parameters: MaskParameters) -> tuple[Crop, ...]:
    """The picture, then the crops of each layer, column by column (upstream `utils/amg.py:200-234`).

    Layer i has 2^i crops along each side; their overlap is `crop_overlap_ratio` of the short side in the first layer,
    and is halved from layer to layer. Raises ParameterError if a layer would have crops without a pixel.
    """
    crops = [Crop(0, 0, width, height)]
    for layer in range(1, parameters.crop_n_layers + 1):
        number = 2**layer
        overlap = int(parameters.crop_overlap_ratio * min(height, width) * (2 / number))
        columns, rows = _spans(width, number, overlap), _spans(height, number, overlap)
        if any(stop <= start for start, stop in (*columns, *rows)):
            raise ParameterError(
                f"crop_n_layers is {parameters.crop_n_layers}, but a picture of {width} x {height} pixels has not "
                f"enough of them for the {number} x {number} crops of layer {layer}. Give fewer layers"
            )
        crops += [Crop(x0, y0, x1, y1, layer) for x0, x1 in columns for y0, y1 in rows]
    return tuple(crops)


def _spans(side: int, number: int, overlap: int) -> list[tuple[int, int]]:
    """Where crops begin and end along a side of the picture; the last may be shorter."""
    length = math.ceil((overlap * (number - 1) + side) / number)
    starts = [(length - overlap) * i for i in range(number)]
    return [(start, min(start + length, side)) for start in starts]
