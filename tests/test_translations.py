"""Our own operators in ONNX: ROI pooling as the standard's RoiAlign, with the numbers of the eager operator."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import onnx_ir as ir
import openvino as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.roi_align_operator import ROI_ALIGN, pooled_boxes
from samonnx.passes.lower import runnable
from samonnx.programs.program import Component
from samonnx.trace import TraceError, trace
from samonnx.translations import TRANSLATIONS

IMAGES, BOXES, CHANNELS, HEIGHT, WIDTH, SIZE = 3, 2, 4, 9, 11, 7


class Pool(nn.Module):
    def forward(self, features: Tensor, boxes: Tensor) -> Tensor:
        return pooled_boxes(features, boxes, SIZE)


def component(symbolic: dict[str, dict[int, str]]) -> Component:
    examples = {"features": torch.zeros(IMAGES, CHANNELS, HEIGHT, WIDTH), "boxes": torch.zeros(IMAGES, BOXES, 4)}
    return Component("pool", Pool().eval(), examples, ("pooled",), symbolic=symbolic)


@cache
def traced() -> ir.Model:
    return trace(component({})).model


@cache
def session() -> GraphSession:
    return GraphSession(runnable(traced()), threads=1)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


FEATURES = noise(IMAGES, CHANNELS, HEIGHT, WIDTH)
KINDS_OF_BOXES = torch.tensor(
    [
        [[1.3, 2.1, 6.2, 7.7], [3.2, 4.1, 3.6, 4.3]],  # inside; below one cell
        [[6.0, 5.0, 2.0, 1.0], [-5.3, -2.2, 4.1, 3.9]],  # inverted; over the left and upper edge
        [[5.1, 4.4, 14.3, 30.2], [30.1, 2.0, 35.2, 6.0]],  # over the right and lower edge; outside
    ]
)


def test_every_translation_is_that_of_one_of_our_operators() -> None:
    assert set(TRANSLATIONS) == {ROI_ALIGN}


def test_roi_pooling_is_one_roi_align_node_between_two_reshapes() -> None:
    nodes = [node for node in traced().graph if node.op_type != "Constant"]
    assert [(node.domain, node.op_type) for node in nodes] == [("", "Reshape"), ("", "RoiAlign"), ("", "Reshape")]
    assert {name: attribute.value for name, attribute in nodes[1].attributes.items()} == {
        "mode": "avg",
        "coordinate_transformation_mode": "output_half_pixel",
        "output_height": SIZE,
        "output_width": SIZE,
        "sampling_ratio": 0,
        "spatial_scale": 1.0,
    }
    (pooled,) = traced().graph.outputs
    assert pooled.shape == [IMAGES, BOXES, CHANNELS, SIZE, SIZE]


places = st.floats(-2 * WIDTH, 3 * WIDTH, width=32)
box = st.tuples(places, places, places, places)


@given(boxes=st.lists(box, min_size=IMAGES * BOXES, max_size=IMAGES * BOXES), seed=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_onnx_runtime_pools_each_box_from_its_own_image_as_pytorch_does(
    boxes: list[tuple[float, float, float, float]], seed: int
) -> None:
    features = noise(IMAGES, CHANNELS, HEIGHT, WIDTH, seed=seed)
    given_boxes = torch.tensor(boxes).unflatten(0, (IMAGES, BOXES))
    found = session().run({"features": features.numpy(), "boxes": given_boxes.numpy()})["pooled"]
    assert torch.allclose(torch.from_numpy(found), pooled_boxes(features, given_boxes, SIZE), atol=1e-5)


def test_openvino_gives_its_numbers_too(tmp_path: Path) -> None:
    ir.save(runnable(traced()), tmp_path / "pool.onnx")
    engine = ov.Core().compile_model(str(tmp_path / "pool.onnx"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = engine({"features": FEATURES.numpy(), "boxes": KINDS_OF_BOXES.numpy()})["pooled"]
    assert torch.allclose(torch.from_numpy(found), pooled_boxes(FEATURES, KINDS_OF_BOXES, SIZE), atol=1e-5)


@pytest.mark.parametrize(
    ("symbolic", "axis"),
    [
        ({"boxes": {1: "R"}}, "'boxes': axis 1"),
        ({"features": {0: "B"}, "boxes": {0: "B"}}, "'boxes': axis 0"),
    ],
)
def test_a_number_of_boxes_that_is_not_fixed_is_refused(symbolic: dict[str, dict[int, str]], axis: str) -> None:
    with pytest.raises(TraceError) as caught:
        trace(component(symbolic))
    said = f"ROI pooling of {axis} has no fixed size; trace it with static shapes"
    assert str(caught.value).endswith(f"  why:   {said}")
    cause: BaseException | None = caught.value
    while cause is not None and str(cause) != said:
        cause = cause.__cause__
    assert isinstance(cause, SamonnxError)
