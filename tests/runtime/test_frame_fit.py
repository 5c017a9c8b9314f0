"""NumPy's way between a picture and the network's frame, against torch's of samonnx.models.sam_geometry."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.errors import SamonnxError
from samonnx.models import sam_geometry
from samonnx.runtime.frame_fit import FitError, FrameFit, padded_size
from samonnx.runtime.manifest import PreprocessingInfo
from samonnx.runtime.preprocessing import network_image

SAM = PreprocessingInfo(
    1024, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), image_resize="bilinear-antialias", fit="pad"
)
SMALL = PreprocessingInfo(
    64, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), image_resize="bilinear-antialias", fit="pad"
)


def noise(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


@settings(deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), size=st.sampled_from([64, 1024]))
def test_padded_sizes_are_those_of_the_model(height: int, width: int, size: int) -> None:
    try:
        expected = sam_geometry.resized_size((height, width), size)
    except SamonnxError:
        with pytest.raises(FitError, match="nothing is left of it"):
            padded_size(height, width, size)
        return
    assert padded_size(height, width, size) == expected


@settings(deadline=None)
@given(height=st.integers(3, 3000), width=st.integers(3, 3000))
def test_coordinates_are_those_of_the_model(height: int, width: int) -> None:
    coords = np.random.default_rng(0).uniform(0, min(height, width), (5, 2))
    expected = sam_geometry.to_network(torch.from_numpy(coords), (height, width), 1024)
    np.testing.assert_allclose(FrameFit.of(SAM, height, width).to_network(coords), expected.numpy(), rtol=1e-15)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (64, 64), (40, 30), (3, 100), (90, 7)])
def test_the_padded_image_is_that_of_the_model(height: int, width: int) -> None:
    """Given the same resized picture; what Pillow makes of it is tested in test_preprocessing."""
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    placed = padded_size(height, width, 64)
    plain = PreprocessingInfo(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), image_resize="bilinear-antialias", fit="pad")
    resized = network_image(frame, plain, kind="images")[0, :, : placed[0], : placed[1]]
    expected = sam_geometry.network_image(torch.from_numpy(resized), SMALL.mean, SMALL.std, 64)
    image = network_image(frame, SMALL, kind="images")
    np.testing.assert_allclose(image, expected.numpy(), atol=1e-6)
    assert not image[:, :, placed[0] :].any()
    assert not image[:, :, :, placed[1] :].any()


@settings(deadline=None, max_examples=30)
@given(height=st.integers(2, 90), width=st.integers(2, 90))
def test_masks_of_a_padded_picture_are_those_of_the_model(height: int, width: int) -> None:
    logits = noise(2, 3, 16, 16)
    expected = sam_geometry.original_masks(torch.from_numpy(logits), (height, width), 64)
    masks = FrameFit.of(SMALL, height, width).original_logits(logits)
    np.testing.assert_allclose(masks, expected.numpy(), atol=2e-6)


def test_at_full_size_pixels_differ_only_where_rounding_decides() -> None:
    """One matrix an axis instead of two resizes: an identity in real arithmetic. 8 million pixels of noise."""
    logits = 5 * noise(1, 4, 256, 256)
    expected = sam_geometry.original_masks(torch.from_numpy(logits), (1200, 1800), 1024).numpy()
    masks = FrameFit.of(SAM, 1200, 1800).original_logits(logits)
    np.testing.assert_allclose(masks, expected, atol=1e-5)
    for threshold in (-1, 0, 1):
        differs = (masks > threshold) != (expected > threshold)
        assert differs.sum() <= 5
        assert np.abs(expected[differs] - threshold).max(initial=0) < 1e-6


@pytest.mark.parametrize(("height", "width"), [(30, 50), (16, 16), (5, 90)])
def test_masks_of_a_stretched_picture_are_resized_once(height: int, width: int) -> None:
    logits = noise(2, 1, 16, 16)
    fit = FrameFit.of(PreprocessingInfo(64), height, width)
    assert (fit.frame, fit.placed) == ((64, 64), (64, 64))
    tensor = torch.from_numpy(logits)
    expected = functional.interpolate(tensor, size=(height, width), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(fit.original_logits(logits), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(fit.to_network([[width, height]]), [[64, 64]])


def test_a_pinned_size_is_stretched_to_its_part_of_the_frame() -> None:
    info = PreprocessingInfo(64, image_resize="bilinear-antialias", fit="pad", height=36, width=64)
    fit = FrameFit.of(info, 10, 200)
    assert (fit.frame, fit.placed) == ((64, 64), (36, 64))
    np.testing.assert_allclose(fit.to_network([[200, 10]]), [[64, 36]])
    image = network_image(np.full((10, 200, 3), 255, np.uint8), info, kind="images")
    assert image.shape == (1, 3, 64, 64)
    assert (image[:, :, :36] == 1).all()
    assert not image[:, :, 36:].any()


def test_a_frame_may_be_a_rectangle() -> None:
    info = PreprocessingInfo(64, video_resize="bilinear", height=32, width=64)
    frame = np.random.default_rng(0).integers(0, 256, (50, 45, 3), dtype=np.uint8)
    tensor = torch.from_numpy(frame).float().permute(2, 0, 1)[None]
    expected = functional.interpolate(tensor, size=(32, 64), mode="bilinear", align_corners=False)
    np.testing.assert_allclose(network_image(frame, info), (expected / 255 - 0.5) / 0.5, atol=2e-6)


def test_pictures_that_do_not_fit_say_why() -> None:
    with pytest.raises(FitError) as caught:
        FrameFit.of(SAM, 5000, 1)
    assert str(caught.value) == (
        "the picture is 1 x 5000 pixels, and 0 x 1024 when its long side is 1024, as the network takes it: nothing is "
        "left of it. Cut it to a shorter piece"
    )
    for info in (SAM, PreprocessingInfo(64)):
        with pytest.raises(FitError, match="a picture of 7 x 0 pixels has none; give one with pixels"):
            FrameFit.of(info, 0, 7)
