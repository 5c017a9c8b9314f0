"""The composition of two convolutions, as arrays, against the two in a row."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from samonnx.passes.compose_convolutions import composed_bias, composed_form, composed_weight, overlaps
from samonnx.passes.convolution_call import Convolution
from samonnx.passes.interface import Array


def applied(map_: Convolution, image: Array) -> Array:
    """The definition, tap by tap, on [N, C, h, w]: the oracle, which knows groups in both directions."""
    batch, _, *sides = map_.output_shape(image.shape)
    result = np.zeros((batch, map_.out_channels, *sides))
    inputs, outputs = map_.in_channels // map_.group, map_.out_channels // map_.group
    for o, i in np.ndindex(map_.out_channels, inputs):
        group = o // outputs
        for tap in np.ndindex(*map_.kernel):
            weight = map_.weight[group * inputs + i, o % outputs] if map_.transposed else map_.weight[o, i]
            for place in np.ndindex(*(sides if not map_.transposed else image.shape[2:])):
                other = [
                    map_.strides[axis] * place[axis] + map_.dilations[axis] * tap[axis] - map_.pads[axis]
                    for axis in range(2)
                ]
                (y, x), (v, u) = (other, place) if map_.transposed else (place, other)
                if 0 <= y < sides[0] and 0 <= x < sides[1] and 0 <= v < image.shape[2] and 0 <= u < image.shape[3]:
                    result[:, o, y, x] += weight[tap] * image[:, group * inputs + i, v, u]
    return result if map_.bias is None else result + map_.bias[:, None, None]


pairs = st.sampled_from([(1, 1), (1, 2), (2, 1), (3, 3), (2, 3)])


@st.composite
def convolutions(draw: st.DrawFn, kind: str, inputs: int, outputs: int) -> Convolution:
    """A random `point`, `tile`, `image` (any convolution), `same` (stride 1) or `transposed`."""
    group = draw(st.sampled_from([g for g in (1, 2, 4) if inputs % g == 0 and outputs % g == 0]))
    kernel = (1, 1) if kind == "point" else draw(pairs)
    strides, dilations, pads = (1, 1), (1, 1), (0, 0, 0, 0)
    if kind == "tile":
        strides = kernel
    elif kind in ("image", "transposed"):
        strides = draw(pairs)
    if kind in ("image", "same", "transposed"):
        dilations = draw(st.sampled_from([(1, 1), (1, 2), (2, 2)]))
        reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = tuple(draw(st.integers(0, min(2, reach[axis % 2]))) for axis in range(4))  # type: ignore[assignment]
    transposed = kind in ("tile", "transposed")
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    shape = (inputs, outputs // group) if transposed else (outputs, inputs // group)
    bias = generator.standard_normal(outputs) if draw(st.booleans()) else None
    weight = generator.standard_normal((*shape, *kernel))
    return Convolution(weight, bias, group, strides, pads, dilations, transposed)


@settings(max_examples=50, deadline=None)
@given(
    data=st.data(),
    kinds=st.sampled_from(
        [
            ("image", "point"), ("tile", "point"), ("transposed", "point"), ("point", "image"), ("point", "same"),
            ("point", "transposed"), ("tile", "same"), ("point", "point"),
        ]
    ),
    channels=st.tuples(*[st.sampled_from([2, 4])] * 3),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
)  # fmt: skip
def test_one_map_and_its_bias_do_what_the_two_did(
    data: st.DataObject, kinds: tuple[str, str], channels: tuple[int, int, int], sides: tuple[int, int]
) -> None:
    first = data.draw(convolutions(kinds[0], channels[0], channels[1]))
    image = np.random.default_rng(0).standard_normal((1, channels[0], *sides))
    assume(min(first.output_shape(image.shape)) > 0)
    second = data.draw(convolutions(kinds[1], channels[1], channels[2]))
    inner = first.output_shape(image.shape)
    assume(min(second.output_shape(inner)) > 0)
    wanted = applied(second, applied(first, image))

    composed = composed_weight(first, second)
    form = composed_form(first, second)
    assert form is not None
    assert form.weight.shape == composed.weight.shape
    assert composed.group == math.gcd(first.group, second.group)
    assert composed.output_shape(image.shape) == wanted.shape
    found = applied(composed, image)
    bias = composed_bias(first, second, inner)
    assert (bias is None) == (first.bias is None and second.bias is None)
    if bias is not None:
        found = found + bias.values[:, bias.rows][:, :, bias.columns]
    assert np.abs(found - wanted).max() <= 1e-12 * max(np.abs(wanted).max(), 1)


def conv(*shape: int, **options: object) -> Convolution:
    return Convolution(np.ones(shape), np.ones(shape[1] if options.get("transposed") else shape[0]), **options)  # type: ignore[arg-type]


PADDED = conv(4, 4, 3, 3, pads=(1, 1, 1, 1))
TILING = conv(4, 4, 2, 2, strides=(2, 2), transposed=True)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (PADDED, PADDED),
        (TILING, conv(4, 4, 3, 3, pads=(1, 1, 1, 1), strides=(2, 2))),
        (TILING, TILING),
        (TILING, conv(4, 4, 1, 1, pads=(1, 1, 1, 1))),
        (conv(4, 4, 3, 3, strides=(2, 2), transposed=True), PADDED),
        (PADDED, conv(4, 4, 1, 1, strides=(2, 2))),
    ],
)
def test_pairs_beyond_the_three_cases_are_refused(first: Convolution, second: Convolution) -> None:
    assert composed_form(first, second) is None
    with pytest.raises(ValueError, match="do not compose"):
        composed_weight(first, second)


def test_two_by_two_then_three_by_three_is_four_by_four() -> None:
    form = composed_form(TILING, PADDED)
    assert form is not None
    assert (form.kernel, form.strides, form.pads, form.transposed) == ((4, 4), (2, 2), (1, 1, 1, 1), True)
    assert overlaps(TILING, PADDED)
    assert not overlaps(TILING, conv(4, 4, 1, 1))


def test_the_table_of_a_padded_bias_is_as_small_as_its_distinct_values() -> None:
    table = composed_bias(conv(4, 4, 1, 1), PADDED, (1, 4, 7, 9))
    assert table is not None
    assert table.values.shape == (4, 3, 3)
    assert table.rows == (0, 1, 1, 1, 1, 1, 2)
    assert [float(value) for value in table.values[0].ravel()] == [17, 25, 17, 25, 37, 25, 17, 25, 17]
    unpadded = composed_bias(conv(4, 4, 1, 1), conv(4, 4, 3, 3), (1, 4, 7, 9))
    assert unpadded is not None
    assert unpadded.is_uniform


def test_a_bias_of_zeros_makes_no_table() -> None:
    table = composed_bias(Convolution(np.ones((4, 4, 1, 1)), np.zeros(4)), PADDED, (1, 4, 7, 9))
    assert table is not None
    assert table.is_uniform
