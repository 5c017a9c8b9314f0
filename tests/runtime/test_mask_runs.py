from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from samonnx.runtime.automatic_masks.mask_runs import area, coco_code, counts, edges_of, mask_of
from samonnx.runtime.extras import require_extra
from tests.runtime.plain_automatic_masks import plain_counts

Mask = npt.NDArray[np.bool_]
masks = arrays.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@settings(deadline=None)
@given(masks)
def test_counts_are_those_of_a_walk_along_the_columns(mask: Mask) -> None:
    edges = edges_of(mask)
    assert counts(edges, *mask.shape) == plain_counts(mask)
    assert area(edges) == mask.sum()
    np.testing.assert_array_equal(mask_of(edges, *mask.shape), mask)


@settings(deadline=None)
@given(masks, st.integers(0, 3), st.integers(0, 3), st.integers(0, 3), st.integers(0, 3))
def test_a_part_of_a_picture_has_the_code_of_the_whole(mask: Mask, top: int, left: int, below: int, right: int) -> None:
    whole = np.pad(mask, ((top, below), (left, right)))
    edges = edges_of(mask, top=top, left=left, height=len(whole))
    assert counts(edges, *whole.shape) == plain_counts(whole)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools and numpy 2
@settings(deadline=None)
@given(masks)
def test_the_compressed_code_is_cocos(mask: Mask) -> None:
    coco = require_extra("pycocotools.mask", "coco")
    (code,) = coco_code([edges_of(mask)], *mask.shape)
    assert code["counts"] == coco.encode(np.asfortranarray(mask, np.uint8))["counts"].decode()
    assert code["size"] == list(mask.shape)


def test_counts_begin_with_unset_pixels_and_do_not_end_with_none() -> None:
    for rows, expected in (
        (["1."], [0, 1, 1]),
        ([".1"], [1, 1]),
        (["11", "11"], [0, 4]),
        (["..", ".."], [4]),
        (["1.", ".1"], [0, 1, 2, 1]),
        ([".1", "1."], [1, 2, 1]),  # the end of a column and the top of the next are one run
    ):
        mask = np.array([[letter == "1" for letter in row] for row in rows])
        assert counts(edges_of(mask), *mask.shape) == expected


def test_no_masks_have_no_codes() -> None:
    assert coco_code([], 3, 4) == []
