"""What a user points at, in pixels of the video frame, and its way into the graph's prompt places.

A frame of width W and height H is stretched to S x S, so x becomes x / W * S and y becomes y / H * S (the original
normalises by the video's size and multiplies by the network's). A box is two points, top left with label 2 and bottom
right with label 3, in front of the clicks. Points are never dropped: more than the graph has places for is an error
(the original drops all but the first and last 8 when there are more than 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.preprocessing import resize_mask

__all__ = ["Box", "MaskPrompt", "ObjectPrompts", "Points", "PromptError", "point_places", "prompt_mask"]

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, EMPTY_PLACE = 0, 1, 2, 3, -1


class PromptError(SamonnxError):
    """A prompt that does not fit the frame or the graph."""


@dataclass(frozen=True)
class Points:
    """Clicks: (x, y) in pixels of the frame, each with label 1 (on the object) or 0 (not on it)."""

    coordinates: tuple[tuple[float, float], ...]
    labels: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.coordinates or len(self.coordinates) != len(self.labels):
            raise PromptError(
                f"points: expected one label for each point and at least one point, "
                f"got {len(self.coordinates)} points and {len(self.labels)} labels"
            )
        for label in self.labels:
            if label not in (NEGATIVE, POSITIVE):
                raise PromptError(f"point label {label}: expected 1 (on the object) or 0 (not on it)")
        for x, y in self.coordinates:
            if not (math.isfinite(x) and math.isfinite(y)):
                raise PromptError(f"point ({x}, {y}): expected finite pixel coordinates")


@dataclass(frozen=True)
class Box:
    """A box around the object: left, top, right, bottom in pixels of the frame."""

    x0: float
    y0: float
    x1: float
    y1: float

    def __post_init__(self) -> None:
        if not all(math.isfinite(side) for side in (self.x0, self.y0, self.x1, self.y1)):
            raise PromptError(f"{self}: expected finite pixel coordinates")
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise PromptError(f"{self} is empty: expected x0 < x1 and y0 < y1 (left, top, right, bottom)")


@dataclass(frozen=True, eq=False)
class MaskPrompt:
    """A mask of the object: bool [H, W], as large as the frame."""

    mask: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if self.mask.ndim != 2 or self.mask.dtype != np.bool_:
            raise PromptError(
                f"mask prompt: expected bool [height, width], got {self.mask.dtype} {list(self.mask.shape)}"
            )


@dataclass(frozen=True, eq=False)
class ObjectPrompts:
    """All prompts of one object on one frame: a box and clicks together, or a mask alone.

    `use_memory` lets a prompted frame of an object that is already tracked attend to its memory; the original does not
    by default.
    """

    points: Points | None = None
    box: Box | None = None
    mask: MaskPrompt | None = None
    use_memory: bool = False

    def __post_init__(self) -> None:
        if self.points is None and self.box is None and self.mask is None:
            raise PromptError("an object's prompts are empty: give points, a box or a mask")
        if self.mask is not None and (self.points is not None or self.box is not None):
            raise PromptError("a mask prompt stands alone: the graph would ignore the points and the box beside it")


def point_places(
    prompts: ObjectPrompts, *, width: int, height: int, size: int, places: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Coordinates f32 [places, 2] in the S x S image and labels i32 [places]; what is left over has label -1.

    Raises PromptError for a point outside the frame and for more points than places.
    """
    corners = () if prompts.box is None else ((prompts.box.x0, prompts.box.y0), (prompts.box.x1, prompts.box.y1))
    clicks = () if prompts.points is None else prompts.points.coordinates
    for what, group in (("box corner", corners), ("point", clicks)):
        for x, y in group:
            if not (0 <= x <= width and 0 <= y <= height):
                raise PromptError(f"{what} ({x:g}, {y:g}) lies outside the frame, which is {width} x {height} pixels")
    number = len(corners) + len(clicks)
    if number > places:
        box = ", two of them the box corners" if corners else ""
        raise PromptError(
            f"{number} points on one object{box}, but the graph has {places} prompt places. Give fewer, "
            f"or compile with --set programs.track.points={number}"
        )
    coordinates = np.zeros((places, 2), dtype=np.float32)
    labels = np.full(places, EMPTY_PLACE, dtype=np.int32)
    if number:
        coordinates[:number] = np.array([*corners, *clicks]) / (width, height) * size  # float64, rounded once
        corner_labels = (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT) if corners else ()
        labels[:number] = [*corner_labels, *(prompts.points.labels if prompts.points is not None else ())]
    return coordinates, labels


def prompt_mask(prompt: MaskPrompt, *, width: int, height: int, size: int) -> npt.NDArray[np.float32]:
    """The mask as the graph takes it: f32 [S, S] in 0…1, resized with antialias, soft edges kept as in the original.

    Raises PromptError for a mask of another size than the frame, and for an empty one.
    """
    if prompt.mask.shape != (height, width):
        found = f"{prompt.mask.shape[1]} x {prompt.mask.shape[0]}"
        raise PromptError(f"the mask is {found} pixels, the frame {width} x {height}; expected the same size")
    if not prompt.mask.any():
        raise PromptError("the mask prompt is empty: no pixel of it belongs to the object")
    return resize_mask(prompt.mask.astype(np.float32), size)
