"""A size that stands in for a symbolic dimension: what comes back computes the same for every size, and what cannot be
written for all sizes is refused."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.pass_pipelines import general_passes, lowering_passes
from samonnx.passes.evaluation import run_model
from samonnx.passes.graph_values import add_initializer, constant_array
from samonnx.passes.interface import Array
from samonnx.passes.lower import runnable
from samonnx.passes.pipeline import run_passes
from samonnx.passes.stand_in import StandInError, bind_stand_in
from samonnx.passes.symbolic_again import symbolic_again
from tests.passes.graph_text import body_of, model_of

# What torch.export makes of `table.expand(len(x), -1, -1)` and `x.flatten(0, 1)`.
EXPANDED = """(float[n,4,8] x, float[8,6] w) => (float[n,6,6] y)
    <float[2,8] table = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8},
     int64[1] two = {2}, int64[1] eight = {8}, int64[1] six = {6}, int64[1] minus = {-1}, int64[1] zero = {0}> {
        n = Shape <start = 0, end = 1> (x)
        target = Concat <axis = 0> (n, two, eight)
        rows = Unsqueeze(table, zero)
        tables = Expand(rows, target)
        tokens = Concat <axis = 1> (tables, x)
        flat_to = Concat <axis = 0> (minus, eight)
        flat = Reshape(tokens, flat_to)
        projected = MatMul(flat, w)
        back_to = Concat <axis = 0> (n, six, six)
        y = Reshape(projected, back_to)
    }"""

ATTENTION = """(float[n,2,5,4] q, float[1,2,7,4] k, float[1,2,7,4] v) => (float[n,5,8] y)
    <int64[1] two = {2}, int64[1] four = {4}, int64[1] seven = {7}, int64[1] five = {5}, int64[1] eight = {8}> {
        n = Shape <start = 0, end = 1> (q)
        target = Concat <axis = 0> (n, two, seven, four)
        keys = Expand(k, target)
        values = Expand(v, target)
        attended = Attention(q, keys, values)
        merged = Transpose <perm = [0, 2, 1, 3]> (attended)
        shape = Concat <axis = 0> (n, five, eight)
        y = Reshape(merged, shape)
    }"""


def feeds(model: ir.Model, size: int) -> dict[str, Array]:
    random = np.random.default_rng(size)
    shapes = {
        str(value.name): [size if not isinstance(dim, int) else dim for dim in value.shape or ()]
        for value in model.graph.inputs
    }
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def and_back(model: ir.Model, change: Callable[[ir.Model], object] = lambda model: None) -> ir.Model:
    copy = model.clone()
    stand_in = bind_stand_in(copy)
    assert stand_in is not None
    change(copy)
    symbolic_again(copy, stand_in)
    return copy


def compiled_for(target: str) -> Callable[[ir.Model], object]:
    return lambda model: run_passes(model, (*general_passes(), *lowering_passes(target)))


@pytest.mark.parametrize("size", [1, 2, 101, 103])
@pytest.mark.parametrize("text", [EXPANDED, ATTENTION])
@pytest.mark.parametrize("target", [None, "onnx", "ort-cpu"])
def test_the_graph_computes_the_same_for_every_size_with_and_without_passes_in_between(
    text: str, target: str | None, size: int
) -> None:
    model = model_of(text)
    back = and_back(model, compiled_for(target)) if target else and_back(model)
    given = feeds(model, size)
    expected = run_model(runnable(model), given)
    for name, found in run_model(runnable(back), given).items():
        assert found.shape == expected[name].shape
        np.testing.assert_allclose(found, expected[name], rtol=1e-5, atol=1e-5)


def test_passes_see_static_shapes_and_inputs_and_outputs_get_their_symbol_back() -> None:
    model = model_of(EXPANDED)
    seen: list[str] = []
    back = and_back(model, lambda bound: seen.extend(str(value.shape) for value in bound.graph.inputs))
    assert seen == ["[101,4,8]", "[8,6]"]
    assert [str(value.shape) for value in (*back.graph.inputs, *back.graph.outputs)] == ["[n,4,8]", "[8,6]", "[n,6,6]"]


def test_the_stand_in_divides_no_size_of_the_graph() -> None:
    model = model_of("(float[n,101] x, float[206] w) => (float[n,101] y) { y = Neg(x) }")
    stand_in = bind_stand_in(model)
    assert stand_in is not None
    assert stand_in.size == 107


def test_a_reshape_needs_no_size_and_a_repeated_constant_is_stored_once() -> None:
    back = and_back(model_of(EXPANDED), compiled_for("onnx"))
    shapes = [node for node in back.graph if node.op_type == "Shape"]
    assert len(shapes) == 1
    reshaped = [constant_array(node.inputs[1]) for node in back.graph if node.op_type == "Reshape"]
    assert all(shape is not None and -1 in shape for shape in reshaped)
    assert not any(dim == 101 for value in back.graph.initializers.values() for dim in value.shape or ())


def test_a_constant_that_was_expanded_is_stored_once_again() -> None:
    text = """(float[n,2] x) => (float[n,4] y) <float[1,2] one = {3.0, 4.0}, int64[1] two = {2}> {
        n = Shape <start = 0, end = 1> (x)
        to = Concat <axis = 0> (n, two)
        ones = Expand(one, to)
        y = Concat <axis = 1> (ones, x)
    }"""

    def folded(model: ir.Model) -> None:
        run_passes(model, general_passes())
        assert not any(node.op_type == "Expand" for node in model.graph)  # a constant of 101 rows

    back = and_back(model_of(text), folded)
    assert [line.split(" = ")[1].split("(")[0] for line in body_of(back)] == ["Shape", "Concat", "Expand", "Concat"]
    found = run_model(back, {"x": np.ones((3, 2), np.float32)})
    np.testing.assert_array_equal(found["y"], [[3, 4, 1, 1]] * 3)


def test_a_graph_without_a_symbol_is_left_alone() -> None:
    model = model_of("(float[2,4] x) => (float[2,4] y) { y = Neg(x) }")
    assert bind_stand_in(model) is None


# What is refused


def test_two_symbols_are_refused() -> None:
    model = model_of("(float[n,m] x) => (float[n,m] y) { y = Neg(x) }")
    with pytest.raises(StandInError, match="has the symbolic dimensions n, m; one is allowed: give the others a size"):
        bind_stand_in(model)


def test_a_number_that_is_made_of_the_size_is_refused() -> None:
    """A mean over the prompts, say: 1/n would become 1/101."""
    model = model_of(
        """(float[n,2] x) => (float[n,2] y) {
            n = Shape <start = 0, end = 1> (x)
            wide = Cast <to = 1> (n)
            y = Div(x, wide)
        }"""
    )
    with pytest.raises(StandInError) as caught:
        bind_stand_in(model)
    assert "(Cast) computes with a size that hangs on the symbolic dimension 'n' (or may)" in str(caught.value)
    assert "allowed are shapes made of it (Reshape, Expand)" in str(caught.value)


def test_a_size_of_the_fixed_dimensions_may_be_computed_with() -> None:
    model = model_of(
        """(float[n,2] x) => (float[n,2] y) {
            two = Shape <start = 1, end = 2> (x)
            wide = Cast <to = 1> (two)
            y = Div(x, wide)
        }"""
    )
    assert bind_stand_in(model) is not None


def test_a_constant_that_differs_along_the_symbol_is_refused() -> None:
    model = model_of("(float[n,2] x) => (float[n,2] y) { y = Neg(x) }")

    def numbered(bound: ir.Model) -> None:
        value = add_initializer(bound.graph, "rows", np.arange(202, dtype=np.float32).reshape(101, 2))
        node = bound.graph[0]
        bound.graph.insert_before(node, ir.node("Add", [node.inputs[0], value], name="add"))
        node.replace_input_with(0, bound.graph[0].outputs[0])

    with pytest.raises(StandInError, match=r"constant 'rows' of shape \[101, 2\] hangs on the symbolic dimension 'n'"):
        and_back(model, numbered)


def test_a_bound_that_hangs_on_the_symbol_is_refused() -> None:
    model = model_of("(float[n,2] x) => (float[n,2] y) { y = Neg(x) }")

    def cut(bound: ir.Model) -> None:
        bounds = [add_initializer(bound.graph, "bound", np.array([number], np.int64)) for number in (0, 101, 0)]
        node = bound.graph[0]
        part = ir.node("Slice", [node.inputs[0], *bounds], name="cut")
        bound.graph.insert_before(node, part)
        node.replace_input_with(0, part.outputs[0])

    with pytest.raises(StandInError, match=r"input 2 of node 'cut' \(Slice\) is \[101\], which hangs on"):
        and_back(model, cut)


def test_a_square_of_the_symbol_is_refused() -> None:
    model = model_of(
        """(float[n,2] x) => (float[m,2] y) <float[1,2] one = {1.0, 2.0}, int64[1] two = {2}> {
            n = Shape <start = 0, end = 1> (x)
            square = Mul(n, n)
            to = Concat <axis = 0> (square, two)
            y = Expand(one, to)
        }"""
    )
    with pytest.raises(StandInError, match="a size is a multiple of the symbolic dimension 'n' squared"):
        and_back(model)


def test_a_multiple_of_the_symbol_is_written_as_one() -> None:
    model = model_of(
        """(float[n,2] x) => (float[m,2] y) <float[1,2] one = {1.0, 2.0}, int64[1] two = {2}> {
            n = Shape <start = 0, end = 1> (x)
            twice = Mul(n, two)
            to = Concat <axis = 0> (twice, two)
            y = Expand(one, to)
        }"""
    )
    found = run_model(and_back(model), {"x": np.zeros((3, 2), np.float32)})
    assert found["y"].shape == (6, 2)
