"""The filters at their limits, on masks that are as large as the picture."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from samonnx.runtime.automatic_masks.crop_masks import CropMasks, Passed, near_crop_edge
from samonnx.runtime.automatic_masks.crops import Crop
from samonnx.runtime.automatic_masks.found_masks import FoundMasks
from samonnx.runtime.automatic_masks.parameters import MaskParameters
from samonnx.runtime.frame_fit import FrameFit
from samonnx.runtime.image_predictor import PredictedMasks
from samonnx.runtime.manifest import PreprocessingInfo

SIDE = 20
WHOLE = Crop(0, 0, SIDE, SIDE)


def taken(
    logits: npt.NDArray[np.float32], ious: list[float], chosen: MaskParameters, crop: Crop = WHOLE, picture: int = SIDE
) -> tuple[FoundMasks, Passed]:
    """Of one point at (3, 4) and masks [n, 20, 20], which need no resizing."""
    fit = FrameFit.of(PreprocessingInfo(SIDE), SIDE, SIDE)
    predicted = PredictedMasks(fit, logits[None], np.array([ious], dtype=np.float32))
    filters = CropMasks(crop, fit, chosen, width=picture, height=picture)
    return filters.take(predicted, np.array([(3.0, 4.0)]))


def blob(core: int, reach: int) -> npt.NDArray[np.float32]:
    """`core` pixels at 2, as many as `reach` with them at 0.5, the others at -2."""
    values = np.full(SIDE * SIDE, -2, dtype=np.float32)
    values[:reach], values[:core] = 0.5, 2
    return values.reshape(SIDE, SIDE)


def test_a_mask_that_is_exactly_as_stable_as_it_must_be_stays() -> None:
    masks = np.stack([blob(10, 20), blob(9, 20), blob(19, 20), blob(0, 0)])
    ious = [0.9, 0.91, 0.92, 0.93]
    found, passed = taken(masks, ious, MaskParameters(stability_score_thresh=0.5))
    assert passed == Passed(4, 4, 2, 2)
    np.testing.assert_array_equal(found.stability_scores, np.array([10 / 20, 19 / 20], np.float32))
    found, _ = taken(masks, ious, MaskParameters(stability_score_thresh=0.95))
    np.testing.assert_array_equal(found.predicted_ious, np.array([0.92], np.float32))


def test_a_mask_whose_iou_is_exactly_the_threshold_goes() -> None:
    """In float32, in which 0.88 is the same number on both sides."""
    found, passed = taken(
        np.stack([blob(19, 20)] * 3), [0.88, np.nextafter(np.float32(0.88), 1), 0.8], MaskParameters()
    )
    assert passed == Passed(3, 1, 1, 1)
    assert found.predicted_ious[0] > np.float32(0.88)


def test_the_filters_can_be_switched_off() -> None:
    chosen = MaskParameters(pred_iou_thresh=0, stability_score_thresh=0)
    found, passed = taken(np.stack([blob(0, 20), blob(0, 0)]), [-0.2, 0.0], chosen)
    assert passed == Passed(2, 2, 2, 2)
    assert found.stability_scores[0] == 0
    assert np.isnan(found.stability_scores[1])
    assert found.areas().tolist() == [20, 0]


def test_what_is_found_in_a_crop_is_told_in_pixels_of_the_picture() -> None:
    mask = np.full((SIDE, SIDE), -3, dtype=np.float32)
    mask[5:9, 2:14] = 3
    crop = Crop(0, 5, SIDE, 5 + SIDE, layer=1)
    found, _ = taken(mask[None], [0.9], MaskParameters(), crop, picture=26)
    assert found.boxes.tolist() == [[2, 10, 13, 13]]
    assert found.points.tolist() == [[3, 9]]
    assert found.crop_boxes.tolist() == [[0, 5, 20, 25]]
    expected = np.zeros((26, 26), dtype=bool)
    expected[10:14, 2:14] = True
    np.testing.assert_array_equal(found.mask(0), expected)


@pytest.mark.parametrize(
    ("box", "near"),
    [
        ((121, 121, 179, 179), False),
        ((120, 121, 179, 179), True),  # 20 pixels from the crop's left edge
        ((121, 121, 180, 179), True),
        ((121, 121, 179, 180), True),
        ((121, 99, 179, 179), True),
    ],
)
def test_near_is_within_20_pixels(box: tuple[int, int, int, int], near: bool) -> None:
    table = np.array([box], dtype=np.int64)
    assert near_crop_edge(table, Crop(100, 100, 200, 200), width=1000, height=1000).tolist() == [near]


def test_an_edge_of_the_crop_near_one_of_the_picture_cuts_nothing_off() -> None:
    table = np.array([(0, 30, 60, 60), (20, 30, 60, 60), (21, 30, 60, 60), (30, 30, 81, 60)], dtype=np.int64)
    crop = Crop(0, 0, 100, 100)
    assert near_crop_edge(table, crop, width=300, height=300).tolist() == [False, False, False, True]
    assert near_crop_edge(table, crop, width=100, height=100).tolist() == [False, False, False, False]
