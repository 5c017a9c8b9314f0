from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.mask_boxes import mask_boxes


def test_a_single_pixel_is_one_by_one_and_no_pixel_is_all_zeros() -> None:
    masks = np.zeros((3, 5, 7), dtype=bool)
    masks[0, 4, 6] = masks[2, 0, 0] = True
    boxes = mask_boxes(masks)
    assert boxes.dtype == np.int32
    assert boxes.tolist() == [[6, 4, 1, 1], [0, 0, 0, 0], [0, 0, 1, 1]]


def test_without_masks_there_are_no_boxes() -> None:
    assert mask_boxes(np.zeros((0, 5, 7), dtype=bool)).shape == (0, 4)


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 9999), height=st.integers(1, 12), width=st.integers(1, 12), share=st.floats(0, 1))
def test_a_box_holds_every_pixel_and_touches_one_on_each_side(seed: int, height: int, width: int, share: float) -> None:
    masks = np.random.default_rng(seed).random((4, height, width)) < share**4
    for mask, (x, y, w, h) in zip(masks, mask_boxes(masks), strict=True):
        inside = mask[y : y + h, x : x + w]
        assert inside.sum() == mask.sum()
        if mask.any():
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()  # noqa: PT018
        else:
            assert (x, y, w, h) == (0, 0, 0, 0)
