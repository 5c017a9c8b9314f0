"""Masks drawn over a frame: tinted area, contour, label, prompt markers. numpy; Pillow only for the text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from samonnx.runtime.prompts import POSITIVE, ObjectPrompts
from samonnx.runtime.video import require

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
TINT = 0.45


def colour_of(position: int) -> Colour:
    """The colour of the object at that position; they repeat after eight."""
    return COLOURS[position % len(COLOURS)]


def draw_overlay(
    frame: Frame,
    masks: Mask,
    *,
    labels: Sequence[str] = (),
    prompts: Mapping[int, ObjectPrompts] | None = None,
) -> Frame:
    """A copy of `frame` uint8 [H, W, 3] with `masks` bool [O, H, W] drawn in the objects' colours.

    `labels` has one text an object, drawn at its mask; `prompts` are drawn by object position: clicks as discs, green
    on the object and red off it, boxes as rectangles.
    """
    picture = frame.copy()
    thickness = max(2, round(min(frame.shape[:2]) / 240))
    for position, mask in enumerate(masks):
        colour = np.array(colour_of(position), dtype=np.float32)
        picture[mask] = (picture[mask] * (1 - TINT) + colour * TINT).astype(np.uint8)
    for position, mask in enumerate(masks):
        picture[contour(mask, thickness)] = colour_of(position)
    for position, given in (prompts or {}).items():
        _draw_prompts(picture, given, colour_of(position), thickness)
    if labels:
        _draw_labels(picture, masks, labels)
    return picture


def contour(mask: Mask, thickness: int) -> Mask:
    """The pixels of a mask within `thickness` steps (up, down, left, right) of a pixel outside it; bool [H, W].

    The border of the frame is no outside: a mask that runs out of the picture has no line along the edge.
    """
    inner = mask
    for _ in range(thickness):
        padded = np.pad(inner, 1, constant_values=True)
        inner = inner & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inner


def _draw_prompts(picture: Frame, prompts: ObjectPrompts, colour: Colour, thickness: int) -> None:
    if prompts.box is not None:
        box = prompts.box
        corners = np.round([box.x0, box.y0, box.x1, box.y1]).astype(int)
        area = np.zeros(picture.shape[:2], dtype=bool)
        area[max(corners[1], 0) : corners[3] + 1, max(corners[0], 0) : corners[2] + 1] = True
        picture[contour(area, thickness + 1)] = colour
    if prompts.points is not None:
        radius = max(3.0, min(picture.shape[:2]) / 90)
        for (x, y), label in zip(prompts.points.coordinates, prompts.points.labels, strict=True):
            _draw_disc(picture, x, y, radius, POSITIVE_COLOUR if label == POSITIVE else NEGATIVE_COLOUR)


def _draw_disc(picture: Frame, x: float, y: float, radius: float, colour: Colour) -> None:
    """A disc with a white rim."""
    reach = int(radius * 1.4) + 2
    top, left = max(int(y) - reach, 0), max(int(x) - reach, 0)
    window = picture[top : int(y) + reach + 1, left : int(x) + reach + 1]
    rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
    distance = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
    window[distance <= radius * 1.4] = 255
    window[distance <= radius] = colour


def _draw_labels(picture: Frame, masks: Mask, labels: Sequence[str]) -> None:
    """Each label above its mask, below labels already there, on its colour; objects without a mask have none."""
    image_module, draw_module, font_module = require("PIL.Image"), require("PIL.ImageDraw"), require("PIL.ImageFont")
    height, width = picture.shape[:2]
    font = font_module.load_default(size=max(10, round(min(height, width) / 28)))
    canvas = image_module.fromarray(picture)
    draw = draw_module.Draw(canvas)
    taken: list[tuple[int, int, int, int]] = []
    for position, (mask, label) in enumerate(zip(masks, labels, strict=True)):
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        text_width, text_height = right - left + 6, bottom - top + 6
        x = int(np.clip(columns[0], 0, max(width - text_width, 0)))
        y = int(np.clip(rows[0] - text_height - 2, 0, max(height - text_height, 0)))
        while any(_overlap((x, y, x + text_width, y + text_height), other) for other in taken):
            y += 1
        taken.append((x, y, x + text_width, y + text_height))
        colour = colour_of(position)
        draw.rectangle((x, y, x + text_width, y + text_height), fill=colour)
        bright = colour[0] * 0.3 + colour[1] * 0.6 + colour[2] * 0.1 > 150
        draw.text((x + 3 - left, y + 3 - top), label, fill=(0, 0, 0) if bright else (255, 255, 255), font=font)
    picture[...] = np.asarray(canvas)


def _overlap(one: tuple[int, int, int, int], other: tuple[int, int, int, int]) -> bool:
    """Whether two rectangles (left, top, right, bottom) have a pixel in common."""
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]
