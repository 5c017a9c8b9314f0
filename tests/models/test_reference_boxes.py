"""Reference boxes: corners, sine encoding number by number, refinement."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.reference_boxes import box_corners, box_sine, refined_boxes

fractions = st.floats(0, 1, width=32)
boxes = st.tuples(fractions, fractions, fractions, fractions)


def test_corners_lie_half_a_side_from_the_centre() -> None:
    corners = box_corners(torch.tensor([[0.5, 0.25, 0.5, 0.25], [0.0, 1.0, 0.5, 0.5]]))
    assert [corner.tolist() for corner in corners] == [[0.25, -0.25], [0.125, 0.75], [0.75, 0.25], [0.375, 1.25]]


@given(box=boxes, channels=st.sampled_from([2, 4, 16, 128]))
def test_the_sine_encoding_is_y_x_width_height_each_with_sines_and_cosines_in_turn(
    box: tuple[float, float, float, float], channels: int
) -> None:
    x, y, width, height = box
    expected = [
        (math.cos if i % 2 else math.sin)(2 * math.pi * value / 10000 ** ((i - i % 2) / channels))
        for value in (y, x, width, height)
        for i in range(channels)
    ]
    found = box_sine(torch.tensor([[box]]), channels)
    assert found.shape == (1, 1, 4 * channels)
    assert torch.allclose(found[0, 0].double(), torch.tensor(expected, dtype=torch.float64), atol=2e-6)


@given(box=boxes)
def test_no_offset_leaves_a_box_where_it_is_up_to_a_thousandth_of_the_border(
    box: tuple[float, float, float, float],
) -> None:
    before = torch.tensor(box)
    after = refined_boxes(before, torch.zeros(4))
    assert torch.allclose(after, before.clamp(1e-3, 1 - 1e-3), atol=2e-6, rtol=0)


@given(box=boxes, offset=st.floats(-20, 20, width=32))
def test_an_offset_is_added_to_the_logit(box: tuple[float, float, float, float], offset: float) -> None:
    def moved(value: float) -> float:
        odds = max(value, 1e-3) / max(1 - value, 1e-3)
        return 1 / (1 + math.exp(-offset) / odds)

    found = refined_boxes(torch.tensor(box), torch.full((4,), offset))
    assert torch.allclose(found.double(), torch.tensor([moved(v) for v in box], dtype=torch.float64), atol=2e-6)


def test_values_outside_the_image_are_taken_to_its_border() -> None:
    def kept(*values: float) -> Tensor:
        return refined_boxes(torch.tensor(values), torch.zeros(len(values)))

    assert torch.equal(kept(-3.0, 5.0), kept(0.0, 1.0))
