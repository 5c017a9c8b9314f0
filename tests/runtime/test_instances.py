from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from samonnx.runtime.detections import Detections
from samonnx.runtime.frame_result import Search
from samonnx.runtime.instances import SAME_OBJECT_IOU, new_objects

HEIGHT, WIDTH = 12, 40


def strip(left: int, right: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[:, left:right] = True
    return mask


def detections(*masks: np.ndarray) -> Detections:
    """With scores 0.9, 0.8, …"""
    number = len(masks)
    return Detections(
        width=WIDTH,
        height=HEIGHT,
        boxes=np.zeros((number, 4), dtype=np.float32),
        scores=np.array([0.9 - 0.1 * n for n in range(number)], dtype=np.float32),
        masks=np.array(masks, dtype=bool).reshape(number, HEIGHT, WIDTH),
        mask_logits=np.zeros((number, 3, 10), dtype=np.float32),
        indices=np.arange(number),
        presence=0.9,
        semantic_mask=np.zeros((HEIGHT, WIDTH), dtype=bool),
        best_score=0.95,
        suppressed=0,
    )


def test_the_best_gets_the_number_and_the_others_the_free_ones_after_it() -> None:
    found = {3: detections(strip(0, 5), strip(10, 15), strip(20, 25))}
    masks, (search,) = new_objects(found, [], used=(1, 4))
    assert list(masks) == [3, 5, 6]
    np.testing.assert_array_equal(masks[5].mask, strip(10, 15))
    assert (search.number, search.objects, search.known) == (3, (3, 5, 6), 0)
    np.testing.assert_allclose(search.scores, [0.9, 0.8, 0.7], rtol=1e-6)
    assert search.best_score == 0.95


def test_a_number_in_use_is_passed_over() -> None:
    masks, _ = new_objects({1: detections(strip(0, 5))}, [], used=(1, 2))
    assert list(masks) == [3]


def test_a_number_that_another_search_was_given_under_stays_free_for_it() -> None:
    found = {1: detections(strip(0, 5), strip(10, 15)), 2: detections(strip(20, 25), strip(30, 35))}
    masks, searches = new_objects(found, [], used=())
    assert [search.objects for search in searches] == [(1, 3), (2, 4)]
    np.testing.assert_array_equal(masks[2].mask, strip(20, 25))


def test_what_covers_a_known_object_is_that_object() -> None:
    found = {1: detections(strip(0, 10), strip(20, 30))}
    masks, (search,) = new_objects(found, [strip(2, 10)], used=(7,))
    np.testing.assert_array_equal(masks[1].mask, strip(20, 30))
    assert (search.objects, search.known) == ((1,), 1)


def test_two_searches_that_find_one_thing_make_one_object() -> None:
    masks, searches = new_objects({1: detections(strip(0, 10)), 5: detections(strip(0, 9))}, [], used=())
    assert list(masks) == [1]
    assert searches[1] == Search(5, (), (), 1, 0, 0.95)


def test_a_detection_without_a_pixel_is_no_object() -> None:
    masks, (search,) = new_objects({1: detections(strip(0, 0), strip(5, 9))}, [strip(0, 0)], used=())
    assert list(masks) == [1]
    np.testing.assert_array_equal(masks[1].mask, strip(5, 9))
    assert (search.known, search.empty) == (0, 1)


def test_nothing_found_is_said_with_the_best_score() -> None:
    assert new_objects({4: detections()}, [], used=()) == ({}, (Search(4, (), (), 0, 0, 0.95),))


@given(left=st.integers(0, 20), width=st.integers(1, 20), other_left=st.integers(0, 20), other_width=st.integers(1, 20))
def test_known_means_an_overlap_over_union_of_at_least_the_limit(
    left: int, width: int, other_left: int, other_width: int
) -> None:
    shared = max(0, min(left + width, other_left + other_width) - max(left, other_left))
    iou = shared / (width + other_width - shared)
    found = {1: detections(strip(left, left + width))}
    masks, _ = new_objects(found, [strip(other_left, other_left + other_width)], used=())
    assert (not masks) == (iou >= SAME_OBJECT_IOU)
