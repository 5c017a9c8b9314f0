from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.graph_values import replace_value
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.phase_layout import PhaseMap, PhaseWriter, from_phases
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import largest_error, random_feeds, reference, typed


def written(model: ir.Model, count: int) -> list[PhaseMap | None]:
    """What the first `count` nodes become, from the input `x` on; the last is laid out in place of its node's."""
    build = NodeBuilder(model.graph, "new", None)
    data = next(value for value in model.graph.inputs if value.name == "x")
    maps: dict[ir.Value, PhaseMap] = {}
    writer = PhaseWriter(build, maps)
    start = writer.start(data)
    assert start is not None
    maps[data] = start
    found = []
    for node in list(model.graph)[:count]:
        made = writer.write(node)
        if made is not None:
            maps[node.outputs[0]] = made
        found.append(made)
    if found[-1] is not None:
        replace_value(model.graph, model.graph[count - 1].outputs[0], from_phases(build, found[-1]))
    return found


@settings(max_examples=30, deadline=None)
@given(
    batch=st.integers(1, 2),
    grid=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    factors=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_tiles_of_tiles_are_laid_out_as_they_were(
    batch: int, grid: tuple[int, int], factors: list[int], seed: int
) -> None:
    weights = [f"double[2,2,{k},{k}] w{at}" for at, k in enumerate(factors)]
    body = [
        f"y{at} = ConvTranspose <strides = [{k}, {k}]> ({f'y{at - 1}' if at else 'x'}, w{at}, b)"
        for at, k in enumerate(factors)
    ]
    last = f"y{len(factors) - 1}"
    model = typed(
        f"(double[{batch},2,{grid[0]},{grid[1]}] x, {', '.join(weights)}, double[2] b)"
        f" => (double[a,c,d,e] {last}) {{ {' '.join(body)} }}",
        *(f"w{at}" for at in range(len(factors))), "b", seed=seed,
    )  # fmt: skip
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    made = written(model, len(factors))[-1]
    assert made is not None
    assert made.factors == tuple(factors)
    assert made.shape == wanted[last].shape
    assert largest_error(wanted, reference(model, feeds)) <= 1e-12


OPERANDS = (
    "double[2,3,2,5] x, double[3,3,2,2] w, double[3] b, double[2,3,4,10] map, double[1,1,4,10] one, double[4,10] bare,"
    " double[2,3,1,1] each, double[3,1,1] c, double[1,3,1,1] given, double scalar, double[4,3,1,1] v, double[4] vb,"
    " double[4,3] rows, double[2,4,3] lots, double[1,4,3] same, double[3] row, double[1,1,4,1] part,"
    " double[4,3,3,3] v3, double[3,1,2,3] w23, double[3,1,3,3] w3, double[1,3,4,10] whole, double[40,2] wide,"
    " double[4,4] square, double[5,2,3,4,10] five, double[3,3,3,3] w33"
)
CONSTANTS = (
    "int64[1] channel = {1}, int64[1] minus = {-3}, int64[2] space = {2, 3}, int64[3] flat = {2, 3, 40},"
    " int64[4] back = {2, 4, 4, 10}, int64[4] turned = {2, 3, 10, 4}, int64[1] first = {0}, int64 two = {2}"
)
WEIGHTS = ("w", "w33", "b", "c", "v", "vb", "v3", "w23", "w3", "scalar")


def region(body: str) -> ir.Model:
    """A transposed convolution `t` [2, 3, 4, 10] of a 2 x 5 grid, and then `body`, which ends in `y`."""
    text = f"({OPERANDS}) => (double[] y) <{CONSTANTS}> {{ t = ConvTranspose <strides = [2, 2]> (x, w, b) {body} }}"
    return typed(text, *WEIGHTS)


@pytest.mark.parametrize(
    "body",
    [
        *(f"y = {name}(t)" for name in ("Relu", "Tanh", "Sigmoid", "Neg", "Exp", "Abs", "Identity", "Softplus", "Erf")),
        "a = Abs(t) y = Sqrt(a)",
        "y = Gelu(t)",
        'y = Gelu <approximate = "tanh"> (t)',
        *(f"y = {name}(t, t)" for name in ("Add", "Sub", "Mul", "Div")),
        *(f"y = Sub(t, {name})" for name in ("map", "one", "bare", "each", "c", "given", "scalar", "whole")),
        *(f"y = Sub({name}, t)" for name in ("map", "one", "bare", "each", "c", "given", "scalar")),
        "y = Pow(t, two)",
        "m = ReduceMean(t, channel) y = Sub(t, m)",
        "m = ReduceMax(t, minus) n = ReduceMin(t, channel) y = Div(m, n)",
        "y = Conv(t, v, vb)",
        "y = Conv(t, v)",
        "f = Reshape(t, flat) p = MatMul(rows, f) y = Reshape(p, back)",
        "f = Reshape(t, flat) p = MatMul(lots, f) y = Reshape(p, back)",
        "f = Reshape(t, flat) y = MatMul(same, f)",
        "f = Reshape(t, flat) g = Relu(f) y = ReduceSum(g, channel)",
    ],
)
def test_what_looks_at_one_pixel_at_a_time_is_kept_by_phase(body: str) -> None:
    model = region(body)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    count = len(model.graph)
    made = written(model, count)
    assert None not in made
    last = made[-1]
    assert last is not None
    assert last.shape == wanted["y"].shape
    assert largest_error(wanted, reference(model, feeds)) <= 1e-12


def test_every_value_is_made_with_its_type_and_shape() -> None:
    model = region("n = Add(t, map) m = ReduceMean(n, channel) s = Sub(n, m) f = Reshape(s, flat) y = MatMul(lots, f)")
    replaced = list(model.graph)
    written(model, len(replaced))
    model.graph.remove(replaced, safe=True)
    values = [value for node in model.graph for value in node.outputs]
    found = [(value.type, value.shape) for value in values]
    for value in values:
        value.type = value.shape = None
    infer_shapes(model)
    assert found == [(value.type, value.shape) for value in values]


@pytest.mark.parametrize(
    "body",
    [
        "y = Softmax <axis = 1> (t)",
        "y = Transpose <perm = [0, 1, 3, 2]> (t)",
        "y = Add(t, part)",
        "y = ReduceMean(t, space)",
        "y = ReduceMean <keepdims = 0> (t, channel)",
        "y = ReduceMean(t)",
        "y = ReduceMean(t, first)",
        "y = Conv <pads = [1, 1, 1, 1]> (t, v3)",
        "y = Conv <strides = [2, 2]> (t, v)",
        "y = ConvTranspose <strides = [2, 2]> (t, w3)",
        "y = ConvTranspose <strides = [2, 3]> (t, w23)",
        "y = Reshape(t, turned)",
        "y = MatMul(square, t)",
        "y = Add(t, five)",
    ],
)
def test_what_looks_at_several_pixels_is_not(body: str) -> None:
    assert written(region(body), 2)[1] is None


@pytest.mark.parametrize(
    "body", ["y = MatMul(row, f)", "y = MatMul(f, wide)", "y = Add(f, f)", "y = Reshape(f, turned)"]
)
def test_what_does_not_keep_rows_of_pixels_apart_is_not(body: str) -> None:
    assert written(region(f"f = Reshape(t, flat) {body}"), 3)[2] is None


def test_maps_of_equal_size_whose_tiles_are_nested_otherwise_stay_apart() -> None:
    """Thirds of halves and halves of thirds: a pixel has other phases."""
    two, three = "ConvTranspose <strides = [2, 2]>", "ConvTranspose <strides = [3, 3]>"
    body = f"m = {two} (t, w) n = {three} (m, w33) o = {three} (t, w33) p = {two} (o, w) y = Sub(n, p)"
    made = written(region(body), 6)
    assert made[:-1].count(None) == 0
    assert made[-1] is None
