from __future__ import annotations

import math

import numpy as np
import pytest

from samonnx.runtime.prompts import Box, MaskPrompt, ObjectPrompts, Points, PromptError, point_places, prompt_mask


def test_points_are_scaled_by_the_size_of_the_video() -> None:
    prompts = ObjectPrompts(points=Points(((320.0, 120.0), (640.0, 480.0)), (1, 0)))
    coordinates, labels = point_places(prompts, width=640, height=480, size=1008, places=4)
    np.testing.assert_array_equal(coordinates, np.array([[504, 252], [1008, 1008], [0, 0], [0, 0]], dtype=np.float32))
    assert coordinates.dtype == np.float32
    assert labels.dtype == np.int32
    assert labels.tolist() == [1, 0, -1, -1]


def test_a_box_is_two_corners_in_front_of_the_points() -> None:
    prompts = ObjectPrompts(points=Points(((30.0, 40.0),), (1,)), box=Box(10, 20, 50, 60))
    coordinates, labels = point_places(prompts, width=100, height=100, size=200, places=3)
    assert coordinates.tolist() == [[20, 40], [100, 120], [60, 80]]
    assert labels.tolist() == [2, 3, 1]


def test_a_box_alone_leaves_the_other_places_empty() -> None:
    _, labels = point_places(ObjectPrompts(box=Box(0, 0, 10, 10)), width=10, height=10, size=28, places=4)
    assert labels.tolist() == [2, 3, -1, -1]


def test_more_points_than_places_is_an_error_that_says_what_to_compile() -> None:
    prompts = ObjectPrompts(points=Points(((1.0, 1.0),) * 3, (1,) * 3), box=Box(0, 0, 5, 5))
    with pytest.raises(PromptError) as caught:
        point_places(prompts, width=10, height=10, size=28, places=4)
    assert "5 points on one object, two of them the box corners, but the graph has 4 prompt places" in str(caught.value)
    assert "--set programs.track.points=5" in str(caught.value)


@pytest.mark.parametrize(
    ("prompts", "what"),
    [
        (ObjectPrompts(points=Points(((10.5, 3.0),), (1,))), r"point \(10.5, 3\)"),
        (ObjectPrompts(points=Points(((3.0, -1.0),), (1,))), r"point \(3, -1\)"),
        (ObjectPrompts(box=Box(0, 0, 12, 5)), r"box corner \(12, 5\)"),
    ],
)
def test_a_prompt_outside_the_frame_is_an_error(prompts: ObjectPrompts, what: str) -> None:
    with pytest.raises(PromptError, match=what + " lies outside the frame, which is 10 x 8 pixels"):
        point_places(prompts, width=10, height=8, size=28, places=4)


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
    with pytest.raises(PromptError, match="prompts are empty"):
        ObjectPrompts()
    with pytest.raises(PromptError, match="a mask prompt stands alone"):
        ObjectPrompts(box=Box(0, 0, 1, 1), mask=MaskPrompt(np.ones((2, 2), dtype=bool)))


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
