from __future__ import annotations

import math

import pytest

from samonnx.runtime.prompts import Box, PromptError
from samonnx.runtime.sized_boxes import check_sized_box, sized_box


def test_width_and_height_are_counted_from_the_left_and_the_top() -> None:
    assert sized_box(40, 30, 160, 150) == Box(40, 30, 200, 180)
    assert sized_box(0.5, 0.25, 1, 2, label=0) == Box(0.5, 0.25, 1.5, 2.25, 0)


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((9, 2, 0, 4), "box 9,2,0,4 has the width 0: expected left, top, width and height, the last two above 0"),
        ((9, 2, 3, -4), "box 9,2,3,-4 has the height -4: expected left, top"),
        ((9, 2, 3, math.nan), "box 9,2,3,nan: expected finite numbers of pixels"),
        ((math.inf, 2, 3, 4), "box inf,2,3,4: expected finite numbers of pixels"),
        ((9, 2, 3, 4, 7), "has label 7: expected 1"),
    ],
)
def test_a_box_that_is_none_is_refused(sides: tuple[float, ...], message: str) -> None:
    with pytest.raises(PromptError) as caught:
        sized_box(*sides)  # type: ignore[arg-type]  # mypy cannot count a tuple of any length
    assert message in str(caught.value)


@pytest.mark.parametrize("sides", [(-1, 0, 3, 3), (0, -1, 3, 3), (40, 0, 7, 3), (0, 30, 3, 3)])
def test_a_box_beyond_any_side_of_the_frame_is_refused(sides: tuple[float, float, float, float]) -> None:
    check_sized_box(sized_box(0, 0, 46, 32), width=46, height=32, name="box", corners="")
    with pytest.raises(PromptError, match=r"beyond the frame, which is 46 x 32 pixels\. Do this"):
        check_sized_box(sized_box(*sides), width=46, height=32, name="box", corners="Do this")


def test_the_message_shows_what_was_given_and_where_that_reaches() -> None:
    with pytest.raises(PromptError) as caught:
        check_sized_box(sized_box(40, 30, 200.5, 180), width=220, height=200, name="--box", corners="Corners: so")
    assert str(caught.value) == (
        "--box 40,30,200.5,180 (left, top, width, height) goes from (40, 30) to (240.5, 210), beyond the frame, which "
        "is 220 x 200 pixels. Corners: so"
    )
