"""Position encodings against formulas written out number by number."""

from __future__ import annotations

import cmath
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.models.position_encoding import axial_rotary_table, rotate_pairs, sine_1d, sine_map


def wave(feature: int, half: int, position: float) -> float:
    """Even features are sines, odd ones cosines; neighbours share a period."""
    angle = position / 10000.0 ** (2 * (feature // 2) / half)
    return math.sin(angle) if feature % 2 == 0 else math.cos(angle)


@pytest.mark.parametrize(("channels", "height", "width"), [(8, 3, 5), (12, 4, 4), (64, 2, 7), (256, 3, 2)])
def test_the_sine_map_encodes_y_in_its_first_half_and_x_in_its_second(channels: int, height: int, width: int) -> None:
    half = channels // 2
    expected = np.zeros((channels, height, width))
    for row in range(height):
        for column in range(width):
            for i in range(half):
                expected[i, row, column] = wave(i, half, (row + 1) / (height + 1e-6) * 2 * math.pi)
                expected[half + i, row, column] = wave(i, half, (column + 1) / (width + 1e-6) * 2 * math.pi)
    np.testing.assert_allclose(sine_map(channels, height, width).numpy(), expected, atol=2e-6)


@given(st.floats(-16, 16, width=32), st.sampled_from([4, 8, 32, 256]))
@settings(deadline=None)
def test_the_sine_of_a_distance_is_all_sines_then_all_cosines_without_two_pi(position: float, channels: int) -> None:
    half = channels // 2
    angles = [position / 10000.0 ** (2 * (i // 2) / half) for i in range(half)]
    expected = [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    np.testing.assert_allclose(sine_1d(torch.tensor(position), channels).numpy(), expected, atol=1e-5)


def test_the_sine_of_distances_keeps_their_shape() -> None:
    positions = torch.arange(6.0).reshape(2, 3)
    encoded = sine_1d(positions, 8)
    assert encoded.shape == (2, 3, 8)
    assert torch.equal(encoded[1, 2], sine_1d(torch.tensor(5.0), 8))


def test_the_rotary_table_turns_the_first_half_with_x_and_the_second_with_y() -> None:
    channels, height, width = 16, 3, 5
    cosine, sine = axial_rotary_table(channels, height, width)
    assert cosine.shape == sine.shape == (height * width, channels // 2)
    for cell in range(height * width):
        for pair in range(channels // 2):
            position = cell % width if pair < channels // 4 else cell // width
            angle = position * 10000.0 ** (-4 * (pair % (channels // 4)) / channels)
            assert cosine[cell, pair] == pytest.approx(math.cos(angle), abs=1e-6)
            assert sine[cell, pair] == pytest.approx(math.sin(angle), abs=1e-6)


@given(seed=st.integers(0, 2**16), pairs=st.integers(1, 6), tokens=st.integers(1, 4))
@settings(deadline=None)
def test_turning_pairs_is_multiplying_complex_numbers(seed: int, pairs: int, tokens: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, 2 * pairs, generator=generator)
    angle = torch.randn(tokens, pairs, generator=generator)
    as_complex = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    expected = torch.view_as_real(as_complex * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
    assert torch.allclose(rotate_pairs(x, angle.cos(), angle.sin()), expected, atol=1e-6)


def test_one_pair_turned_by_hand() -> None:
    turned = rotate_pairs(torch.tensor([[3.0, 4.0]]), torch.tensor([[math.cos(1.0)]]), torch.tensor([[math.sin(1.0)]]))
    by_hand = complex(3, 4) * cmath.exp(1j)
    assert turned.tolist() == [[pytest.approx(by_hand.real, abs=1e-6), pytest.approx(by_hand.imag, abs=1e-6)]]


@given(
    shift=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    one=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    other=st.tuples(st.integers(0, 3), st.integers(0, 3)),
)
@settings(max_examples=50, deadline=None)
def test_products_of_turned_vectors_depend_on_the_offset_of_their_cells_alone(
    shift: tuple[int, int], one: tuple[int, int], other: tuple[int, int]
) -> None:
    side, channels = 8, 12
    cosine, sine = axial_rotary_table(channels, side, side)
    q, k = torch.randn(2, 1, channels, generator=torch.Generator().manual_seed(0)).double()

    def product(dy: int, dx: int) -> float:
        a, b = (cell[0] + dy for cell in (one, other)), (cell[1] + dx for cell in (one, other))
        i, j = (row * side + column for row, column in zip(a, b, strict=True))
        turned = (rotate_pairs(v, cosine[c : c + 1], sine[c : c + 1]) for v, c in ((q, i), (k, j)))
        return float((next(turned) * next(turned)).sum())

    assert product(*shift) == pytest.approx(product(0, 0), abs=1e-5)
