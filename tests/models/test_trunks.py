"""Every trunk by its name: upstream's keys, upstream's numbers, the shape it promises, and its graph in two engines."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx_ir as ir
import openvino as ov
import pytest
import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.student_trunk import StudentTrunk
from samonnx.models.trunks import TRUNKS, build_trunk
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.pins import apply_pins
from samonnx.programs.program import Component
from samonnx.seeded import seeded_frame
from samonnx.trace import trace
from samonnx.weights import fill_seeded

TINY = ("repvit_tiny", "tinyvit_tiny", "efficientvit_tiny")

# Of upstream's own trunks (`model_builder._create_student_vision_backbone`): how many keys their state dict has, and
# the start of the sha256 of its lines "key (shape)", sorted.
UPSTREAM_KEYS = {
    "repvit_m0_9": (707, "2406fbb51adbf375"),
    "repvit_m1_1": (653, "7d49641b1f363dda"),
    "repvit_m2_3": (1463, "dcaed82f8d7f2e50"),
    "tinyvit_5m": (300, "155866572d4b05da"),
    "tinyvit_11m": (300, "26982184ebadde54"),
    "tinyvit_21m": (300, "6fe9fa9efbf950a2"),
    "efficientvit_b0": (194, "8de229d3d5095971"),
    "efficientvit_b1": (269, "3b0a9b27b56b8995"),
    "efficientvit_b2": (362, "5362bc1d6cc5463f"),
}

# Computed by upstream's own classes at the tiny sizes, with `seeded_tensor` under the keys of the model itself, of
# `seeded_frame(0, 112)` brought to -1…1: every fourth channel of the map's cell (1, 2), and the mean of all squares.
UPSTREAM_NUMBERS = {
    "tinyvit_tiny": (
        (0.753158, -0.026750, 0.219096, -0.298798, 1.030050, -0.035059, 1.126215, -0.264705),
        0.7256152,
    ),
    "efficientvit_tiny": (
        (-0.232784, 0.102995, 0.166345, -0.099736, 0.579961, 0.050778, -0.292701, -0.405128),
        0.08386721,
    ),
}


def student(name: str, channels: int, grid: int) -> StudentTrunk:
    trunk = build_trunk(name, channels, grid)
    assert isinstance(trunk, StudentTrunk)
    return trunk.eval().requires_grad_(False)


def tiny_trunk(name: str) -> StudentTrunk:
    trunk = student(name, channels=32, grid=8)
    fill_seeded(trunk)
    apply_pins(trunk, {"resize_to_grid": True})
    return trunk


def seeded_image() -> Tensor:
    return torch.from_numpy(seeded_frame(0, 112))[None] * 2 - 1


def test_the_students_are_upstreams_nine_and_a_tiny_one_of_each_family() -> None:
    students = {name for name in TRUNKS if not name.startswith("sam3_")}
    assert students == {*UPSTREAM_KEYS, *TINY}


@pytest.mark.parametrize("name", UPSTREAM_KEYS)
def test_every_weight_has_upstreams_name_and_shape(name: str) -> None:
    with torch.device("meta"):
        state = student(name, channels=1024, grid=72).state_dict()
    lines = sorted(f"{key} {tuple(value.shape)}\n" for key, value in state.items())
    assert (len(lines), hashlib.sha256("".join(lines).encode()).hexdigest()[:16]) == UPSTREAM_KEYS[name]


@pytest.mark.parametrize("name", UPSTREAM_KEYS)
def test_a_trunk_maps_an_image_of_1008_to_the_grid_of_72(name: str) -> None:
    with torch.device("meta"):
        trunk = student(name, channels=1024, grid=72)
        apply_pins(trunk, {"resize_to_grid": True})
        assert trunk.model.backbone.model(torch.empty(1, 3, 1008, 1008)).shape[2:] == (32, 32)
        assert trunk(torch.empty(1, 3, 1008, 1008)).shape == (1, 1024, 72, 72)


@pytest.mark.parametrize("name", UPSTREAM_NUMBERS)
def test_the_tiny_models_give_upstreams_numbers(name: str) -> None:
    model = student(name, channels=32, grid=8).model.backbone.model
    fill_seeded(model)
    features = model(seeded_image())
    cell, power = UPSTREAM_NUMBERS[name]
    assert features.shape == (1, 32, 4, 4)
    assert features[0, ::4, 1, 2].tolist() == pytest.approx(cell, abs=3e-6)
    assert float(features.square().mean()) == pytest.approx(power, rel=3e-6)


@pytest.mark.parametrize("name", TINY)
def test_the_graph_gives_the_modules_numbers_in_onnx_runtime_and_openvino(name: str) -> None:
    trunk, image = tiny_trunk(name), seeded_image()
    expected = trunk(image).numpy()
    model = trace(Component("trunk", trunk, {"image": torch.zeros_like(image)}, ("features",))).model
    feeds = {"image": image.numpy()}
    found = {"ONNX Runtime": GraphSession(model).run(feeds)["features"]}
    LowerOnnx()(model)  # OpenVINO reads attention in its decomposed form
    core = ov.Core()
    proto = ir.to_proto(model).SerializeToString()
    compiled = core.compile_model(core.read_model(proto), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found["OpenVINO"] = np.asarray(compiled(feeds)[compiled.output(0)])
    for engine, features in found.items():
        assert abs(features - expected).max() <= 3e-6 * abs(expected).max(), engine


def test_an_unknown_backbone_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SamonnxError) as caught:
        build_trunk("efficientvit_b3", channels=32, grid=8)
    assert str(caught.value) == (
        "model.args.backbone: unknown backbone 'efficientvit_b3'; known: "
        "repvit_m0_9, repvit_m1_1, repvit_m2_3, repvit_tiny, tinyvit_5m, tinyvit_11m, tinyvit_21m, tinyvit_tiny, "
        "efficientvit_b0, efficientvit_b1, efficientvit_b2, efficientvit_tiny, sam3_vit, sam3_vit_tiny"
    )


def test_another_width_than_that_of_sam3s_unprojected_trunk_is_refused() -> None:
    with pytest.raises(SamonnxError) as caught:
        build_trunk("sam3_vit_tiny", channels=64, grid=8)
    assert str(caught.value) == (
        "model.args.trunk_dim: 64 found, 32 expected: the map of 'sam3_vit_tiny' is not projected"
    )
