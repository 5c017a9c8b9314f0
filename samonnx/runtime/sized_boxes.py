"""Boxes as x, y, width, height, in COCO's order: command lines and `Tracker.track(box=…)` take them so.

Corners look the same, four numbers in a row, so the messages here say what people who have corners can do.
"""

from __future__ import annotations

import math

from samonnx.runtime.prompts import POSITIVE, Box, PromptError

__all__ = ["check_sized_box", "sized_box"]


def sized_box(x: float, y: float, width: float, height: float, label: int = POSITIVE) -> Box:
    """The box with its left and top side at x, y, in pixels. PromptError unless width and height are above 0."""
    for name, side in (("width", width), ("height", height)):
        if side <= 0:
            raise PromptError(
                f"box {x:g},{y:g},{width:g},{height:g} has the {name} {side:g}: expected left, top, width and height, "
                f"the last two above 0"
            )
    if not all(math.isfinite(side) for side in (x, y, width, height)):
        raise PromptError(f"box {x:g},{y:g},{width:g},{height:g}: expected finite numbers of pixels")
    return Box(x, y, x + width, y + height, label)


def check_sized_box(box: Box, *, width: int, height: int, name: str, corners: str) -> None:
    """Raise PromptError for a box that `sized_box` made, if it reaches beyond a frame of that size.

    `name` is what the user gave it as, `corners` a sentence on how to give corners.
    """
    if box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height:
        return
    numbers = f"{box.x0:g},{box.y0:g},{box.x1 - box.x0:g},{box.y1 - box.y0:g}"
    raise PromptError(
        f"{name} {numbers} (left, top, width, height) goes from ({box.x0:g}, {box.y0:g}) to ({box.x1:g}, {box.y1:g}), "
        f"beyond the frame, which is {width} x {height} pixels. {corners}"
    )
