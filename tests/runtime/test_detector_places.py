from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.detector_places import detector_places
from samonnx.runtime.manifest import DetectionInfo
from samonnx.runtime.preprocessing import resize_mask
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts

INFO = DetectionInfo(queries=5, boxes=2, points=3, scoring="image")
WITH_MASKS = DetectionInfo(queries=5, boxes=2, points=3, scoring="image", masks=2)


def places(prompts: Prompts, info: DetectionInfo = INFO, width: int = 40, height: int = 20) -> dict[str, object]:
    found = detector_places(prompts, info, width=width, height=height, mask_side=8)
    return {name: array.tolist() for name, array in found.items()}


def test_boxes_become_centre_and_size_as_shares_of_the_frame() -> None:
    found = places(Prompts(boxes=(Box(10, 5, 30, 10),), exemplars=(Box(0, 0, 40, 20, 0),)))
    assert found["prompt_boxes"] == [[[0.5, 0.375, 0.5, 0.25], [0.5, 0.5, 1, 1]]]
    assert found["prompt_box_labels"] == [[1, 0]]


def test_points_become_shares_of_the_frame() -> None:
    found = places(Prompts(points=Points(((10, 5), (40, 20)), (0, 1))))
    assert found["prompt_points"] == [[[0.25, 0.25], [1, 1], [0, 0]]]
    assert found["prompt_point_labels"] == [[0, 1, -1]]


def test_places_that_are_left_over_are_empty() -> None:
    found = places(Prompts(text="a dog"))
    assert found["prompt_box_labels"] == [[-1, -1]]
    assert found["prompt_point_labels"] == [[-1, -1, -1]]
    assert found["prompt_boxes"] == [[[0, 0, 0, 0]] * 2]
    assert found["prompt_points"] == [[[0, 0]] * 3]


def test_dtypes_are_those_of_the_ports() -> None:
    found = detector_places(Prompts(text="a dog"), WITH_MASKS, width=4, height=4, mask_side=8)
    shapes = {name: (str(array.dtype), array.shape) for name, array in found.items()}
    assert shapes == {
        "prompt_boxes": ("float32", (1, 2, 4)),
        "prompt_box_labels": ("int32", (1, 2)),
        "prompt_points": ("float32", (1, 3, 2)),
        "prompt_point_labels": ("int32", (1, 3)),
        "prompt_masks": ("float32", (1, 2, 8, 8)),
        "prompt_mask_labels": ("int32", (1, 2)),
    }


@settings(deadline=None, max_examples=60)
@given(
    corners=st.tuples(*[st.floats(0, 1)] * 4).filter(lambda c: c[0] + 1e-3 < c[2] and c[1] + 1e-3 < c[3]),
    width=st.integers(1, 5000),
    height=st.integers(1, 5000),
)
def test_the_size_of_the_frame_does_not_matter_to_a_box_that_grows_with_it(
    corners: tuple[float, ...], width: int, height: int
) -> None:
    x0, y0, x1, y1 = corners
    box = Box(x0 * width, y0 * height, x1 * width, y1 * height)
    found = detector_places(Prompts(boxes=(box,)), INFO, width=width, height=height, mask_side=8)
    cx, cy, w, h = found["prompt_boxes"][0, 0]
    np.testing.assert_allclose([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], corners, atol=3e-7)


@pytest.mark.parametrize(
    ("box", "corner"),
    [
        (Box(50, 0, 60, 10), r"\(50, 0\)"),
        (Box(-20, 3, -10, 10), r"\(-20, 3\)"),
        (Box(30, 0, 41, 10), r"\(41, 10\)"),
    ],
    ids=["beside it", "before it", "partly outside"],
)
def test_a_box_outside_the_frame_is_an_error(box: Box, corner: str) -> None:
    for what, prompts in (("box", Prompts(boxes=(box,))), ("exemplar", Prompts(exemplars=(box,)))):
        with pytest.raises(PromptError, match=f"{what} corner {corner} lies outside the frame, which is 40 x 20 pix"):
            places(prompts)


def test_a_point_outside_the_frame_is_an_error() -> None:
    with pytest.raises(PromptError, match=r"point \(3, 20.5\) lies outside the frame, which is 40 x 20 pixels"):
        places(Prompts(points=Points(((3, 20.5),), (1,))))


def test_more_boxes_than_places_are_an_error_that_says_what_to_compile() -> None:
    box = Box(1, 1, 2, 2)
    with pytest.raises(PromptError) as caught:
        places(Prompts(boxes=(box,), exemplars=(box, box)))
    assert str(caught.value) == (
        "3 boxes, exemplars among them, but the artifact has 2 places for boxes. Give fewer, "
        "or compile with --set detection.boxes=3"
    )
    with pytest.raises(PromptError, match=r"^3 boxes, but the artifact has 2 places"):
        places(Prompts(boxes=(box, box, box)))


def test_more_points_than_places_are_an_error_that_says_what_to_compile() -> None:
    with pytest.raises(PromptError) as caught:
        places(Prompts(points=Points(((1, 1),) * 4, (1,) * 4)))
    assert str(caught.value) == (
        "4 points, but the artifact has 3 places for points. Give fewer, or compile with --set detection.points=4"
    )


def test_a_mask_for_a_model_without_an_encoder_is_an_error_that_says_its_box() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[3:7, 10:30] = True
    with pytest.raises(PromptError) as caught:
        places(Prompts(text="a dog", mask=MaskPrompt(mask)))
    assert str(caught.value) == (
        "this artifact cannot look for things by a mask: its model has no encoder for them. Give the mask's box as an "
        "exemplar, which is Box(10, 3, 30, 7), or --exemplar 10,3,20,4; or track the mask as an object"
    )


def test_a_mask_goes_into_the_first_place_at_the_masks_resolution() -> None:
    mask = np.zeros((20, 40), dtype=bool)
    mask[3:7, 10:30] = True
    found = detector_places(Prompts(mask=MaskPrompt(mask)), WITH_MASKS, width=40, height=20, mask_side=8)
    np.testing.assert_array_equal(found["prompt_masks"][0, 0], resize_mask(mask.astype(np.float32), 8))
    assert not found["prompt_masks"][0, 1].any()
    assert found["prompt_mask_labels"].tolist() == [[1, -1]]


def test_a_mask_of_another_size_is_an_error() -> None:
    with pytest.raises(PromptError, match="the mask is 6 x 5 pixels, the frame 40 x 20; expected the same size"):
        places(Prompts(mask=MaskPrompt(np.ones((5, 6), dtype=bool))), WITH_MASKS)
