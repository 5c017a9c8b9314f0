from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from samonnx.runtime.manifest import PreprocessingInfo
from samonnx.runtime.preprocessing import FrameError, network_image, resize_logits, resize_mask

sides = st.integers(1, 90)


def noise(height: int, width: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@settings(deadline=None, max_examples=40)
@given(height=sides, width=sides, size=st.sampled_from([14, 28, 56]))
def test_a_video_frame_is_resized_as_torch_does_bicubic(height: int, width: int, size: int) -> None:
    frame = noise(height, width)
    tensor = torch.from_numpy(frame).float().permute(2, 0, 1)[None]
    expected = functional.interpolate(tensor, size=(size, size), mode="bicubic", align_corners=False)
    expected = (expected / 255 - 0.5) / 0.5
    image = network_image(frame, PreprocessingInfo(size))
    assert image.shape == (1, 3, size, size)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected.numpy(), atol=2e-5)


PILLOW_METHODS = {"bilinear-antialias": Image.Resampling.BILINEAR, "bicubic-antialias": Image.Resampling.BICUBIC}


def resized_as(method: str, frame: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint8]:
    """What the network gets of an image, back in uint8 [size, size, 3]."""
    info = PreprocessingInfo(size, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), image_resize=method)
    image = network_image(frame, info, kind="images")
    pixels: npt.NDArray[np.uint8] = np.rint(image[0].transpose(1, 2, 0) * 255).astype(np.uint8)
    return pixels


@pytest.mark.parametrize("method", PILLOW_METHODS)
@settings(deadline=None, max_examples=40)
@given(short=sides, more=st.integers(0, 60), size=st.sampled_from([14, 28, 56]))
def test_an_image_is_resized_as_pillow_does_to_the_last_bit(method: str, short: int, more: int, size: int) -> None:
    frame = noise(short, short + more)  # wide: tall ones are another order of passes in newer Pillows
    expected = np.asarray(Image.fromarray(frame).resize((size, size), PILLOW_METHODS[method]))
    np.testing.assert_array_equal(resized_as(method, frame, size), expected)


@pytest.mark.parametrize("method", PILLOW_METHODS)
def test_a_tall_image_is_within_one_step_of_pillow(method: str) -> None:
    frame = noise(300, 60)
    expected = np.asarray(Image.fromarray(frame).resize((28, 28), PILLOW_METHODS[method])).astype(int)
    assert np.abs(resized_as(method, frame, 28) - expected).max() <= 1


def test_without_a_method_pillow_resizes_by_bicubic_antialias_as_sam2s_loader_has_it() -> None:
    frame = noise(45, 80)
    expected = np.asarray(Image.fromarray(frame).resize((56, 56)))
    np.testing.assert_array_equal(resized_as("bicubic-antialias", frame, 56), expected)


def test_black_and_white_edges_overshoot_into_the_range_of_a_byte() -> None:
    """The cubic kernel goes below 0 and above 255 there, in either direction, before it is cut."""
    frame = np.zeros((40, 40, 3), dtype=np.uint8)
    frame[9:31, 13:26] = 255
    expected = np.asarray(Image.fromarray(frame).resize((28, 28), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(resized_as("bicubic-antialias", frame, 28), expected)
    assert {0, 255} <= set(np.unique(expected))


def test_a_folder_of_images_and_a_video_are_resized_by_methods_of_their_own() -> None:
    frame = noise(45, 80)
    info = PreprocessingInfo(28, video_resize="bilinear-antialias", image_resize="bicubic-antialias")
    for kind, method in (("video", "bilinear-antialias"), ("images", "bicubic-antialias")):
        alone = PreprocessingInfo(28, video_resize=method, image_resize=method)
        np.testing.assert_array_equal(network_image(frame, info, kind=kind), network_image(frame, alone))


@settings(deadline=None, max_examples=40)
@given(height=sides, width=sides)
def test_masks_come_back_to_video_size_as_torch_does_bilinear(height: int, width: int) -> None:
    logits = np.random.default_rng(1).normal(0, 8, (2, 12, 12)).astype(np.float32)
    expected = functional.interpolate(
        torch.from_numpy(logits)[:, None], size=(height, width), mode="bilinear", align_corners=False
    )
    np.testing.assert_allclose(
        resize_logits(logits, width=width, height=height), expected[:, 0].numpy(), atol=2e-5, rtol=1e-5
    )


@settings(deadline=None, max_examples=40)
@given(height=sides, width=sides)
def test_mask_prompts_are_resized_as_torch_does_with_antialias(height: int, width: int) -> None:
    mask = (np.random.default_rng(2).random((height, width)) > 0.5).astype(np.float32)
    expected = functional.interpolate(
        torch.from_numpy(mask)[None, None], size=(28, 28), mode="bilinear", align_corners=False, antialias=True
    )
    np.testing.assert_allclose(resize_mask(mask, 28), expected[0, 0].numpy(), atol=1e-5)


@pytest.mark.parametrize("kind", ["video", "images"])
def test_a_frame_of_the_networks_size_is_only_normalised(kind: str) -> None:
    frame = noise(28, 28)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = network_image(frame, PreprocessingInfo(28, mean, std), kind=kind)
    expected = (frame / 255 - np.array(mean)) / np.array(std)
    np.testing.assert_allclose(image[0].transpose(1, 2, 0), expected, atol=1e-6)
    assert image.flags.c_contiguous


def test_no_objects_give_no_masks() -> None:
    assert resize_logits(np.zeros((0, 8, 8), dtype=np.float32), width=5, height=4).shape == (0, 4, 5)


@pytest.mark.parametrize(
    ("frame", "found"),
    [
        (np.zeros((4, 4, 3), dtype=np.float32), r"float32 \[4, 4, 3\]"),
        (np.zeros((4, 4), dtype=np.uint8), r"uint8 \[4, 4\]"),
        (np.zeros((4, 4, 4), dtype=np.uint8), r"uint8 \[4, 4, 4\]"),
        ("frame.png", "str"),
    ],
)
def test_a_frame_that_is_no_rgb_image_is_refused(frame: object, found: str) -> None:
    with pytest.raises(FrameError, match=r"frame: expected uint8 \[height, width, 3\] in RGB order, got " + found):
        network_image(frame, PreprocessingInfo(28))  # type: ignore[arg-type]  # the wrong type is what is tested


def test_a_frame_without_pixels_is_refused() -> None:
    with pytest.raises(FrameError, match="expected at least one pixel"):
        network_image(np.zeros((0, 4, 3), dtype=np.uint8), PreprocessingInfo(28))
