from __future__ import annotations

import pytest

from samonnx.passes.shape_inference import ShapeInferenceError
from samonnx.passes.symbol_binding import bind_symbols, input_symbols
from tests.passes.graph_text import body_of, constants_of, model_of


def test_sizes_become_constants_and_shapes_static() -> None:
    model = model_of(
        """(float[2,n,3] x) => (float[2,m,3] y)
        <int64 three = {3}, int64[1] zero = {0}, int64[1] one = {1}, int64[1] minus = {-1}> {
            s = Shape <start = 1, end = 2> (x)
            n = Squeeze(s)
            k = Mul(n, three)
            e = Sub(n, one)
            d = Reshape(e, minus)
            y = Slice(x, zero, d, one)
        }"""
    )
    bind_symbols(model, {"n": 7})
    assert [str(value.shape) for value in (*model.graph.inputs, *model.graph.outputs)] == ["[2,7,3]", "[2,6,3]"]
    assert body_of(model) == ["y = Slice(x, zero, d/bound, one)"]
    assert constants_of(model)["d/bound"] == [6]


def test_tables_are_not_evaluated() -> None:
    model = model_of(
        "(float[n] x) => (int64[n] y) <int64 zero = {0}, int64 one = {1}> { s = Size(x) y = Range(zero, s, one) }"
    )
    bind_symbols(model, {"n": 1000})
    assert body_of(model) == ["y = Range(zero, s/bound, one)"]
    assert str(model.graph.outputs[0].shape) == "[1000]"


def test_other_symbols_stay() -> None:
    model = model_of("(float[n,m] x) => (float[n,m] y) { y = Neg(x) }")
    bind_symbols(model, {"n": 2, "k": 9})
    assert str(model.graph.outputs[0].shape) == "[2,m]"


def test_symbols_are_found_by_input_and_axis() -> None:
    model = model_of("(float[n,2,m] x, float[3,n] z) => (float[n] y) { y = Identity(x) }")
    found = {
        symbol: [(value.name, axis) for value, axis in ports] for symbol, ports in input_symbols(model.graph).items()
    }
    assert found == {"n": [("x", 0), ("z", 1)], "m": [("x", 2)]}


def test_a_graph_that_does_not_hold_with_a_size_is_an_error() -> None:
    model = model_of("(float[n] x) => (float[4] y) <float[4] w = {1,2,3,4}> { y = Add(x, w) }")
    with pytest.raises(ShapeInferenceError):
        bind_symbols(model, {"n": 3})


def test_a_size_that_is_an_output_stays_a_node() -> None:
    model = model_of("(float[n] x) => (int64[1] y) { s = Shape(x) y = Abs(s) }")
    bind_symbols(model, {"n": 3})
    assert body_of(model) == ["y = Abs(s/bound)"]
