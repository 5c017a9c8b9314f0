"""The antialiased resize against PyTorch's own.

PyTorch places its samples in the dtype of the input; in float32 that costs up to 2e-5 at the sizes here, so the
reference is computed in float64.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.antialiased_resize import antialiased_resize, phase_weights, resize_matrix


def pytorchs(x: Tensor, size: int, antialias: bool = True) -> Tensor:
    return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False, antialias=antialias)


def noise(side: int, seed: int = 0) -> Tensor:
    """Values in -1…1, f32 [2, 1, side, side]."""
    return torch.rand(2, 1, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@given(inputs=st.integers(1, 96), outputs=st.integers(1, 96), seed=st.integers(0, 99))
@example(12, 10, 1)
@example(92, 91, 0)
@example(90, 95, 0)
@settings(max_examples=200, deadline=None)
def test_it_equals_pytorchs_antialiased_bilinear_resize(inputs: int, outputs: int, seed: int) -> None:
    x = noise(inputs, seed)
    found = antialiased_resize(x, outputs)
    assert found.shape == (2, 1, outputs, outputs)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), pytorchs(x.double(), outputs), rtol=0, atol=1e-6)


@given(inputs=st.integers(1, 48), more=st.integers(0, 48))
@settings(max_examples=50, deadline=None)
def test_enlarging_is_the_plain_bilinear_resize(inputs: int, more: int) -> None:
    x = noise(inputs)
    plain = pytorchs(x.double(), inputs + more, antialias=False)
    assert torch.allclose(antialiased_resize(x, inputs + more).double(), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("inputs", "outputs"), [(1008, 288), (252, 288), (1152, 288), (1008, 1152)])
def test_it_equals_pytorchs_in_float32_at_the_sizes_of_the_full_model(inputs: int, outputs: int) -> None:
    x = noise(inputs)[:1, :1]
    assert torch.allclose(antialiased_resize(x, outputs), pytorchs(x, outputs), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("inputs", "outputs"), [(288, 1008), (1008, 1152), (252, 288), (1008, 288)])
def test_full_size_maps_equal_the_float64_resize_to_the_last_bits(inputs: int, outputs: int) -> None:
    """PyTorch's own float32 resize is off by 1e-4 at 288 → 1008: it places its samples in float32."""
    x = noise(inputs)[:1, :1]
    exact = pytorchs(x.double(), outputs)
    assert float((antialiased_resize(x, outputs) - exact).abs().max()) <= 1e-6


@pytest.mark.parametrize(("p", "q"), [(8, 7), (7, 2), (5, 1), (25, 24)])
def test_the_phases_of_an_enlargement_sum_to_one(p: int, q: int) -> None:
    weights = phase_weights(p, q)
    assert weights.shape == (p, q + 2)
    assert (weights >= 0).all()
    assert torch.allclose(weights.double().sum(1), torch.ones(p, dtype=torch.float64), atol=1e-6)


@given(inputs=st.integers(1, 300), outputs=st.integers(1, 300))
@settings(max_examples=50, deadline=None)
def test_the_weights_of_an_output_are_not_negative_and_sum_to_one(inputs: int, outputs: int) -> None:
    matrix = resize_matrix(inputs, outputs)
    assert matrix.shape == (outputs, inputs)
    assert matrix.dtype == torch.float32
    assert (matrix >= 0).all()
    assert torch.allclose(matrix.double().sum(1), torch.ones(outputs, dtype=torch.float64), atol=1e-6)


def test_the_same_size_is_left_as_it_is() -> None:
    assert torch.equal(antialiased_resize(noise(9), 9), noise(9))
