"""What stands behind every small trunk: the projection head's formula, the enlargement, what its pin decides."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.student_trunk import StudentTrunk
from samonnx.pins import PinValue, UnpinnedBranchError, apply_pins
from samonnx.weights import fill_seeded

WIDTH, CHANNELS, STRIDE = 6, 8, 32


def trunk_of(grid: int, resize: PinValue | None) -> StudentTrunk:
    """Over a model that is no trunk: one convolution of the same stride."""
    trunk = StudentTrunk(nn.Conv2d(3, WIDTH, STRIDE, STRIDE), WIDTH, CHANNELS, grid).eval().requires_grad_(False)
    fill_seeded(trunk)
    if resize is not None:
        apply_pins(trunk, {"resize_to_grid": resize})
    return trunk


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def bilinear_weights(inputs: int, outputs: int) -> Tensor:
    """[outputs, inputs]: place o looks at (o + 1/2) · inputs / outputs - 1/2, held inside the map."""
    place = ((torch.arange(outputs) + 0.5) * inputs / outputs - 0.5).clamp(0, inputs - 1)
    return (1 - (place[:, None] - torch.arange(inputs)).abs()).clamp(min=0)


def test_the_names_are_those_of_the_released_checkpoints() -> None:
    keys = {key for key in trunk_of(grid=7, resize=True).state_dict() if not key.endswith("num_batches_tracked")}
    norm = {f"model.head.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    convolutions = {"model.head.0.weight", "model.head.3.weight", "model.head.3.bias"}
    assert keys == {"model.backbone.model.weight", "model.backbone.model.bias"} | convolutions | norm


def test_the_head_projects_normalises_activates_and_mixes_neighbours() -> None:
    trunk = trunk_of(grid=2, resize=False)
    image = noise(1, 3, 64, 64)
    state = trunk.model.head.state_dict()
    width_last = trunk.model.backbone.model(image)[0].permute(1, 2, 0) @ state["0.weight"][:, :, 0, 0].T
    scaled = (width_last - state["1.running_mean"]) / (state["1.running_var"] + 1e-5).sqrt()
    normed = scaled * state["1.weight"] + state["1.bias"]
    active = normed * (1 + torch.erf(normed / 2**0.5)) / 2
    patches = F.unfold(active.permute(2, 0, 1)[None], 3, padding=1)[0]
    mixed = state["3.weight"].flatten(1) @ patches + state["3.bias"][:, None]
    assert torch.allclose(trunk(image)[0], mixed.unflatten(1, (2, 2)), atol=1e-6)


@settings(deadline=None)
@given(st.integers(1, 4), st.integers(1, 12))
def test_the_map_is_enlarged_to_the_grid_bilinearly_between_cell_centres(side: int, grid: int) -> None:
    trunk = trunk_of(grid, resize=True)
    image = noise(1, 3, STRIDE * side, STRIDE * side)
    weights = bilinear_weights(side, grid)
    expected = torch.einsum("yi,bcij,xj->bcyx", weights, trunk.model(image), weights)
    assert trunk(image).shape == (1, CHANNELS, grid, grid)
    assert torch.allclose(trunk(image), expected, atol=1e-5)


def test_a_trunk_pinned_not_to_resize_gives_its_own_map() -> None:
    trunk = trunk_of(grid=2, resize=False)
    image = noise(1, 3, 64, 64)
    assert torch.equal(trunk(image), trunk.model(image))


def test_a_trunk_pinned_not_to_resize_names_the_pin_when_its_map_does_not_fit() -> None:
    with pytest.raises(SamonnxError) as caught:
        trunk_of(grid=8, resize=False)(noise(1, 3, 128, 128))
    assert str(caught.value) == (
        "the trunk's map is 4 wide and the grid 8: pin detector.backbone.vision_backbone.trunk.resize_to_grid to true"
    )


def test_an_unpinned_trunk_does_not_run() -> None:
    with pytest.raises(UnpinnedBranchError, match=r"StudentTrunk\.resize_to_grid"):
        trunk_of(grid=8, resize=None)(noise(1, 3, 64, 64))
