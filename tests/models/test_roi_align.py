"""ROI pooling against ONNX Runtime's own RoiAlign, a plain definition by loops, and what interpolation promises."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import Tensor

from samonnx.models.roi_align import roi_align

CHANNELS, GRID, SIZE = 2, 9, 7


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@cache
def engine() -> ort.InferenceSession:
    """One RoiAlign node, in the last opset for which ONNX Runtime has a CPU kernel."""
    node = helper.make_node(
        "RoiAlign",
        ["map", "boxes", "image"],
        ["pooled"],
        mode="avg",
        coordinate_transformation_mode="output_half_pixel",
        output_height=SIZE,
        output_width=SIZE,
        sampling_ratio=0,
    )
    f32, i64 = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    graph = helper.make_graph(
        [node],
        "pool",
        [
            helper.make_tensor_value_info("map", f32, ["B", "C", "H", "W"]),
            helper.make_tensor_value_info("boxes", f32, ["R", 4]),
            helper.make_tensor_value_info("image", i64, ["R"]),
        ],
        [helper.make_tensor_value_info("pooled", f32, ["R", "C", SIZE, SIZE])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def by_engine(features: Tensor, boxes: Tensor) -> Tensor:
    """Every box of every image: as `roi_align`."""
    image = torch.arange(len(features)).repeat_interleave(boxes.shape[1])
    feeds = {"map": features.numpy(), "boxes": boxes.flatten(0, 1).numpy(), "image": image.numpy()}
    (pooled,) = engine().run(None, feeds)
    of_each: Tensor = torch.from_numpy(np.asarray(pooled)).unflatten(0, boxes.shape[:2])
    return of_each


def by_loops(features: Tensor, box: tuple[float, float, float, float], size: int) -> Tensor:
    """One box on one map [C, H, W], sample by sample."""
    x0, y0, x1, y1 = box
    width, height = max(x1 - x0, 1.0), max(y1 - y0, 1.0)
    across, down = math.ceil(width / size), math.ceil(height / size)

    def sampled(x: float, y: float) -> Tensor:
        rows, columns = features.shape[1:]
        if not (-1 <= x <= columns and -1 <= y <= rows):
            return torch.zeros(len(features))
        x, y = min(max(x, 0.0), columns - 1), min(max(y, 0.0), rows - 1)
        left, top = min(int(x), columns - 2), min(int(y), rows - 2)
        right, bottom = x - left, y - top
        upper = features[:, top, left] * (1 - right) + features[:, top, left + 1] * right
        lower = features[:, top + 1, left] * (1 - right) + features[:, top + 1, left + 1] * right
        return upper * (1 - bottom) + lower * bottom

    pooled = torch.zeros(len(features), size, size)
    for i in range(size):
        for j in range(size):
            for k in range(down):
                for n in range(across):
                    x = x0 + (j + (n + 0.5) / across) * width / size
                    y = y0 + (i + (k + 0.5) / down) * height / size
                    pooled[:, i, j] += sampled(x, y) / (across * down)
    return pooled


BOXES = {
    "inside": (1.3, 2.1, 6.2, 7.7),
    "below one cell": (3.2, 4.1, 3.6, 4.3),
    "inverted": (6.0, 5.0, 2.0, 1.0),
    "over the left and upper edge": (-5.3, -2.2, 4.1, 3.9),
    "over the right and lower edge": (5.1, 4.4, 14.3, 30.2),
    "around the map": (-20.1, -31.2, 40.3, 29.4),
    "outside": (30.1, 2.0, 35.2, 6.0),
}


@pytest.mark.parametrize("size", [3, 7])
@pytest.mark.parametrize("name", BOXES)
def test_a_bin_is_the_mean_of_its_interpolated_samples(name: str, size: int) -> None:
    features, box = noise(CHANNELS, GRID, GRID + 2), BOXES[name]
    found = roi_align(features[None], torch.tensor([[box]]), size)
    assert found.shape == (1, 1, CHANNELS, size, size)
    assert torch.allclose(found[0, 0], by_loops(features, box, size), atol=1e-5)


places = st.floats(-2 * GRID, 3 * GRID, width=32)


@given(
    corners=st.lists(st.tuples(places, places, places, places), min_size=1, max_size=4),
    whole=st.booleans(),
    seed=st.integers(0, 3),
)
@settings(deadline=None)
def test_it_is_the_engines_roi_align_wherever_the_box_lies(
    corners: list[tuple[float, float, float, float]], whole: bool, seed: int
) -> None:
    boxes = torch.tensor([corners])
    boxes = boxes.round() if whole else boxes
    features = noise(1, CHANNELS, GRID, GRID, seed=seed)
    assert torch.allclose(roi_align(features, boxes, SIZE), by_engine(features, boxes), atol=1e-5)


@given(start=st.floats(-2, GRID, width=32), bins=st.integers(1, 12), nudge=st.sampled_from([-1e-6, 0.0, 1e-6]))
@settings(deadline=None)
def test_where_rounding_decides_the_number_of_samples_it_decides_as_in_the_engine(
    start: float, bins: int, nudge: float
) -> None:
    end = start + SIZE * bins * (1 + nudge)
    features, boxes = noise(1, CHANNELS, GRID, GRID), torch.tensor([[[start, start, end, end]]])
    assert torch.allclose(roi_align(features, boxes, SIZE), by_engine(features, boxes), atol=1e-5)


def test_a_box_of_a_hundred_maps_is_pooled_as_exactly() -> None:
    features = noise(1, CHANNELS, GRID, GRID)
    boxes = torch.tensor([[[-300.5, -200.25, 600.5, 350.75], [-4.0, 2.0, 900.0, 3.0]]])
    found, expected = roi_align(features, boxes, SIZE), by_engine(features, boxes)
    for box in range(2):
        assert float(expected[0, box].abs().max()) > 0
        assert float((found - expected)[0, box].abs().max() / expected[0, box].abs().max()) < 1e-5


@given(x0=st.floats(0, 4), y0=st.floats(0, 4), width=st.floats(1, 4), height=st.floats(1, 4), slope=st.floats(-2, 2))
@settings(deadline=None)
def test_a_plane_is_pooled_to_its_values_at_the_bins_middles(
    x0: float, y0: float, width: float, height: float, slope: float
) -> None:
    x, y = torch.arange(float(GRID)), torch.arange(float(GRID))[:, None]
    boxes = torch.tensor([[[x0, y0, x0 + width, y0 + height]]])
    middle = (torch.arange(float(SIZE)) + 0.5) / SIZE
    expected = (x0 + middle * width) + slope * (y0 + middle * height)[:, None]
    found = roi_align((x + slope * y)[None, None], boxes, SIZE)
    assert torch.allclose(found[0, 0, 0], expected, atol=1e-4)


def test_each_box_is_pooled_from_its_own_image() -> None:
    features, boxes = noise(3, CHANNELS, GRID, GRID + 1), noise(3, 4, 4, seed=1) * 5
    together = roi_align(features, boxes, SIZE)
    assert together.shape == (3, 4, CHANNELS, SIZE, SIZE)
    for image in range(3):
        for box in range(4):
            alone = roi_align(features[image : image + 1], boxes[image : image + 1, box : box + 1], SIZE)
            assert torch.allclose(together[image, box], alone[0, 0], atol=1e-6)
