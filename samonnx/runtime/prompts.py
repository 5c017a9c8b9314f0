"""What a user asks for on one frame: words, points, boxes, a mask, in pixels of the frame; and its way into `track`.

One interface for finding and for tracking. `segment` takes everything together, as the description of a kind of thing.
`track` takes points, one box or a mask as one object; words and exemplars are a kind of thing, whose instances the
detector finds first.

A frame of width W and height H is stretched to S x S, so x becomes x / W * S and y becomes y / H * S (the original
normalises by the video's size and multiplies by the network's). In `track` a box is two points, top left with label 2
and bottom right with label 3, in front of the clicks. Points are never dropped: more than the graph has places for is
an error (the original drops all but the first and last 8 when there are more than 16).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.preprocessing import resize_mask

__all__ = [
    "Box",
    "MaskPrompt",
    "Points",
    "PromptError",
    "Prompts",
    "check_for_tracking",
    "check_on_frame",
    "point_places",
    "prompt_mask",
]

NEGATIVE, POSITIVE, BOX_TOP_LEFT, BOX_BOTTOM_RIGHT, EMPTY_PLACE = 0, 1, 2, 3, -1


class PromptError(SamonnxError):
    """A prompt that does not fit the frame, the program or its places."""


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
    """A box around one thing: left, top, right, bottom in pixels of the frame; label 1 (this) or 0 (not this)."""

    x0: float
    y0: float
    x1: float
    y1: float
    label: int = POSITIVE

    def __post_init__(self) -> None:
        sides = (self.x0, self.y0, self.x1, self.y1)
        if not all(math.isfinite(side) for side in sides):
            raise PromptError(f"box ({', '.join(f'{side:g}' for side in sides)}): expected finite pixel coordinates")
        if self.x0 >= self.x1 or self.y0 >= self.y1:
            raise PromptError(f"{self} is empty: expected x0 < x1 and y0 < y1 (left, top, right, bottom)")
        if self.label not in (NEGATIVE, POSITIVE):
            raise PromptError(f"{self} has label {self.label}: expected 1 (this, or like this) or 0 (not like this)")

    def __str__(self) -> str:
        return f"box ({self.x0:g}, {self.y0:g}, {self.x1:g}, {self.y1:g})"


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
class Prompts:
    """What is asked for on one frame. Raises PromptError if nothing is.

    `text` names a kind of thing ("a dog"); `exemplars` are boxes around things like the wanted ones (label 0: unlike
    them). `points`, `boxes` and `mask` show the thing itself. `segment` takes all of them together, boxes as
    exemplars. In `track`, points with at most one box, or a mask, are one object; text and exemplars stand for every
    instance on the frame.

    `use_memory` lets a prompted frame of an object that is already tracked attend to its memory; SAM 3 does not by
    default, SAM 2 does in corrections (`MemoryInfo.corrections_attend_memory`).
    """

    text: str | None = None
    points: Points | None = None
    boxes: tuple[Box, ...] = ()
    mask: MaskPrompt | None = None
    exemplars: tuple[Box, ...] = ()
    use_memory: bool = False

    def __post_init__(self) -> None:
        if self.text is not None and not self.text.strip():
            raise PromptError('the text is empty: name what to look for, for example "a dog"')
        if not (self.names_a_concept or self.shows_an_object):
            raise PromptError("the prompts are empty: give words, points, a box, an exemplar or a mask")

    @property
    def names_a_concept(self) -> bool:
        """Whether there are words or exemplars: a kind of thing, of which a frame may show many or none."""
        return self.text is not None or bool(self.exemplars)

    @property
    def shows_an_object(self) -> bool:
        """Whether there are points, boxes or a mask."""
        return self.points is not None or bool(self.boxes) or self.mask is not None


def check_on_frame(prompts: Prompts, *, width: int, height: int) -> None:
    """Raise PromptError for a point or a corner outside the frame, and for a mask of another size, or an empty one."""
    corners = {
        what: [corner for box in boxes for corner in ((box.x0, box.y0), (box.x1, box.y1))]
        for what, boxes in (("box corner", prompts.boxes), ("exemplar corner", prompts.exemplars))
    }
    clicks = [] if prompts.points is None else list(prompts.points.coordinates)
    for what, group in (*corners.items(), ("point", clicks)):
        for x, y in group:
            if not (0 <= x <= width and 0 <= y <= height):
                raise PromptError(f"{what} ({x:g}, {y:g}) lies outside the frame, which is {width} x {height} pixels")
    if prompts.mask is not None:
        _check_mask(prompts.mask, width, height)


def check_for_tracking(prompts: Prompts) -> None:
    """Raise PromptError unless these are one object (points with at most one box, or a mask) or a concept, not both."""
    if prompts.names_a_concept and prompts.shows_an_object:
        words = "words" if prompts.text is not None else "exemplars"
        raise PromptError(
            f"{words} stand for every instance on the frame, points, boxes and masks for one object, so they cannot "
            f"be prompts of the same object. Give the points, the box or the mask to an object of its own; "
            f"a box as an example of what the words mean goes in as an exemplar"
        )
    if prompts.mask is not None and (prompts.points is not None or prompts.boxes):
        raise PromptError("a mask prompt stands alone: the graph would ignore the points and the box beside it")
    if len(prompts.boxes) > 1:
        raise PromptError(
            f"{len(prompts.boxes)} boxes on one object; expected one. Give each thing an object number of its own, "
            f"or, to have things like these looked for, give the boxes as exemplars"
        )
    for box in prompts.boxes:
        if box.label == NEGATIVE:
            raise PromptError(
                f"{box} has label 0, but an object is tracked from a box around it. Give points with label 0 for "
                f"what is not part of it, or the box as an exemplar for what is not to be looked for"
            )


def point_places(
    prompts: Prompts,
    *,
    width: int,
    height: int,
    size: int,
    places: int,
    fit: FrameFit | None = None,
    program: str = "track",
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """One object's points and box for `program`: coordinates f32 [places, 2] in the S x S image, labels i32 [places].

    What is left over has label -1. `fit`: how the frame lies in the image; None: stretched to S x S. Raises
    PromptError for what `check_for_tracking` and `check_on_frame` refuse, and for more points than places.
    """
    check_for_tracking(prompts)
    check_on_frame(prompts, width=width, height=height)
    corners = tuple(corner for box in prompts.boxes for corner in ((box.x0, box.y0), (box.x1, box.y1)))
    clicks = () if prompts.points is None else prompts.points.coordinates
    number = len(corners) + len(clicks)
    if number > places:
        said = ", two of them the box corners" if corners else ""
        raise PromptError(
            f"{number} points on one object{said}, but the graph has {places} prompt places. Give fewer, "
            f"or compile with --set programs.{program}.points={number}"
        )
    coordinates = np.zeros((places, 2), dtype=np.float32)
    labels = np.full(places, EMPTY_PLACE, dtype=np.int32)
    if number:
        pixels = np.array([*corners, *clicks])  # float64, rounded once
        coordinates[:number] = pixels / (width, height) * size if fit is None else fit.to_network(pixels)
        corner_labels = (BOX_TOP_LEFT, BOX_BOTTOM_RIGHT) if corners else ()
        labels[:number] = [*corner_labels, *(prompts.points.labels if prompts.points is not None else ())]
    return coordinates, labels


def prompt_mask(prompt: MaskPrompt, *, width: int, height: int, size: int) -> npt.NDArray[np.float32]:
    """The mask as `track` takes it: f32 [S, S] in 0…1, resized with antialias, soft edges kept as in the original.

    Raises PromptError for a mask of another size than the frame, and for an empty one.
    """
    _check_mask(prompt, width, height)
    return resize_mask(prompt.mask.astype(np.float32), size)


def _check_mask(prompt: MaskPrompt, width: int, height: int) -> None:
    if prompt.mask.shape != (height, width):
        found = f"{prompt.mask.shape[1]} x {prompt.mask.shape[0]}"
        raise PromptError(f"the mask is {found} pixels, the frame {width} x {height}; expected the same size")
    if not prompt.mask.any():
        raise PromptError("the mask prompt is empty: no pixel of it belongs to the object")
