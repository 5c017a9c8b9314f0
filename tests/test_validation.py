from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from samonnx.validation import (
    FrameFigures,
    MotionFigures,
    SideFrame,
    SideMotion,
    frame_figures,
    mask_iou,
    relative_error,
    spelled_error,
    spelled_share,
)

SIZE = 8


def side(**changes: Any) -> SideFrame:
    """An object in the left upper quarter, its logits up to 4."""
    logits = np.full((SIZE, SIZE), -2.0, np.float32)
    logits[:4, :4] = 4.0
    motion = SideMotion(3, 7, np.arange(8, dtype=np.float32), np.eye(8, dtype=np.float32))
    return replace(SideFrame(logits, np.full(4, 0.5, np.float32), 2, 1.5, motion), **changes)


def figures(found: SideFrame, expected: SideFrame) -> FrameFigures:
    return frame_figures(5, "track", found, expected, prompted=False, width=SIZE, height=SIZE)


def moved(logits: npt.NDArray[np.float32], by: int) -> SideFrame:
    return side(low_res_masks=np.roll(logits, by, axis=1))


def test_equal_sides_have_no_figure_off_zero_and_pass() -> None:
    found = figures(side(), side())
    assert (found.logit_error, found.relative_error, found.mask_iou, found.box_iou) == (0, 0, 1, 1)
    assert (found.object_score_error, found.iou_error, found.encoder_error) == (0, 0, None)
    assert found.motion == MotionFigures((3, 3), (7, 7), 0.0)
    assert found.pixels == (16, 16)
    assert found.problems(max_error=0, min_iou=1) == ()


def test_errors_are_largest_differences_and_shares_of_the_references_largest_magnitude() -> None:
    logits = side().low_res_masks.copy()
    logits[7, 7] += 0.5
    found = figures(
        side(low_res_masks=logits, object_score=1.0, ious=np.array([0.5, 0.25, 0.5, 0.5], np.float32)), side()
    )
    assert (found.logit_error, found.relative_error) == (0.5, 0.125)
    assert (found.object_score_error, found.iou_error) == (0.5, 0.25)


def test_iou_of_masks_and_of_their_boxes() -> None:
    found = figures(moved(side().low_res_masks, 2), side())
    assert found.mask_iou == pytest.approx(8 / 24)  # 4 x 4 pixels, 2 columns further
    assert found.box_iou == pytest.approx(8 / 24)
    corner = side().low_res_masks.copy()
    corner[4, 4] = 1.0  # one pixel moves the box, not the mask
    found = figures(side(low_res_masks=corner), side())
    assert found.mask_iou == pytest.approx(16 / 17)
    assert found.box_iou == pytest.approx(16 / 25)


def test_two_empty_masks_overlap_and_one_empty_mask_does_not() -> None:
    empty = side(low_res_masks=np.full((SIZE, SIZE), -1024, np.float32))
    both, one = figures(empty, empty), figures(empty, side())
    assert (both.mask_iou, both.box_iou, both.pixels) == (1, 1, (0, 0))
    assert (one.mask_iou, one.box_iou, one.pixels) == (0, 0, (0, 16))
    assert mask_iou(np.zeros((2, 2), np.bool_), np.zeros((2, 2), np.bool_)) == 1


def test_masks_are_compared_at_the_size_of_the_video() -> None:
    found = frame_figures(0, "track", side(), side(), prompted=True, width=4 * SIZE, height=2 * SIZE)
    assert found.pixels[0] > 6 * 16


def test_a_graph_that_gives_nan_fails_whatever_the_bounds() -> None:
    logits = side().low_res_masks.copy()
    logits[0, 0] = np.nan
    found = figures(side(low_res_masks=logits, object_score=np.nan), side())
    assert (found.logit_error, found.relative_error, found.object_score_error) == (None, None, None)
    assert found.problems(max_error=1e9, min_iou=0) == ("logits that are not numbers",)


def test_bounds_are_met_at_their_value_and_broken_beyond_it() -> None:
    found = replace(figures(side(), side()), relative_error=0.01, mask_iou=0.9)
    assert found.problems(0.01, 0.9) == ()
    assert found.problems(0.009, 0.9) == ("logits off by 0.01 of their largest (allowed 0.009)",)
    assert found.problems(0.01, 0.91) == ("mask IoU 0.9 (expected 0.91)",)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mask_choice": 0}, "mask 0 instead of 2"),
        ({"motion": replace(side().motion, phase=1)}, "phase 1 instead of 3"),  # type: ignore[type-var]
        ({"motion": replace(side().motion, stable_frames=6)}, "6 stable frames instead of 7"),  # type: ignore[type-var]
    ],
)
def test_another_decision_fails_though_all_numbers_agree(changes: dict[str, object], problem: str) -> None:
    assert figures(side(**changes), side()).problems(1.0, 0.0) == (problem,)


def test_the_filters_numbers_are_shown_and_not_judged() -> None:
    motion = side().motion
    assert motion is not None
    off = replace(motion, covariance=motion.covariance * np.float32(1.5))
    found = figures(side(motion=off), side())
    assert found.motion is not None
    assert found.motion.error == 0.5
    assert found.problems(0.0, 1.0) == ()


def test_encoder_maps_are_held_against_the_eager_ones() -> None:
    maps = {"features": np.array([1, 2], np.float32), "high_res_0": np.array([4], np.float32)}
    found = side(maps={"features": np.array([1, 1], np.float32), "high_res_0": np.array([3], np.float32)})
    compared = frame_figures(0, "track", found, side(), prompted=False, width=8, height=8, encoder_maps=maps)
    assert compared.encoder_error == 0.5


def test_a_reference_of_zeros_gives_absolute_errors() -> None:
    assert relative_error(np.array([0.25], np.float32), np.array([0.0], np.float32)) == 0.25


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "NaN"), (0.0, "0"), (1.24e-6, "1.2e-6"), (9.99e-3, "1.0e-2"), (0.0234, "0.023"), (3.41, "3.4"),
     (123.4, "123"), (12345.0, "1.2e+4"), (1.5e-12, "1.5e-12")],
)  # fmt: skip
def test_errors_are_spelled_in_two_digits(value: float | None, text: str) -> None:
    assert spelled_error(value) == text


@pytest.mark.parametrize(("share", "text"), [(1.0, "1"), (0.99999, "0.9999"), (0.5, "0.5"), (0.0, "0")])
def test_a_share_is_never_rounded_up(share: float, text: str) -> None:
    assert spelled_share(share) == text
