from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.interface import Array
from samonnx.passes.move_chain import Arrangement, Steps


def arranged(source: Array, arrangement: Arrangement) -> Array:
    """The definition: digits of the row-major index, permuted."""
    return source.reshape(arrangement.factors).transpose(arrangement.order).reshape(arrangement.shape)


def done(source: Array, steps: Steps) -> Array:
    result = source if steps.first is None else source.reshape(steps.first)
    result = result if steps.perm is None else result.transpose(steps.perm)
    return result if steps.last is None else result.reshape(steps.last)


@st.composite
def regrouped(draw: st.DrawFn, size: int) -> tuple[int, ...]:
    """A shape of `size` elements with unit axes among its dimensions."""
    dims = []
    while size > 1:
        divisors = [d for d in range(2, size + 1) if size % d == 0]
        dims.append(draw(st.sampled_from(divisors)))
        size //= dims[-1]
    for place in draw(st.lists(st.integers(0, 5), max_size=2)):
        dims.insert(min(place, len(dims)), 1)
    return tuple(dims)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_steps_do_what_the_chain_does_in_at_most_one_transpose(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([1, 2, 12, 24, 36, 60]))
    shape = data.draw(regrouped(size))
    source: Array = np.arange(size).reshape(shape)
    wanted, arrangement = source, Arrangement.of(shape)
    for _ in range(data.draw(st.integers(0, 5))):
        if data.draw(st.booleans()):
            perm = tuple(data.draw(st.permutations(range(wanted.ndim))))
            wanted, arrangement = wanted.transpose(perm), arrangement.transposed(perm)
        else:
            target = data.draw(regrouped(size))
            next_ = arrangement.reshaped(target)
            if next_ is None:
                continue
            wanted, arrangement = wanted.reshape(target), next_
        assert math.prod(arrangement.factors) == size
        assert arrangement.shape == wanted.shape
        np.testing.assert_array_equal(arranged(source, arrangement), wanted)
    steps = arrangement.steps()
    np.testing.assert_array_equal(done(source, steps), wanted)
    assert done(source, steps).shape == wanted.shape
    in_place = np.array_equal(source.reshape(-1), wanted.reshape(-1))
    assert steps.transposes == (not in_place)
    assert steps.nodes == 0 or not in_place or steps == Steps(None, None, wanted.shape)


def test_a_lone_transpose_needs_one_node() -> None:
    assert Arrangement.of((1, 12, 8, 16)).transposed((0, 2, 3, 1)).steps() == Steps(None, (0, 2, 3, 1), None)


def test_splitting_heads_needs_two_nodes() -> None:
    heads = Arrangement.of((1, 12, 128)).reshaped((1, 12, 8, 16))
    assert heads is not None
    assert heads.transposed((0, 2, 1, 3)).steps().nodes == 2
    joined = Arrangement.of((1, 8, 12, 16)).transposed((0, 2, 1, 3)).reshaped((1, 12, 128))
    assert joined is not None
    assert joined.steps().nodes == 2


def test_a_reshape_across_factors_is_refused() -> None:
    assert Arrangement.of((6, 6)).reshaped((4, 9)) is None
    swapped = Arrangement.of((4, 6)).transposed((1, 0))
    assert swapped.reshaped((4, 6)) is None
    assert swapped.reshaped((3, 2, 4)) is not None
