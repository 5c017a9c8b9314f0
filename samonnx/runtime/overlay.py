"""Masks drawn over a frame: tinted area, contour, box, label, prompts. numpy; Pillow only for the text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from samonnx.runtime.overlay_labels import Rectangle, draw_labels
from samonnx.runtime.prompts import POSITIVE, Box, Prompts

__all__ = ["COLOURS", "colour_of", "draw_overlay"]

Frame = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Colour = tuple[int, int, int]

COLOURS: tuple[Colour, ...] = (
    (0, 114, 255),
    (255, 140, 0),
    (0, 190, 90),
    (230, 60, 160),
    (250, 215, 40),
    (120, 80, 230),
    (0, 200, 210),
    (220, 50, 40),
)
POSITIVE_COLOUR: Colour = (40, 210, 60)
NEGATIVE_COLOUR: Colour = (235, 40, 40)
WHITE: Colour = (255, 255, 255)
TINT = 0.45
RIM = 1.4
"""Radius of a point's white rim, over that of its disc."""


def colour_of(position: int) -> Colour:
    """The colour of the object at that position; they repeat after eight."""
    return COLOURS[position % len(COLOURS)]


def draw_overlay(
    frame: Frame,
    masks: Mask,
    *,
    labels: Sequence[str] = (),
    boxes: npt.NDArray[np.float32] | None = None,
    prompts: Sequence[Prompts] = (),
) -> Frame:
    """A copy of `frame` uint8 [H, W, 3] with `masks` bool [O, H, W] drawn in the objects' colours.

    `labels` has one text an object, drawn near its mask where there is room; `boxes` f32 [O, 4], x0, y0, x1, y1 in
    pixels, are drawn in its colour. Of `prompts`, points are discs, boxes and exemplars are dashed: green if positive,
    red if negative.
    """
    picture = frame.copy()
    thickness = line_thickness(frame)
    for position, mask in enumerate(masks):
        rows, columns = _window(mask)
        inside, area = mask[rows, columns], picture[rows, columns]
        colour = np.array(colour_of(position), dtype=np.float32)
        area[inside] = (area[inside] * (1 - TINT) + colour * TINT).astype(np.uint8)
    for position, mask in enumerate(masks):
        picture[contour(mask, thickness)] = colour_of(position)
    for position, sides in enumerate(() if boxes is None else boxes):
        _draw_box(picture, [float(side) for side in sides], colour_of(position), max(1, thickness // 2))
    for given in prompts:
        _draw_prompts(picture, given, thickness)
    if labels:
        colours = [colour_of(position) for position in range(len(labels))]
        draw_labels(picture, masks, labels, colours, keep_clear=_marks(frame, prompts))
    return picture


def line_thickness(frame: Frame) -> int:
    """Of contours, in pixels: it grows with the frame."""
    side: int = min(frame.shape[:2])
    return max(2, round(side / 240))


def contour(mask: Mask, thickness: int) -> Mask:
    """The pixels of a mask within `thickness` steps (up, down, left, right) of a pixel outside it; bool [H, W].

    The border of the frame is no outside: a mask that runs out of the picture has no line along the edge.
    """
    rows, columns = _window(mask)
    inner = mask[rows, columns]
    for _ in range(thickness):
        padded = np.pad(inner, 1, constant_values=True)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    line = np.zeros_like(mask)
    line[rows, columns] = mask[rows, columns] & ~inner
    return line


def _window(mask: Mask) -> tuple[slice, slice]:
    """Rows and columns with the mask in them and one more around it, as far as the frame goes."""
    sides = []
    for axis in (1, 0):
        (there,) = np.nonzero(mask.any(axis=axis))
        sides.append(slice(max(there[0] - 1, 0), there[-1] + 2) if len(there) else slice(0, 0))
    return sides[0], sides[1]


def _draw_prompts(picture: Frame, prompts: Prompts, thickness: int) -> None:
    for box in (*prompts.boxes, *prompts.exemplars):
        _draw_dashed_box(picture, box, thickness + 1)
    if prompts.points is not None:
        radius = _radius(picture)
        for (x, y), label in zip(prompts.points.coordinates, prompts.points.labels, strict=True):
            _draw_disc(picture, x, y, radius, _colour_for(label))


def _marks(frame: Frame, prompts: Sequence[Prompts]) -> list[Rectangle]:
    """Where the points are drawn."""
    reach = int(_radius(frame) * RIM)
    points = [point for given in prompts if given.points is not None for point in given.points.coordinates]
    return [(int(x) - reach, int(y) - reach, int(x) + reach + 1, int(y) + reach + 1) for x, y in points]


def _radius(frame: Frame) -> float:
    """Of a point's disc, in pixels, without its rim."""
    side: int = min(frame.shape[:2])
    return max(3.0, side / 90)


def _colour_for(label: int) -> Colour:
    return POSITIVE_COLOUR if label == POSITIVE else NEGATIVE_COLOUR


def _draw_dashed_box(picture: Frame, box: Box, thickness: int) -> None:
    """Dashes of the label's colour on a white line, to be seen on any background and told from detections' boxes."""
    sides = [box.x0, box.y0, box.x1, box.y1]
    _draw_box(picture, sides, WHITE, thickness)
    _draw_box(picture, sides, _colour_for(box.label), thickness, dash=4 * thickness)


def _draw_box(picture: Frame, sides: Sequence[float], colour: Colour, thickness: int, dash: int = 0) -> None:
    """A frame of `thickness` pixels inside the box; with `dash`, pieces of that length with gaps as long."""
    height, width = picture.shape[:2]
    x0, x1 = (int(np.clip(round(x), 0, width - 1)) for x in (sides[0], sides[2]))
    y0, y1 = (int(np.clip(round(y), 0, height - 1)) for y in (sides[1], sides[3]))
    rows, columns = np.arange(y0, y1 + 1), np.arange(x0, x1 + 1)
    drawn_rows = rows if not dash else rows[(rows - y0) // dash % 2 == 0]
    drawn_columns = columns if not dash else columns[(columns - x0) // dash % 2 == 0]
    for step in range(thickness):
        picture[drawn_rows, min(x0 + step, x1)] = colour
        picture[drawn_rows, max(x1 - step, x0)] = colour
        picture[min(y0 + step, y1), drawn_columns] = colour
        picture[max(y1 - step, y0), drawn_columns] = colour


def _draw_disc(picture: Frame, x: float, y: float, radius: float, colour: Colour) -> None:
    """A disc with a white rim."""
    reach = int(radius * RIM) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    window = picture[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
    distance = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
    window[distance <= radius * RIM] = 255
    window[distance <= radius] = colour
