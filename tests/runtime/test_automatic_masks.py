"""Automatic masks against the original's algorithm in plain loops, on the same logits."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from samonnx.runtime.automatic_masks.generator import AutomaticMasks, Generated
from samonnx.runtime.automatic_masks.mask_runs import counts
from samonnx.runtime.automatic_masks.parameters import MaskParameters
from tests.runtime.formula_predictor import FormulaPredictor, coordinate_picture
from tests.runtime.plain_automatic_masks import PlainRun, plain_automatic_masks, plain_counts

ROUNDING = 4e-6
"""What float32 may be off by, with logits of ±8."""

thresholds = st.sampled_from([0.0, 0.3, 0.5, 0.7, 0.8, 1.0])
parameters = st.builds(
    MaskParameters,
    points_per_side=st.integers(1, 5),
    points_per_batch=st.integers(1, 30),
    pred_iou_thresh=st.sampled_from([0.0, 0.8, 0.88, 0.9]),
    stability_score_thresh=st.sampled_from([0.0, 0.5, 0.8, 0.95]),
    stability_score_offset=st.sampled_from([0.0, 0.5, 1.0]),
    box_nms_thresh=thresholds,
    crop_n_layers=st.just(0),
    crop_nms_thresh=thresholds,
    crop_overlap_ratio=st.sampled_from([0.0, 512 / 1500, 0.6]),
    crop_n_points_downscale_factor=st.just(1),
    min_mask_region_area=st.sampled_from([0, 0, 5, 60, 4000]),
)


def equal(found: Generated, plain: PlainRun) -> None:
    """All fields of all masks, in the same order."""
    masks = found.masks
    assert len(masks) == len(plain.masks)
    for index, expected in enumerate(plain.masks):
        np.testing.assert_array_equal(masks.mask(index), expected.mask)
        assert counts(masks.edges[index], masks.height, masks.width) == plain_counts(expected.mask)
        assert tuple(masks.boxes[index]) == expected.box
        assert masks.predicted_ious[index] == expected.iou
        np.testing.assert_equal(float(masks.stability_scores[index]), expected.stability)
        assert tuple(masks.points[index]) == expected.point
        assert tuple(masks.crop_boxes[index]) == expected.crop
    np.testing.assert_array_equal(masks.areas(), [one.mask.sum() for one in plain.masks])


@settings(deadline=None, max_examples=20)
@given(
    chosen=parameters,
    height=st.integers(10, 60),
    width=st.integers(10, 80),
    seed=st.integers(0, 999),
    fit=st.sampled_from(["pad", "stretch"]),
)
def test_masks_are_those_of_the_original(chosen: MaskParameters, height: int, width: int, seed: int, fit: str) -> None:
    predictor, picture = FormulaPredictor(seed, fit=fit), coordinate_picture(height, width)
    plain = plain_automatic_masks(predictor, picture, chosen)
    assume(plain.closest > ROUNDING)
    equal(AutomaticMasks(predictor, chosen).generate(picture), plain)


@settings(deadline=None, max_examples=8)
@given(
    chosen=parameters,
    height=st.integers(60, 90),
    width=st.integers(60, 110),
    seed=st.integers(0, 999),
    layers=st.sampled_from([1, 1, 1, 2]),
    factor=st.integers(1, 2),
)
def test_with_crops_they_are_those_of_the_original(
    chosen: MaskParameters, height: int, width: int, seed: int, layers: int, factor: int
) -> None:
    chosen = dataclasses.replace(
        chosen,
        crop_n_layers=layers,
        points_per_side=3 if layers == 1 else 4,
        crop_n_points_downscale_factor=factor if layers == 1 else 2,
    )
    predictor, picture = FormulaPredictor(seed), coordinate_picture(height, width)
    plain = plain_automatic_masks(predictor, picture, chosen)
    assume(plain.closest > ROUNDING)
    equal(AutomaticMasks(predictor, chosen).generate(picture), plain)


@pytest.mark.parametrize("layers", [0, 1, 2])
def test_every_filter_has_something_to_do_in_these_scenes(layers: int) -> None:
    """Otherwise the comparisons would compare little."""
    chosen = MaskParameters(
        points_per_side=8, crop_n_layers=layers, stability_score_thresh=0.8, min_mask_region_area=400
    )
    found = AutomaticMasks(FormulaPredictor(3, low=48, size=192), chosen).generate(coordinate_picture(160, 230))
    passed, left = found.passed, {stage.name: stage.left for stage in found.stages}
    assert passed.candidates == 3 * 64 * sum(4**layer for layer in range(layers + 1))
    assert passed.candidates > passed.iou > passed.stability
    assert passed.stability > passed.edge if layers else passed.stability == passed.edge
    assert passed.edge == left["filters"] > left["box NMS"] >= left["small regions"] == len(found.masks) > 0
    if layers:
        assert left["box NMS"] > left["crop NMS"] >= left["small regions"]


def test_of_equal_masks_of_two_crops_that_of_the_smaller_stays() -> None:
    """A scene in which masks of both layers overlap, against the plain ones as well."""
    chosen = MaskParameters(points_per_side=5, crop_n_layers=1, stability_score_thresh=0.6, crop_nms_thresh=0.5)
    predictor, picture = FormulaPredictor(3, low=24, size=96), coordinate_picture(120, 170)
    plain = plain_automatic_masks(predictor, picture, chosen)
    assert plain.closest > ROUNDING
    found = AutomaticMasks(predictor, chosen).generate(picture)
    equal(found, plain)
    left = {stage.name: stage.left for stage in found.stages}
    assert left["box NMS"] > left["crop NMS"]
    x0, y0, x1, y1 = found.masks.crop_boxes.T
    areas = (x1 - x0) * (y1 - y0)
    assert areas.min() < areas.max() == 120 * 170
    assert (np.diff(areas) >= 0).all()


def test_batches_do_not_matter() -> None:
    picture = coordinate_picture(60, 80)
    one, other = (
        AutomaticMasks(FormulaPredictor(1), MaskParameters(points_per_side=5, points_per_batch=size)).generate(picture)
        for size in (1, 64)
    )
    assert one.masks.records() == other.masks.records()
    assert one.passed == other.passed


def test_progress_counts_points_of_all_crops() -> None:
    said: list[tuple[int, int]] = []
    chosen = MaskParameters(points_per_side=4, points_per_batch=10, crop_n_layers=1, crop_n_points_downscale_factor=2)
    AutomaticMasks(FormulaPredictor(), chosen).generate(
        coordinate_picture(60, 80), lambda done, total: said.append((done, total))
    )
    assert said == [(done, 32) for done in (0, 10, 16, 20, 24, 28, 32)]


def test_nothing_found_is_a_result() -> None:
    chosen = MaskParameters(points_per_side=2, pred_iou_thresh=1.0, stability_score_thresh=1.0, crop_n_layers=1,
                            min_mask_region_area=9)  # fmt: skip
    found = AutomaticMasks(FormulaPredictor(things=1, steepness=0.01), chosen).generate(coordinate_picture(50, 50))
    assert len(found.masks) == 0
    assert found.masks.records() == []
    assert math.isfinite(sum(stage.seconds for stage in found.stages))


def test_a_mask_without_a_stability_score_is_kept_only_without_the_filter_and_says_none() -> None:
    """JSON has no NaN."""
    chosen = MaskParameters(points_per_side=6, pred_iou_thresh=0, stability_score_thresh=0, box_nms_thresh=1)
    found = AutomaticMasks(FormulaPredictor(2), chosen).generate(coordinate_picture(50, 50)).masks
    without = [record for record in found.records() if record["stability_score"] is None]
    assert len(without) == np.isnan(found.stability_scores).sum() > 0
    assert all(record["area"] == 0 and record["bbox"] == [0, 0, 0, 0] for record in without)
