"""Padding, soft aggregation and given masks: the numbers of the original's notes, and rows without an object inert."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from samonnx.models.xmem_masks import aggregate, crop, merge_given, pad, padded_size, sum_of_others


@given(st.integers(1, 70), st.integers(1, 70))
def test_padding_goes_to_the_next_multiple_and_cropping_takes_it_back(height: int, width: int) -> None:
    image = torch.arange(height * width, dtype=torch.float32).reshape(1, height, width) + 1
    padded = pad(image)
    assert padded.shape[-2:] == (padded_size(height), padded_size(width))
    assert padded.shape[-1] % 16 == 0
    assert 0 <= padded.shape[-1] - width < 16
    assert torch.equal(crop(padded, height, width), image)
    assert padded.sum() == image.sum()


def test_an_odd_pixel_of_padding_goes_right_and_to_the_bottom() -> None:
    padded = pad(torch.ones(13, 27))
    assert padded.shape == (16, 32)
    assert padded[:, 10].tolist() == [0] + [1] * 13 + [0, 0]
    assert padded[8].tolist() == [0, 0] + [1] * 27 + [0, 0, 0]


def test_a_single_mask_and_two_that_overlap_aggregate_as_in_the_original() -> None:
    """In float32 the clamped ends are not symmetric: logits of +15.94 and -16.12."""
    one = aggregate(torch.tensor([1.0, 0.0]).reshape(1, 1, 2))
    odds = math.exp(-15.942385 - 16.118095)
    assert one[1, 0, 0] == 1
    assert one[0, 0, 0].item() == pytest.approx(odds, rel=1e-3)
    both = aggregate(torch.ones(2, 1, 1))
    assert both[1:].flatten().tolist() == [0.5, 0.5]
    assert both[0].item() < 1e-13


def test_aggregation_sums_to_one_and_the_background_is_the_product_of_what_is_left() -> None:
    p = torch.tensor([0.25, 0.5], dtype=torch.float64).reshape(2, 1, 1)
    odds = torch.tensor([0.375 / 0.625, 0.25 / 0.75, 1.0], dtype=torch.float64)
    torch.testing.assert_close(aggregate(p).flatten(), odds / odds.sum())


@pytest.mark.parametrize("junk", [0.0, 1.0, 0.3, math.nan])
def test_rows_without_an_object_come_out_as_zero_and_change_no_bit_of_the_others(junk: float) -> None:
    p = torch.rand(2, 5, 7)
    rows = torch.cat([p[:1], torch.full((1, 5, 7), junk), p[1:], torch.full((1, 5, 7), junk)])
    found = aggregate(rows, torch.tensor([True, False, True, False]))
    assert torch.equal(found[[0, 1, 3]], aggregate(p))
    assert not found[[2, 4]].any()


def test_without_any_object_everything_is_background() -> None:
    found = aggregate(torch.rand(2, 3, 3), torch.zeros(2, dtype=torch.bool))
    assert torch.equal(found[0], torch.ones(3, 3))
    assert not found[1:].any()


def test_a_given_mask_takes_its_pixels_from_the_predictions_of_the_others() -> None:
    predicted = torch.tensor([[0.9, 0.8, 0.7], [0.1, 0.6, 0.2]])[:, None]
    masks = torch.tensor([[9.0, 9.0, 9.0], [1.0, 0.0, 0.0]])[:, None]
    merged = merge_given(predicted, masks, torch.tensor([False, True]))
    torch.testing.assert_close(merged[:, 0], torch.tensor([[0.0, 0.8, 0.7], [1.0, 0.0, 0.0]]))


def test_the_sum_of_others_leaves_ones_own_out_exactly() -> None:
    """The total minus one's own would be 0 for the first."""
    masks = torch.tensor([1.0, 1e-12, 0.0]).reshape(3, 1, 1)
    assert torch.equal(sum_of_others(masks).flatten(), torch.tensor([1e-12, 1.0, 1.0]))
    assert sum_of_others(masks[:1]).flatten().tolist() == [0.0]
