"""A user's boxes, points and mask on their way into the detector's prompt places.

The detector takes everything as shares of the image: x by the width, y by the height, boxes as centre and size. It has
a fixed number of places for each kind; those that are left over have label -1 and do nothing. The original takes any
number, and boxes that reach out of the image (its image model) or not (its video model); here nothing may, as in
`track`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import DetectionInfo
from samonnx.runtime.mask_boxes import mask_boxes
from samonnx.runtime.preprocessing import resize_mask
from samonnx.runtime.prompts import EMPTY_PLACE, POSITIVE, Box, MaskPrompt, PromptError, Prompts, check_on_frame

__all__ = ["detector_places"]

Places = dict[str, npt.NDArray[np.float32] | npt.NDArray[np.int32]]


def detector_places(prompts: Prompts, detection: DetectionInfo, *, width: int, height: int, mask_side: int) -> Places:
    """The inputs `prompt_*` of `segment`, `ground` and `step` for a frame of that size, by port name.

    Boxes come before exemplars. `mask_side` is the side of a mask place, four times the grid. `prompts.use_memory`
    says nothing to the detector. Raises PromptError for what lies outside the frame, for more boxes or points than
    places, and for a mask if the model has no encoder for them.
    """
    check_on_frame(prompts, width=width, height=height)
    boxes = (*prompts.boxes, *prompts.exemplars)
    points = () if prompts.points is None else prompts.points.coordinates
    _check_number("boxes", len(boxes), detection.boxes, ", exemplars among them," if prompts.exemplars else "")
    _check_number("points", len(points), detection.points)
    places: Places = {
        "prompt_boxes": _filled((detection.boxes, 4), (_shares(box, width, height) for box in boxes)),
        "prompt_box_labels": _labels(detection.boxes, [box.label for box in boxes]),
        "prompt_points": _filled((detection.points, 2), ((x / width, y / height) for x, y in points)),
        "prompt_point_labels": _labels(detection.points, [] if prompts.points is None else prompts.points.labels),
    }
    if prompts.mask is not None and not detection.masks:
        raise PromptError(
            "this artifact cannot look for things by a mask: its model has no encoder for them. Give the mask's box "
            f"as an exemplar, which is {_extent(prompts.mask)}; or track the mask as an object"
        )
    if detection.masks:
        masks = [] if prompts.mask is None else [resize_mask(prompts.mask.mask.astype(np.float32), mask_side)]
        places["prompt_masks"] = _filled((detection.masks, mask_side, mask_side), masks)
        places["prompt_mask_labels"] = _labels(detection.masks, [POSITIVE] * len(masks))
    return places


def _check_number(what: str, given: int, places: int, remark: str = "") -> None:
    if given > places:
        raise PromptError(
            f"{given} {what}{remark or ','} but the artifact has {places} places for {what}. Give fewer, "
            f"or compile with --set detection.{what}={given}"
        )


def _shares(box: Box, width: int, height: int) -> tuple[float, float, float, float]:
    """Centre x, centre y, width, height."""
    x, y = (box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2
    return x / width, y / height, (box.x1 - box.x0) / width, (box.y1 - box.y0) / height


def _filled(shape: tuple[int, ...], values: Iterable[npt.ArrayLike]) -> npt.NDArray[np.float32]:
    """f32 [1, *shape]: the values first, then zeros."""
    places = np.zeros((1, *shape), dtype=np.float32)
    for place, value in zip(places[0], values, strict=False):
        place[...] = value
    return places


def _labels(number: int, labels: Iterable[int]) -> npt.NDArray[np.int32]:
    given = list(labels)
    return np.array([given + [EMPTY_PLACE] * (number - len(given))], dtype=np.int32)


def _extent(prompt: MaskPrompt) -> str:
    """The box of a mask, as Python and as the command line take it."""
    x, y, width, height = (int(side) for side in mask_boxes(prompt.mask[None])[0])
    return f"Box({x}, {y}, {x + width}, {y + height}), or --exemplar {x},{y},{width},{height}"
