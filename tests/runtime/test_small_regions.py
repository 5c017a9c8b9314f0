from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samonnx.runtime.automatic_masks.mask_runs import counts, edges_of, mask_of
from samonnx.runtime.automatic_masks.small_regions import box_of, without_small_regions
from tests.runtime.plain_automatic_masks import plain_box, plain_counts, plain_regions, plain_without_small

Mask = npt.NDArray[np.bool_]
masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 10), st.integers(1, 10)))


def cleaned(mask: Mask, least: int) -> tuple[Mask, bool]:
    height, width = mask.shape
    edges, changed = without_small_regions(edges_of(mask), height, width, least)
    result = mask_of(edges, *mask.shape)
    assert counts(edges, *mask.shape) == plain_counts(result), "runs must not touch"
    return result, changed


def drawn(*rows: str) -> Mask:
    return np.array([[letter == "#" for letter in row] for row in rows])


@settings(deadline=None, max_examples=300)
@given(masks, st.integers(1, 30))
def test_regions_are_those_that_a_flood_finds(mask: Mask, least: int) -> None:
    filled, had_holes = plain_without_small(mask, least, holes=True)
    expected, had_islands = plain_without_small(filled, least, holes=False)
    found, changed = cleaned(mask, least)
    np.testing.assert_array_equal(found, expected)
    assert changed == (had_holes or had_islands)


@settings(deadline=None)
@given(st.integers(0, 999), st.floats(0.3, 0.7))
def test_also_in_large_and_tangled_ones(seed: int, density: float) -> None:
    mask = np.random.default_rng(seed).random((40, 50)) < density
    filled, _ = plain_without_small(mask, 7, holes=True)
    expected, _ = plain_without_small(filled, 7, holes=False)
    np.testing.assert_array_equal(cleaned(mask, 7)[0], expected)


def test_a_spiral_is_one_region() -> None:
    """The numbers of its pieces have a long way to go."""
    mask = np.zeros((63, 63), dtype=bool)
    row = column = 31
    for turn in range(60):
        down, right = ((0, 1), (1, 0), (0, -1), (-1, 0))[turn % 4]
        for _ in range(2 * (turn // 2 + 1)):
            row, column = row + down, column + right
            mask[row, column] = True
    assert mask.sum() > 900
    assert len(plain_regions(mask)) == 1
    found, changed = cleaned(mask, int(mask.sum()))
    np.testing.assert_array_equal(found, mask)
    assert not changed


def test_holes_go_before_islands_and_corners_join() -> None:
    """A hole of two pixels that touch at a corner, in an island of 14 pixels that it makes 16 when it is filled."""
    mask = drawn(
        "####....",
        "#.##....",
        "##.#....",
        "####...#",
    )
    expected = drawn(
        "####....",
        "####....",
        "####....",
        "####....",
    )
    assert [cleaned(mask, least)[1] for least in (1, 2, 3)] == [False, True, True]
    np.testing.assert_array_equal(cleaned(mask, 2)[0][:, :7], mask[:, :7])
    for least in (3, 14, 15):
        np.testing.assert_array_equal(cleaned(mask, least)[0], expected)


def test_unset_pixels_at_the_border_are_a_hole_too() -> None:
    np.testing.assert_array_equal(cleaned(drawn("..###", "#####", "#####"), 3)[0], np.ones((3, 5), dtype=bool))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (drawn("##.....", "......#", "...#..#", "...#..#"), drawn(".......", "......#", "......#", "......#")),
        (drawn("......#", "......#", "#......", "#......"), drawn("......#", "......#", ".......", ".......")),
        (drawn("......#", "#.....#", "#......"), drawn(".......", "#......", "#......")),
        (drawn(".......", "#.#.#..", "......."), drawn(".......", "#......", ".......")),
    ],
)
def test_if_all_islands_are_small_the_largest_stays_of_equal_ones_that_in_the_first_block(
    before: Mask, after: Mask
) -> None:
    height, width = before.shape
    edges, _ = without_small_regions(edges_of(before), height, width, 4)
    np.testing.assert_array_equal(mask_of(edges, height, width), after)


def test_an_empty_mask_stays_empty_and_a_full_one_full() -> None:
    for mask in (np.zeros((6, 6), dtype=bool), np.ones((6, 6), dtype=bool)):
        found, changed = cleaned(mask, 36)
        np.testing.assert_array_equal(found, mask)
        assert not changed


@settings(deadline=None)
@given(masks)
def test_boxes_are_those_of_the_pixels(mask: Mask) -> None:
    assert box_of(edges_of(mask), len(mask)) == plain_box(mask)
