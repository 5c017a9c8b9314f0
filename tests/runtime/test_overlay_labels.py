from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from samonnx.runtime.overlay_labels import REACH, Rectangle, draw_labels, find_room

sides = st.integers(0, 300)
rectangles = st.tuples(sides, sides, st.integers(1, 80), st.integers(1, 80)).map(
    lambda r: (r[0], r[1], r[0] + r[2], r[1] + r[3])
)


def shares_a_pixel(one: Rectangle, other: Rectangle) -> bool:
    columns = set(range(one[0], one[2])) & set(range(other[0], other[2]))
    rows = set(range(one[1], one[3])) & set(range(other[1], other[3]))
    return bool(columns and rows)


@given(
    around=rectangles, taken=st.lists(rectangles, max_size=12), size=st.tuples(st.integers(5, 90), st.integers(5, 30))
)
def test_a_label_lies_in_the_frame_near_its_thing_and_over_nothing(
    around: Rectangle, taken: list[Rectangle], size: tuple[int, int]
) -> None:
    place = find_room(size, around, (400, 400), taken)
    if place is None:
        return
    label = (place[0], place[1], place[0] + size[0], place[1] + size[1])
    assert label[0] >= 0
    assert label[1] >= 0
    assert label[2] <= 400
    assert label[3] <= 400
    assert not any(shares_a_pixel(label, other) for other in taken)
    reach = (REACH + 1) * size[1]
    near = (around[0] - reach, around[1] - reach, around[2] + reach, around[3] + reach)
    assert shares_a_pixel(label, near)


def test_the_first_choice_is_above_then_below_then_inside() -> None:
    thing, size, frame = (50, 60, 90, 100), (30, 12), (200, 200)
    above, below = (50, 47, 80, 59), (50, 101, 80, 113)
    assert find_room(size, thing, frame, []) == above[:2]
    assert find_room(size, thing, frame, [above]) == below[:2]
    assert find_room(size, thing, frame, [above, below]) == (50, 60)


def test_without_room_there_is_no_place() -> None:
    assert find_room((30, 12), (50, 60, 90, 100), (200, 200), [(0, 0, 200, 200)]) is None
    assert find_room((101, 12), (50, 60, 90, 100), (200, 200), []) is None
    assert find_room((30, 12), (0, 0, 20, 20), (200, 23), []) is None


def test_twelve_labels_of_one_place_are_all_drawn_apart() -> None:
    picture = np.zeros((400, 600, 3), dtype=np.uint8)
    masks = np.zeros((12, 400, 600), dtype=bool)
    masks[:, 180:220, 280:320] = True
    colours = [(20 * n, 255 - 20 * n, 100 + n) for n in range(1, 13)]
    draw_labels(picture, masks, [f"{n}  0.87" for n in range(1, 13)], colours)
    areas = [(picture == colour).all(axis=2).sum() for colour in colours]
    assert min(areas) > 0.8 * max(areas)


def test_labels_keep_clear_of_what_they_are_told() -> None:
    picture = np.zeros((400, 600, 3), dtype=np.uint8)
    masks = np.zeros((1, 400, 600), dtype=bool)
    masks[:, 180:220, 280:320] = True
    draw_labels(picture, masks, ["1  0.87"], [(9, 9, 9)], keep_clear=[(280, 160, 300, 180)])
    assert not picture[160:180, 280:300].any()
    assert picture.any()


@pytest.mark.parametrize("side", [20, 48])
def test_a_tiny_frame_is_not_hidden_under_its_label(side: int) -> None:
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    draw_labels(picture, np.ones((1, side, side), dtype=bool), ["1  0.87"], [(9, 9, 9)])
    assert not picture.any()
