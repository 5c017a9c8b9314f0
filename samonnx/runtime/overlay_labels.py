"""Labels on a picture, each near its mask, none over another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from samonnx.runtime.extras import require_extra

__all__ = ["Rectangle", "draw_labels", "find_room"]

Rectangle = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels; right and bottom are the first pixels outside."""

Colour = tuple[int, int, int]

SMALLEST_TEXT, PADDING = 10, 3
REACH = 3
"""A label may lie this many times its height away from its mask's box."""
LARGEST_SHARE = 0.5
"""Of the frame's width and height; a larger label would hide more than it tells."""


def draw_labels(
    picture: npt.NDArray[np.uint8],
    masks: npt.NDArray[np.bool_],
    labels: Sequence[str],
    colours: Sequence[Colour],
    keep_clear: Sequence[Rectangle] = (),
) -> None:
    """Draw into `picture` uint8 [H, W, 3] a label for each of `masks` bool [O, H, W], on its colour.

    Earlier labels have the first choice of places; `keep_clear` is not drawn over. A label for which there is no room
    near its mask, and one whose mask is empty, is left out. Raises MissingExtraError.
    """
    image_module, draw_module = require_extra("PIL.Image", "video"), require_extra("PIL.ImageDraw", "video")
    font_module = require_extra("PIL.ImageFont", "video")
    height, width = picture.shape[:2]
    font = font_module.load_default(size=max(SMALLEST_TEXT, round(min(height, width) / 32)))
    canvas = image_module.fromarray(picture)
    draw = draw_module.Draw(canvas)
    taken = list(keep_clear)
    for mask, label, colour in zip(masks, labels, colours, strict=True):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        around = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        left, top, right, bottom = (round(side) for side in draw.textbbox((0, 0), label, font=font))
        size = (right - left + 2 * PADDING, bottom - top + 2 * PADDING)
        place = find_room(size, around, (width, height), taken)
        if place is None:
            continue
        taken.append((place[0], place[1], place[0] + size[0], place[1] + size[1]))
        draw.rectangle((place[0], place[1], place[0] + size[0] - 1, place[1] + size[1] - 1), fill=colour)
        bright = colour[0] * 0.3 + colour[1] * 0.6 + colour[2] * 0.1 > 150
        corner = (place[0] + PADDING - left, place[1] + PADDING - top)
        draw.text(corner, label, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
    picture[...] = np.asarray(canvas)


def find_room(
    size: tuple[int, int], around: Rectangle, frame: tuple[int, int], taken: Sequence[Rectangle]
) -> tuple[int, int] | None:
    """Left and top for a label of that size (width, height) beside or on the thing `around`, clear of `taken`.

    All of it lies inside the `frame` (width, height). None if there is no such place within REACH times its height, or
    if the label is too large for the frame.
    """
    (width, height), (frame_width, frame_height) = size, frame
    if width > LARGEST_SHARE * frame_width or height > LARGEST_SHARE * frame_height:
        return None
    for x, y in _places(size, around):
        left, top = min(max(x, 0), frame_width - width), min(max(y, 0), frame_height - height)
        if not any(_overlap((left, top, left + width, top + height), other) for other in taken):
            return left, top
    return None


def _places(size: tuple[int, int], around: Rectangle) -> Iterator[tuple[int, int]]:
    """Above the thing, below it, in its corner; then all around, the nearest to the first choice first."""
    (width, height), (left, top, right, bottom) = size, around
    yield left, top - height - 1
    yield left, bottom + 1
    yield left, top
    reach = REACH * height
    rows = range(top - reach - height, bottom + reach + 1, max(1, height // 2))
    columns = range(left - reach - width, right + reach + 1, max(1, width // 4))
    grid = [(x, y) for y in rows for x in columns]
    yield from sorted(grid, key=lambda place: abs(place[0] - left) + abs(place[1] - (top - height - 1)))


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    """Whether two rectangles have a pixel in common."""
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
