from __future__ import annotations

import numpy as np
import pytest

from samonnx.runtime.overlay import COLOURS, NEGATIVE_COLOUR, POSITIVE_COLOUR, WHITE, colour_of, contour, draw_overlay
from samonnx.runtime.prompts import Box, Points, Prompts

GREY = np.full((60, 80, 3), 100, dtype=np.uint8)


def square() -> np.ndarray:
    mask = np.zeros((1, 60, 80), dtype=bool)
    mask[0, 20:40, 30:60] = True
    return mask


def test_inside_is_tinted_the_contour_is_solid_and_outside_is_untouched() -> None:
    picture = draw_overlay(GREY, square())
    assert (
        picture[30, 45] == (np.array([100, 100, 100]) * 0.55 + np.array(colour_of(0)) * 0.45).astype(np.uint8)
    ).all()
    assert (picture[20, 45] == colour_of(0)).all()
    assert (picture[30, 59] == colour_of(0)).all()
    outside = ~square()[0]
    assert (picture[outside] == 100).all()


def test_the_frame_itself_is_not_changed() -> None:
    frame = GREY.copy()
    draw_overlay(frame, square(), labels=["1"], prompts=[Prompts(boxes=(Box(1, 1, 9, 9),))])
    assert (frame == GREY).all()


def test_no_objects_leave_the_frame_as_it_is() -> None:
    np.testing.assert_array_equal(draw_overlay(GREY, np.zeros((0, 60, 80), dtype=bool)), GREY)


def test_a_contour_is_inside_its_mask_and_not_along_the_frame() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[:5, :5] = True
    line = contour(mask, 1)
    assert not (line & ~mask).any()
    assert line[4, :5].all()
    assert line[:5, 4].all()
    assert line.sum() == 9


def test_colours_repeat() -> None:
    assert colour_of(len(COLOURS)) == colour_of(0)
    assert len(set(COLOURS)) == len(COLOURS)


def test_clicks_are_green_on_the_object_and_red_off_it() -> None:
    prompts = [Prompts(points=Points(((20.5, 10.5), (60.5, 50.5)), (1, 0)))]
    picture = draw_overlay(GREY, np.zeros((1, 60, 80), dtype=bool), prompts=prompts)
    green, red = picture[10, 20].astype(int), picture[50, 60].astype(int)
    assert green[1] > 2 * green[0]
    assert red[0] > 2 * red[1]


def colours_in(area: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, area.reshape(-1, 3).tolist()))


GIVEN = (Box(4, 4, 34, 54), Box(44, 4, 74, 54, 0))


@pytest.mark.parametrize("prompts", [Prompts(boxes=GIVEN), Prompts(exemplars=GIVEN)], ids=["boxes", "exemplars"])
def test_boxes_that_were_given_are_dashed_green_or_red_on_white(prompts: Prompts) -> None:
    picture = draw_overlay(GREY, np.zeros((0, 60, 80), dtype=bool), prompts=[prompts])
    assert colours_in(picture[4, 4:35]) == {POSITIVE_COLOUR, WHITE}
    assert colours_in(picture[4:55, 34]) == {POSITIVE_COLOUR, WHITE}
    assert colours_in(picture[54, 44:75]) == {NEGATIVE_COLOUR, WHITE}
    assert colours_in(picture[7:52, 7:32]) == {(100, 100, 100)}


def test_detected_boxes_are_whole_lines_in_the_colour_of_their_object() -> None:
    boxes = np.array([[30, 20, 60, 40], [-3.7, 50.2, 8, 90]], dtype=np.float32)
    picture = draw_overlay(GREY, np.zeros((2, 60, 80), dtype=bool), boxes=boxes)
    assert colours_in(picture[20, 30:61]) == {colour_of(0)}
    assert colours_in(picture[20:41, 60]) == {colour_of(0)}
    assert colours_in(picture[50:60, 8]) == {colour_of(1)}
    assert colours_in(picture[21:40, 31:60]) == {(100, 100, 100)}


def test_a_label_does_not_cover_a_click() -> None:
    click = Prompts(points=Points(((33.5, 13.5),), (0,)))
    with_label = draw_overlay(GREY, square(), labels=["1"], prompts=[click])
    without = draw_overlay(GREY, square(), prompts=[click])
    np.testing.assert_array_equal(with_label[10:17, 30:37], without[10:17, 30:37])
    assert (with_label != without).any()


def test_markers_at_the_very_edge_are_cut_off() -> None:
    corners = ((0.0, 0.0), (80.0, 60.0), (0.0, 60.0), (80.0, 0.0))
    prompts = [Prompts(points=Points(corners, (1, 1, 0, 0)), boxes=(Box(0, 0, 80, 60),))]
    assert (
        draw_overlay(GREY, square(), prompts=prompts, labels=["a long label that is wider than all"]).shape
        == GREY.shape
    )


def test_labels_of_masks_in_one_place_do_not_cover_each_other() -> None:
    masks = np.repeat(square(), 3, axis=0)
    picture = draw_overlay(GREY, masks, labels=["1", "2", "3"])
    for position in range(2):
        assert (picture == colour_of(position)).all(axis=2).sum() > 20


def test_a_label_is_drawn_only_for_a_mask_that_is_there() -> None:
    empty = np.zeros((1, 60, 80), dtype=bool)
    np.testing.assert_array_equal(draw_overlay(GREY, empty, labels=["1"]), GREY)
    plain, labelled = draw_overlay(GREY, square()), draw_overlay(GREY, square(), labels=["1"])
    assert (plain != labelled).any()
