from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.automatic_masks.suppression import distinct_boxes
from tests.runtime.plain_automatic_masks import plain_nms

side = st.integers(0, 8)
boxes = st.lists(st.builds(lambda x, y, w, h: (x, y, x + w, y + h), side, side, side, side), max_size=14)


@settings(deadline=None, max_examples=300)
@given(boxes, st.data(), st.sampled_from([0.0, 0.2, 0.5, 2 / 3, 0.8, 1.0]))
def test_boxes_are_suppressed_one_after_the_other(
    found: list[tuple[int, int, int, int]], data: st.DataObject, threshold: float
) -> None:
    scores = data.draw(st.lists(st.sampled_from([0.1, 0.9, 0.9, 1.0]), min_size=len(found), max_size=len(found)))
    table = np.array(found, dtype=np.int64).reshape(-1, 4)
    kept = distinct_boxes(table, np.array(scores, dtype=np.float32), threshold)
    assert kept.tolist() == plain_nms(found, scores, threshold)


@pytest.mark.parametrize(
    ("threshold", "kept"),
    [
        (0.7, [0, 1]),  # 7 / 10 in float32 is below 0.7
        (0.6999, [0]),
    ],
)
def test_the_threshold_is_a_double_and_the_overlap_a_float(threshold: float, kept: list[int]) -> None:
    table = np.array([(0, 0, 10, 1), (0, 0, 7, 1)])
    assert distinct_boxes(table, np.array([1, 0], np.float32), threshold).tolist() == kept


def test_an_overlap_that_float32_rounds_up_is_above_its_own_threshold() -> None:
    table = np.array([(0, 0, 10, 1), (0, 0, 8, 1)])
    assert float(np.float32(8) / np.float32(10)) > 0.8
    assert distinct_boxes(table, np.array([1, 0], np.float32), 0.8).tolist() == [0]


def test_of_equal_boxes_without_area_both_stay() -> None:
    table = np.array([(3, 3, 3, 3), (3, 3, 3, 3)])
    assert distinct_boxes(table, np.array([0.5, 0.9], np.float32), 0.1).tolist() == [1, 0]


def test_a_suppressed_box_suppresses_nothing() -> None:
    table = np.array([(0, 0, 10, 10), (0, 0, 10, 6), (0, 3, 10, 6)])
    scores = np.array([0.9, 0.8, 0.7], dtype=np.float32)
    assert distinct_boxes(table, scores, 0.4).tolist() == [0, 2]


def test_nothing_is_nothing() -> None:
    assert distinct_boxes(np.zeros((0, 4), np.int64), np.zeros(0, np.float32), 0.5).tolist() == []
