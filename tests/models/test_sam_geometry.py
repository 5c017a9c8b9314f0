"""Sizes, coordinates, the padded image and masks between a picture and SAM's frame."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.models.sam import IMAGE_MEAN, IMAGE_STD
from samonnx.models.sam_geometry import network_image, network_masks, original_masks, resized_size, to_network

SIDES = st.integers(1, 3000)


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("original", "resized"),
    [
        ((600, 900), (683, 1024)),
        ((1200, 1800), (683, 1024)),
        ((1024, 1024), (1024, 1024)),
        ((2048, 1), (1024, 1)),  # half a pixel is rounded up
        ((3, 4096), (1, 1024)),
        ((1, 1), (1024, 1024)),
    ],
)
def test_the_long_side_fills_the_frame_and_the_other_is_rounded(
    original: tuple[int, int], resized: tuple[int, int]
) -> None:
    assert resized_size(original, 1024) == resized


@given(SIDES, SIDES)
def test_the_resized_picture_keeps_its_shape_within_half_a_pixel(height: int, width: int) -> None:
    if 1024 * min(height, width) < max(height, width):
        return  # refused, see below
    resized = resized_size((height, width), 1024)
    assert max(resized) == 1024
    assert abs(min(resized) - 1024 * min(height, width) / max(height, width)) <= 0.5


def test_a_picture_of_which_nothing_would_be_left_is_refused() -> None:
    with pytest.raises(SamonnxError) as caught:
        resized_size((1, 5000), 1024)
    assert str(caught.value) == (
        "a picture of 1 x 5000 pixels (height x width) is 0 x 1024 when its long side is 1024; cut it to a shorter "
        "piece"
    )
    with pytest.raises(SamonnxError, match=r"a picture of 0 x 7 pixels \(height x width\) has none"):
        resized_size((0, 7), 1024)


def test_coordinates_have_a_scale_of_their_own_on_each_axis_and_keep_their_dtype() -> None:
    coords = torch.tensor([[[900.0, 600.0], [0.0, 0.0], [450.0, 300.0]]])
    found = to_network(coords, (600, 900), 1024)
    assert found.dtype == torch.float32
    assert torch.allclose(found, torch.tensor([[[1024.0, 683.0], [0.0, 0.0], [512.0, 341.5]]]))
    assert to_network(coords.double(), (600, 900), 1024).dtype == torch.float64


def test_the_image_is_normalised_before_it_is_padded() -> None:
    picture = torch.rand(3, 20, 32, generator=torch.Generator().manual_seed(0))
    found = network_image(picture, IMAGE_MEAN, IMAGE_STD, 32)
    assert found.shape == (1, 3, 32, 32)
    assert (found[..., 20:, :] == 0).all()
    for channel, (mean, deviation) in enumerate(zip(IMAGE_MEAN, IMAGE_STD, strict=True)):
        assert torch.allclose(found[0, channel, :20], (picture[channel] - mean) / deviation)


@pytest.mark.parametrize("shape", [(3, 20, 31), (3, 33, 20), (1, 20, 32), (1, 3, 20, 32), (3, 0, 32)])
def test_a_picture_that_does_not_fill_the_frames_side_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(SamonnxError) as caught:
        network_image(torch.zeros(shape), IMAGE_MEAN, IMAGE_STD, 32)
    assert str(caught.value) == (
        f"the picture is {list(shape)}; [3, height, width] expected, the longer of both 32: "
        "resize it to samonnx.models.sam_geometry.resized_size first"
    )


@pytest.mark.parametrize("original", [(30, 50), (100, 70), (16, 16)])
def test_masks_are_enlarged_cut_and_resized_by_plain_bilinear_interpolation(original: tuple[int, int]) -> None:
    logits = noise(2, 3, 16, 16)
    frame = F.interpolate(logits, size=(64, 64), mode="bilinear", align_corners=False)
    assert torch.allclose(network_masks(logits, 64), frame, atol=1e-5)
    height, width = resized_size(original, 64)
    expected = F.interpolate(frame[..., :height, :width], size=original, mode="bilinear", align_corners=False)
    found = original_masks(logits, original, 64)
    assert found.shape == (2, 3, *original)
    assert torch.allclose(found, expected, atol=1e-5)
