"""Group norm against its definition, and its precision where values lie far from zero."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.graph_session import GraphSession
from samonnx.models.group_norm import GroupNorm
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded


def seeded(groups: int, channels: int) -> GroupNorm:
    norm = GroupNorm(groups, channels).eval().requires_grad_(False)
    fill_seeded(norm)
    return norm


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def error(found: Tensor, norm: GroupNorm, x: Tensor) -> float:
    """Largest difference to the norm in float64; its values are about 1 in size."""
    exact = F.group_norm(x.double(), norm.groups, norm.weight.double(), norm.bias.double(), eps=1e-5)
    return float((found.double() - exact).abs().max())


@given(
    batch=st.integers(1, 2),
    groups=st.integers(1, 4),
    width=st.integers(1, 3),
    side=st.integers(2, 6),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
@settings(max_examples=30, deadline=None)
def test_each_run_of_channels_is_normed_for_itself(
    batch: int, groups: int, width: int, side: int, scale: float
) -> None:
    norm, x = seeded(groups, groups * width), noise(batch, groups * width, side, side + 1) * scale
    assert error(norm(x), norm, x) < 1e-5


def test_the_released_names_are_weight_and_bias() -> None:
    assert {name: tuple(value.shape) for name, value in seeded(2, 6).state_dict().items()} == {
        "weight": (6,),
        "bias": (6,),
    }


@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_onnx_runtime_keeps_the_precision_of_values_far_from_zero(offset: float) -> None:
    norm, x = seeded(8, 16), noise(1, 16, 24, 24) + offset
    traced = trace(Component("norm", norm, {"x": x}, ("y",)))
    found = torch.from_numpy(GraphSession(traced.model, threads=1).run({"x": x.numpy()})["y"])
    assert error(found, norm, x) < 2e-5
