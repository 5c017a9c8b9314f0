"""Parameters, presets, points and crops of automatic masks; what is wrong with them, and with pictures, is said."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from samonnx.runtime.automatic_masks import generator
from samonnx.runtime.automatic_masks.crops import crops_of
from samonnx.runtime.automatic_masks.generator import AutomaticMasks
from samonnx.runtime.automatic_masks.parameters import PRESETS, MaskParameters, ParameterError, with_preset
from samonnx.runtime.automatic_masks.point_grid import crop_points, point_grid
from samonnx.runtime.frame_fit import FitError
from samonnx.runtime.preprocessing import FrameError
from tests.runtime.formula_predictor import FormulaPredictor, coordinate_picture
from tests.runtime.plain_automatic_masks import plain_crops, plain_points


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points_per_side": 0}, "points_per_side is 0; expected a whole number of at least 1"),
        ({"points_per_side": 3.0}, "points_per_side is 3.0; expected a whole number of at least 1"),
        ({"points_per_batch": 0}, "points_per_batch is 0; expected a whole number of at least 1"),
        ({"crop_n_layers": -1}, "crop_n_layers is -1; expected a whole number of at least 0"),
        ({"min_mask_region_area": True}, "min_mask_region_area is True; expected a whole number of at least 0"),
        ({"pred_iou_thresh": 1.5}, "pred_iou_thresh is 1.5; expected a number from 0 to 1"),
        ({"stability_score_thresh": -0.1}, "stability_score_thresh is -0.1; expected a number from 0 to 1"),
        ({"box_nms_thresh": math.nan}, "box_nms_thresh is nan; expected a number from 0 to 1"),
        ({"crop_overlap_ratio": "half"}, "crop_overlap_ratio is 'half'; expected a number from 0 to 1"),
        ({"stability_score_offset": -1}, "stability_score_offset is -1; expected a number of at least 0"),
        ({"stability_score_offset": math.inf}, "stability_score_offset is inf; expected a finite number"),
        ({"points_per_side": None}, "neither of points_per_side and point_grids: expected one of them"),
        ({"point_grids": (((0.5, 0.5),),)}, "both of points_per_side and point_grids: expected one of them"),
        (
            {"points_per_side": 3, "crop_n_layers": 2, "crop_n_points_downscale_factor": 2},
            "points_per_side is 3 and crop_n_points_downscale_factor 2: no point is left in crop layer 2. Give more "
            "points, a smaller factor or fewer layers",
        ),
        (
            {"points_per_side": None, "point_grids": (((0.5, 0.5),),), "crop_n_layers": 1},
            "point_grids has 1 grids; expected 2: one for the picture and one for each of the 1 crop layers",
        ),
        (
            {"points_per_side": None, "point_grids": (((0.5, 1.5),),)},
            "point_grids[0]: expected at least one point, x and y from 0 to 1",
        ),
        (
            {"points_per_side": None, "point_grids": ((),)},
            "point_grids[0]: expected at least one point, x and y from 0 to 1",
        ),
    ],
)
def test_parameters_without_sense_say_so(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        MaskParameters(**changes)
    assert str(caught.value) == message


def test_presets_are_those_of_the_issue() -> None:
    quality, fast = with_preset("quality"), with_preset("fast")
    assert (quality.points_per_side, quality.pred_iou_thresh) == (32, 0.88)
    assert quality == MaskParameters()
    assert (fast.points_per_side, fast.pred_iou_thresh, fast.min_mask_region_area) == (16, 0.8, 500)
    assert PRESETS["fast"].most_crop_layers == 1
    assert with_preset("fast", crop_n_layers=1, points_per_side=8).points_per_side == 8
    assert with_preset("quality", crop_n_layers=3).crop_n_layers == 3


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("best", {}, "no preset 'best'; there are: quality, fast"),
        ("fast", {"iou": 1}, "no parameter 'iou'; there are: points_per_side, points_per_batch, pred_iou_thresh"),
        ("fast", {"crop_n_layers": 2}, "crop_n_layers is 2, and preset 'fast' has at most 1: each layer looks at four"),
    ],
)
def test_presets_that_are_none_say_so(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        with_preset(name, **changes)
    assert str(caught.value).startswith(message)


def test_the_grid_is_in_the_middle_of_equal_cells_row_by_row() -> None:
    np.testing.assert_allclose(point_grid(2), [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)])
    assert point_grid(32).dtype == np.float64
    chosen = MaskParameters(points_per_side=12, crop_n_layers=2, crop_n_points_downscale_factor=2)
    for layer, number in enumerate((144, 36, 9)):
        points = crop_points(chosen, layer, width=90, height=70)
        assert points.tolist() == [list(point) for point in plain_points(chosen, layer, 90, 70)]
        assert len(points) == number


def test_grids_may_be_given() -> None:
    chosen = MaskParameters(points_per_side=None, point_grids=(((0, 0), (1, 0.5)), ((0.5, 0.5),)), crop_n_layers=1)
    np.testing.assert_array_equal(crop_points(chosen, 0, width=10, height=20), [(0, 0), (10, 10)])
    np.testing.assert_array_equal(crop_points(chosen, 1, width=10, height=20), [(5, 10)])
    found = AutomaticMasks(FormulaPredictor(), chosen).generate(coordinate_picture(40, 40))
    assert found.passed.candidates == 3 * (2 + 4)


@pytest.mark.parametrize("size", [(1200, 1800), (61, 47), (100, 100), (40, 400)])
@pytest.mark.parametrize("layers", [0, 1, 2, 3])
@pytest.mark.parametrize("ratio", [0.0, 512 / 1500, 1.0])
def test_crops_are_those_of_the_original(size: tuple[int, int], layers: int, ratio: float) -> None:
    chosen = MaskParameters(crop_n_layers=layers, crop_overlap_ratio=ratio)
    expected = plain_crops(*size, layers, ratio)
    assert [(crop.box, crop.layer) for crop in crops_of(*size, chosen)] == expected


def test_pictures_that_cannot_be_searched_say_why(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = AutomaticMasks(FormulaPredictor(), MaskParameters(points_per_side=2, crop_n_layers=3, crop_overlap_ratio=0))
    with pytest.raises(ParameterError) as caught:
        masks.generate(coordinate_picture(40, 5))
    assert str(caught.value) == (
        "crop_n_layers is 3, but a picture of 5 x 40 pixels has not enough of them for the 4 x 4 crops of layer 2. "
        "Give fewer layers"
    )
    with pytest.raises(FrameError, match=r"expected uint8 \[height, width, 3\] in RGB order, got uint8 \[4, 4\]"):
        masks.generate(np.zeros((4, 4), np.uint8))
    with pytest.raises(FitError, match=r"nothing is left of it\. Cut it to a shorter piece"):
        AutomaticMasks(FormulaPredictor()).generate(coordinate_picture(1, 400))
    monkeypatch.setattr(generator, "MOST_PIXELS", 99)
    with pytest.raises(ParameterError, match="the picture is 10 x 10 pixels; masks are kept of at most 99"):
        masks.generate(coordinate_picture(10, 10))
