"""Boxes of masks and their overlap, against plain Python."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.models.mask_box import box_iou, corners_of_state, mask_box, state_of_corners
from samonnx.programs.program import Component
from samonnx.trace import trace
from tests.models import numpy_samurai as numpy_reference

Corners = tuple[int, int, int, int]

LOGITS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7)),
    elements=st.sampled_from([-1024.0, -1.0, -1e-30, 0.0, 1e-30, 10.0]),
    fill=st.just(-1.0),
)


def corners(side: int = 1023) -> st.SearchStrategy[Corners]:
    ends = st.tuples(st.integers(0, side), st.integers(0, side)).map(sorted)
    return st.tuples(ends, ends).map(lambda pair: (pair[0][0], pair[1][0], pair[0][1], pair[1][1]))


@given(logits=LOGITS)
@settings(max_examples=200, deadline=None)
@example(np.full((2, 4, 5), -1.0, np.float32))
@example(np.zeros((1, 4, 5), np.float32))
def test_it_is_the_first_and_last_column_and_row_above_zero(logits: np.ndarray) -> None:
    found = mask_box(torch.from_numpy(logits))
    assert found.dtype == torch.float32
    assert found.tolist() == [numpy_reference.box_of(one) for one in logits]


def test_one_pixel_has_no_extent_wherever_it_lies() -> None:
    for x, y in [(0, 0), (6, 0), (0, 4), (6, 4), (3, 2)]:
        logits = torch.full((5, 7), -10.0)
        logits[y, x] = 1e-30
        assert mask_box(logits).tolist() == [x, y, x, y]


@given(box=corners())
@settings(deadline=None)
@example((0, 0, 0, 0))
@example((5, 9, 1000, 9))
def test_a_state_is_centre_ratio_and_height_with_flat_boxes_one_high(box: Corners) -> None:
    found = state_of_corners(torch.tensor(box, dtype=torch.float32))
    np.testing.assert_allclose(found.numpy(), numpy_reference.state_of(box), rtol=1e-7)


@given(box=corners())
@settings(deadline=None)
def test_corners_come_back_from_the_state_but_for_flat_boxes(box: Corners) -> None:
    x0, y0, x1, y1 = box
    found = corners_of_state(state_of_corners(torch.tensor(box, dtype=torch.float32)))
    flat = 0.5 if y0 == y1 else 0.0
    np.testing.assert_allclose(found.numpy(), [x0, y0 - flat, x1, y1 + flat], atol=2e-4)


@given(one=corners(8), other=corners(8))
@settings(max_examples=300, deadline=None)
@example((0, 0, 0, 0), (0, 0, 4, 4))
@example((0, 0, 4, 4), (0, 0, 0, 0))
@example((3, 0, 3, 5), (3, 0, 3, 5))
def test_overlap_is_common_area_over_union_and_nothing_without_an_area(one: Corners, other: Corners) -> None:
    found = box_iou(torch.tensor(one, dtype=torch.float32), torch.tensor(other, dtype=torch.float32))
    np.testing.assert_allclose(found.item(), numpy_reference.iou_of(one, other), rtol=1e-6)


@given(
    state=st.tuples(*(st.floats(-2000, 2000, width=32),) * 2, *(st.floats(-50, 50, width=32),) * 2),
    box=corners(),
)
@settings(max_examples=300, deadline=None)
@example((10.0, 10.0, 1.0, -4.0), (0, 0, 20, 20))
@example((10.0, 10.0, -1.0, 4.0), (0, 0, 20, 20))
@example((10.0, 10.0, -1.0, -4.0), (0, 0, 20, 20))
@example((0.0, 0.0, 0.0, 0.0), (0, 0, 0, 0))
def test_overlap_with_any_predicted_state_is_a_number_in_0_to_1(
    state: tuple[float, float, float, float], box: Corners
) -> None:
    """Predicted boxes may lie outside the image, and may have a negative ratio or height."""
    predicted = corners_of_state(torch.tensor(state))
    found = box_iou(predicted, torch.tensor(box, dtype=torch.float32)).item()
    assert 0 <= found <= 1 + 1e-6
    np.testing.assert_allclose(found, numpy_reference.iou_of(predicted.double().numpy(), box), atol=1e-6)


class Boxes(nn.Module):
    def forward(self, logits: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        boxes = mask_box(logits)
        return boxes, state_of_corners(boxes), box_iou(corners_of_state(state)[:, None], boxes)


def test_the_graph_equals_the_module() -> None:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 16, 16, generator=random) - 2
    logits[0, 1], logits[1, 2] = -1024, -10
    logits[1, 2, 3, 4] = 1
    ports = {"logits": logits, "state": torch.tensor([[8.0, 8, 1, 14], [4, 3, 1, 2], [0, 0, 0, 0]])}
    component = Component("boxes", Boxes().eval(), ports, ("boxes", "states", "ious"))
    session = GraphSession(trace(component).model, threads=1)
    found = session.run({name: port.numpy() for name, port in ports.items()})
    for name, value in zip(component.outputs, Boxes()(**ports), strict=True):
        np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-6)
