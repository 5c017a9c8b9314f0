from __future__ import annotations

import math

import numpy as np
import pytest

from samonnx.runtime.prompts import (
    Box,
    MaskPrompt,
    Points,
    PromptError,
    Prompts,
    check_for_tracking,
    check_on_frame,
    point_places,
    prompt_mask,
)


def test_points_are_scaled_by_the_size_of_the_video() -> None:
    prompts = Prompts(points=Points(((320.0, 120.0), (640.0, 480.0)), (1, 0)))
    coordinates, labels = point_places(prompts, width=640, height=480, size=1008, places=4)
    np.testing.assert_array_equal(coordinates, np.array([[504, 252], [1008, 1008], [0, 0], [0, 0]], dtype=np.float32))
    assert coordinates.dtype == np.float32
    assert labels.dtype == np.int32
    assert labels.tolist() == [1, 0, -1, -1]


def test_a_box_is_two_corners_in_front_of_the_points() -> None:
    prompts = Prompts(points=Points(((30.0, 40.0),), (1,)), boxes=(Box(10, 20, 50, 60),))
    coordinates, labels = point_places(prompts, width=100, height=100, size=200, places=3)
    assert coordinates.tolist() == [[20, 40], [100, 120], [60, 80]]
    assert labels.tolist() == [2, 3, 1]


def test_a_box_alone_leaves_the_other_places_empty() -> None:
    _, labels = point_places(Prompts(boxes=(Box(0, 0, 10, 10),)), width=10, height=10, size=28, places=4)
    assert labels.tolist() == [2, 3, -1, -1]


def test_more_points_than_places_is_an_error_that_says_what_to_compile() -> None:
    prompts = Prompts(points=Points(((1.0, 1.0),) * 3, (1,) * 3), boxes=(Box(0, 0, 5, 5),))
    with pytest.raises(PromptError) as caught:
        point_places(prompts, width=10, height=10, size=28, places=4)
    assert "5 points on one object, two of them the box corners, but the graph has 4 prompt places" in str(caught.value)
    assert "--set programs.track.points=5" in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "what"),
    [
        (Prompts(points=Points(((10.5, 3.0),), (1,))), r"point \(10.5, 3\)"),
        (Prompts(points=Points(((3.0, -1.0),), (1,))), r"point \(3, -1\)"),
        (Prompts(boxes=(Box(0, 0, 12, 5),)), r"box corner \(12, 5\)"),
        (Prompts(text="a dog", exemplars=(Box(0, 0, 5, 5), Box(0, -2, 5, 5, 0))), r"exemplar corner \(0, -2\)"),
    ],
)
def test_a_prompt_outside_the_frame_is_an_error(prompts: Prompts, what: str) -> None:
    with pytest.raises(PromptError, match=what + " lies outside the frame, which is 10 x 8 pixels"):
        check_on_frame(prompts, width=10, height=8)
    if prompts.shows_an_object:
        with pytest.raises(PromptError, match=what):
            point_places(prompts, width=10, height=8, size=28, places=4)


def test_prompts_on_the_frame_pass() -> None:
    corners = Points(((0.0, 0.0), (10.0, 8.0)), (1, 0))
    mask = MaskPrompt(np.ones((8, 10), dtype=bool))
    check_on_frame(Prompts("a dog", corners, (Box(0, 0, 10, 8),), mask, (Box(9, 7, 10, 8),)), width=10, height=8)


MASK = MaskPrompt(np.ones((2, 2), dtype=bool))
CLICK = Points(((1.0, 1.0),), (1,))
BOX = Box(0, 0, 1, 1)


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(points=CLICK, boxes=(BOX,)),
        Prompts(mask=MASK),
        Prompts(text="a dog", exemplars=(BOX, Box(0, 0, 1, 1, 0))),
        Prompts(exemplars=(BOX,)),
    ],
)
def test_one_object_or_one_concept_can_be_tracked(prompts: Prompts) -> None:
    check_for_tracking(prompts)
    assert prompts.names_a_concept != prompts.shows_an_object


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Prompts(text="a dog", points=CLICK), "words stand for every instance on the frame, points, boxes and masks"),
        (Prompts(text="a dog", boxes=(BOX,)), "a box as an example of what the words mean goes in as an exemplar"),
        (Prompts(exemplars=(BOX,), mask=MASK), "exemplars stand for every instance on the frame"),
        (Prompts(boxes=(BOX,), mask=MASK), "a mask prompt stands alone: the graph would ignore the points and the box"),
        (Prompts(boxes=(BOX, BOX)), "2 boxes on one object; expected one. Give each thing an object number of its own"),
        (Prompts(boxes=(Box(0, 0, 1, 1, 0),)), "box (0, 0, 1, 1) has label 0, but an object is tracked from a box"),
    ],
)
def test_what_is_neither_one_object_nor_one_concept_cannot_be_tracked(prompts: Prompts, message: str) -> None:
    with pytest.raises(PromptError) as caught:
        check_for_tracking(prompts)
    assert message in str(caught.value)


def test_prompts_check_themselves() -> None:
    with pytest.raises(PromptError, match="point label 2: expected 1"):
        Points(((1.0, 1.0),), (2,))
    with pytest.raises(PromptError, match="got 1 points and 2 labels"):
        Points(((1.0, 1.0),), (1, 1))
    with pytest.raises(PromptError, match="at least one point"):
        Points((), ())
    with pytest.raises(PromptError, match="expected finite pixel coordinates"):
        Points(((math.nan, 1.0),), (1,))
    with pytest.raises(PromptError, match="expected finite pixel coordinates"):
        Box(0, 0, math.inf, 1)
    with pytest.raises(PromptError, match="is empty: expected x0 < x1 and y0 < y1"):
        Box(5, 5, 5, 9)
    with pytest.raises(PromptError, match=r"expected bool \[height, width\], got float64 \[2, 2\]"):
        MaskPrompt(np.zeros((2, 2)))  # type: ignore[arg-type]  # the wrong dtype is what is tested
    with pytest.raises(PromptError, match=r"box \(0, 1, 2, 3\) has label 2: expected 1 \(this, or like this\) or 0"):
        Box(0, 1, 2, 3, 2)
    with pytest.raises(PromptError, match=r"box \(5, 9, 4, 12\) is empty: expected x0 < x1 and y0 < y1"):
        Box(5, 9, 4, 12)
    with pytest.raises(PromptError, match="prompts are empty: give words, points, a box, an exemplar or a mask"):
        Prompts()
    with pytest.raises(PromptError, match='the text is empty: name what to look for, for example "a dog"'):
        Prompts(text="  ")


def test_a_mask_keeps_its_soft_edges() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[:5] = True
    resized = prompt_mask(MaskPrompt(mask), width=10, height=10, size=28)
    assert resized.shape == (28, 28)
    assert resized.dtype == np.float32
    assert resized.min() == 0
    assert resized.max() == pytest.approx(1)
    assert ((resized > 0.01) & (resized < 0.99)).any()


def test_a_mask_of_another_size_or_empty_is_an_error() -> None:
    with pytest.raises(PromptError, match="the mask is 6 x 5 pixels, the frame 10 x 8; expected the same size"):
        prompt_mask(MaskPrompt(np.ones((5, 6), dtype=bool)), width=10, height=8, size=28)
    with pytest.raises(PromptError, match="the mask prompt is empty"):
        prompt_mask(MaskPrompt(np.zeros((8, 10), dtype=bool)), width=10, height=8, size=28)
