from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from samonnx.runtime.automatic_masks.found_masks import FoundMasks
from samonnx.runtime.automatic_masks.mask_runs import edges_of
from samonnx.runtime.automatic_masks.overlay import colours, draw_masks
from samonnx.runtime.overlay import TINT

Mask = npt.NDArray[np.bool_]

HEIGHT, WIDTH = 60, 80
GREY = np.full((HEIGHT, WIDTH, 3), 100, dtype=np.uint8)


def box(top: int, left: int, bottom: int, right: int) -> Mask:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def found(*masks: Mask) -> FoundMasks:
    none = FoundMasks.none(width=WIDTH, height=HEIGHT)
    one = dataclasses.replace(none, edges=tuple(edges_of(mask) for mask in masks))
    return dataclasses.replace(one, boxes=np.zeros((len(masks), 4), np.int64))


def test_a_mask_is_tinted_and_has_a_line_around_it() -> None:
    mask, (colour,) = box(10, 10, 40, 50), colours(1)
    picture = draw_masks(GREY, found(mask))
    np.testing.assert_array_equal(picture[~mask], 100)
    np.testing.assert_array_equal(picture[10, 10:50], np.tile(colour, (40, 1)))
    np.testing.assert_allclose(picture[20, 30], 100 * (1 - TINT) + colour * TINT, atol=1)


def test_the_smaller_mask_is_on_top_in_whatever_order_they_come() -> None:
    large, small = box(5, 5, 55, 75), box(20, 20, 30, 30)
    for order in ((large, small), (small, large)):
        picture = draw_masks(GREY, found(*order))
        table = dict(zip(("large", "small") if order[0] is large else ("small", "large"), colours(2), strict=True))
        np.testing.assert_allclose(picture[25, 25], 100 * (1 - TINT) + table["small"] * TINT, atol=1)
        np.testing.assert_allclose(picture[45, 60], 100 * (1 - TINT) + table["large"] * TINT, atol=1)


def test_of_equal_masks_the_first_is_on_top() -> None:
    picture = draw_masks(GREY, found(box(5, 5, 55, 75), box(5, 5, 55, 75)))
    np.testing.assert_allclose(picture[30, 30], 100 * (1 - TINT) + colours(2)[0] * TINT, atol=1)


def test_a_mask_that_runs_out_of_the_picture_has_no_line_along_the_edge() -> None:
    picture = draw_masks(GREY, found(box(0, 0, 40, WIDTH)))
    assert (picture[0] != colours(1)[0]).any(axis=1).all()
    assert (picture[39] == colours(1)[0]).all()


def test_without_masks_the_picture_stays_as_it_is() -> None:
    np.testing.assert_array_equal(draw_masks(GREY, found()), GREY)


def test_colours_differ() -> None:
    table = colours(200).astype(int)
    assert len(np.unique(table, axis=0)) == 200
    assert np.abs(table[1:] - table[:-1]).max(axis=1).min() > 60
