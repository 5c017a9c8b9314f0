"""Constant scales and shifts of channels go into the weights next to them, where that is exact, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.fold_affine import FoldAffine
from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.graph_text import body_of

NORMALIZED = """(float[1,4,5,6] x, float[4,1,1] s, float[3,4,3,3] w, float[3] g, float[3] b, float[3] m, float[3] v)
=> (float[1,3,5,6] y) {
    a = Mul(x, s)
    c = Conv <pads = [1, 1, 1, 1]> (a, w)
    y = BatchNormalization(c, g, b, m, v)
}"""
PROJECTED = """(float[2,5,4] x, float[4] s, float[4] d, float[4,3] w, float[3] b, float q) => (float[2,5,3] y) {
    t = Mul(s, x)
    a = Sub(t, d)
    p = MatMul(a, w)
    z = Add(b, p)
    y = Mul(z, q)
}"""
LAYERS = {
    "Conv": ("[2,4,6,7]", "[6,{inputs},{kernel},{kernel}]", "[6]", "[1,{channels},1,1]"),
    "ConvTranspose": ("[2,4,6,7]", "[4,6,{kernel},{kernel}]", "[6]", "[1,{channels},1,1]"),
    "MatMul": ("[2,5,4]", "[4,6]", "[6]", "[{channels}]"),
    "Gemm": ("[5,4]", "[6,4]", "[1,6]", "[{channels}]"),
}
"""Operator → shapes of its data, weights, bias, and of a constant with one number a channel."""
OPERATORS = [
    "{v} = Mul({x}, {c})",
    "{v} = Mul({c}, {x})",
    "{v} = Div({x}, {c})",
    "{v} = Add({c}, {x})",
    "{v} = Sub({x}, {c})",
    "{v} = Sub({c}, {x})",
    "{v} = BatchNormalization <epsilon = 0.125> ({x}, {g}, {b}, {c}, {p})",
]


def constants(model: ir.Model) -> dict[str, Array]:
    """By name."""
    return {name: array for name, v in model.graph.initializers.items() if (array := constant_array(v)) is not None}


def with_positive(model: ir.Model, *names: str) -> ir.Model:
    """The same model whose constants of these names are in 0.5 … and not random in sign."""
    for name in names:
        array = constants(model)[name]
        positive = np.abs(array) + array.dtype.type(0.5)
        model.graph.initializers[name].const_value = ir.tensor(positive, name=name)
    return model


def normalized(text: str = NORMALIZED, *inputs: str) -> ir.Model:
    """A model of a text with the names of `NORMALIZED`; those of `inputs` stay inputs."""
    names = [name for name in ("s", "w", "g", "b", "m", "v", "k") if f" {name}," in text or f" {name})" in text]
    return with_positive(typed(text, *(name for name in names if name not in inputs)), "v")


@settings(max_examples=60, deadline=None)
@given(
    layer=st.sampled_from(["Conv", "ConvTranspose", "MatMul", "Gemm"]),
    dtype=st.sampled_from(["float", "double"]),
    before=st.lists(st.sampled_from(OPERATORS[:-1]), max_size=2),
    after=st.lists(st.sampled_from(OPERATORS), max_size=3),
    uniform=st.booleans(),
    geometry=st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.sampled_from([1, 2])),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_chain_of_scales_and_shifts_gives_the_same_result(
    layer: str,
    dtype: str,
    before: list[str],
    after: list[str],
    uniform: bool,
    geometry: tuple[int, int, int, int],
    with_bias: bool,
    seed: int,
) -> None:
    kernel, stride, pad, group = geometry
    group = group if layer == "Conv" else 1  # ONNX's evaluator has no grouped transposed convolution
    pad = min(pad, kernel - 1)
    data, weight, bias, channel = LAYERS[layer]
    channel = "" if uniform else channel
    declared = [f"{dtype}{data} x", f"{dtype}{weight.format(inputs=4 // group, kernel=kernel)} w"]
    lines: list[str] = []
    last = "x"

    def apply(operator: str, channels: int) -> None:
        nonlocal last
        if "Batch" in operator and layer == "MatMul":
            return  # its channels are the last axis, not axis 1
        names = {name: f"{name}{len(lines)}" for name in "cgbp"} if "Batch" in operator else {"c": f"c{len(lines)}"}
        shape = f"[{channels}]" if "Batch" in operator else channel.format(channels=channels)
        declared.extend(f"{dtype}{shape} {name}" for name in names.values())
        lines.append(operator.format(x=last, v=f"v{len(lines)}", **names))
        last = f"v{len(lines) - 1}"

    for operator in before:
        apply(operator, 4)
    attributes = {"MatMul": "", "Gemm": "<alpha = 0.5, beta = 2.0, transB = 1>"}.get(
        layer, f"<group = {group}, strides = [{stride}, {stride}], pads = [{pad}, {pad}, {pad}, {pad}]>"
    )
    if with_bias and layer != "MatMul":
        declared.append(f"{dtype}{bias} bias")
    lines.append(f"v{len(lines)} = {layer} {attributes} ({last}, w{', bias' if 'bias' in declared[-1] else ''})")
    last = f"v{len(lines) - 1}"
    for operator in after:
        apply(operator, 6)
    shape = {4: "[n,c,h,w]", 3: "[n,t,c]", 2: "[n,c]"}[len(data.split(","))]
    text = f"({', '.join(declared)}) => ({dtype}{shape} {last}) {{\n" + "\n".join(lines) + "\n}"
    names = [value.split(" ")[1] for value in declared[1:]]
    model = with_positive(typed(text, *names, seed=seed), *(name for name in names if name.startswith("p")))
    feeds = random_feeds(model, seed)
    wanted, nodes = reference(model, feeds), len(model.graph)

    modified = FoldAffine()(model).modified
    assert modified == (len(model.graph) < nodes)
    if layer in ("Conv", "Gemm") and not pad:
        assert len(model.graph) == 1
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    assert not FoldAffine()(model).modified


def test_a_normalised_convolution_becomes_one_convolution_with_a_bias() -> None:
    model = normalized()
    feeds, flops = random_feeds(model, 0), graph_statistics(model).flops
    wanted = reference(model, feeds)
    model.graph.node(1).name = "layer"
    assert FoldAffine()(model).modified
    assert body_of(model) == ["y = Conv(x, layer/weight, layer/bias)"]
    assert static_shape(model.graph.outputs[0]) == (1, 3, 5, 6)
    assert graph_statistics(model).flops == flops
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_a_projection_takes_the_scale_of_its_input_its_bias_and_the_scale_of_queries() -> None:
    model = typed(PROJECTED, "s", "d", "w", "b", "q")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FoldAffine()(model).modified
    assert [node.op_type for node in model.graph] == ["MatMul", "Add"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    assert not FoldAffine()(model).modified


QUERIES = """(float[2,5,4] x, float[4,6] w, float[6] b, float k, float[3] c) => (float[2,2,5,3] y)
<int64[4] split = {2, 5, 2, 3}> {
    p = MatMul(x, w)
    a = Add(p, b)
    r = Reshape(a, split)
    t = Transpose <perm = [0, 2, 1, 3]> (r)
    y = Mul(t, k)
}"""


def test_the_scale_of_queries_goes_back_through_moves_into_their_projection() -> None:
    model = typed(QUERIES, "w", "b", "k", "c")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FoldAffine()(model).modified
    assert [node.op_type for node in model.graph] == ["MatMul", "Add", "Reshape", "Transpose"]
    assert [value.name for value in model.graph.outputs] == ["y"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5
    assert not FoldAffine()(model).modified


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("one number a channel", "Mul(t, k)", "Mul(t, c)"),
        ("another reader of a moved value", "Mul(t, k)", "Mul(t, k) z = Neg(t)"),
        ("an activation among the moves", "r = Reshape(a", "e = Relu(a) r = Reshape(e"),
        ("a padding among the moves", "y = Mul(t", "o = Pad(t, pads) y = Mul(o"),
    ],
)
def test_a_scale_behind_moves_stays(what: str, old: str, new: str) -> None:
    assert old in QUERIES
    text = QUERIES.replace(old, new).replace("2, 3}>", "2, 3}, int64[8] pads = {0, 0, 0, 0, 0, 0, 0, 0}>")
    if "z = " in new:
        text = text.replace("(float[2,2,5,3] y)", "(float[2,2,5,3] y, float[2,2,5,3] z)")
    model = typed(text, "w", "b", "k", "c")
    assert not FoldAffine()(model).modified, what


def test_a_number_without_channels_stays() -> None:
    text = "(float[1,4] x, float[4,1] w, float k) => (float y) { g = Gemm(x, w) s = Squeeze(g) y = Mul(s, k) }"
    assert not FoldAffine()(typed(text, "w", "k")).modified


def test_weights_are_composed_in_float64_and_rounded_once() -> None:
    model = typed(PROJECTED, "s", "d", "w", "b", "q")
    wide = {name: array.astype(np.float64) for name, array in constants(model).items()}
    FoldAffine()(model)
    matmul, add = model.graph
    weight, bias = constant_array(matmul.inputs[1]), constant_array(add.inputs[1])
    assert weight is not None
    assert bias is not None
    assert np.array_equal(weight, (wide["w"] * wide["s"][:, None] * wide["q"]).astype(np.float32))
    composed = ((-wide["d"]) @ wide["w"] + wide["b"]) * wide["q"]
    assert np.abs(bias - composed).max() <= np.spacing(np.abs(composed).max().astype(np.float32))


def test_the_same_graph_becomes_the_same_bytes() -> None:
    model = normalized()
    copy = model.clone()
    FoldAffine()(model)
    FoldAffine()(copy)
    assert ir.to_proto(model).SerializeToString(deterministic=True) == ir.to_proto(copy).SerializeToString(
        deterministic=True
    )


SHIFTED = "(float[1,4,5,6] x, float[4,1,1] s, float[3,4,3,3] w) => (float[n,c,h,v] y) { a = Add(x, s) y = Conv(a, w) }"


def test_a_shift_goes_into_a_convolution_without_pads_only() -> None:
    assert FoldAffine()(typed(SHIFTED, "s", "w")).modified
    padded = SHIFTED.replace("Conv(", "Conv <pads = [0, 0, 1, 0]> (")
    assert not FoldAffine()(typed(padded, "s", "w")).modified
    scaled = typed(padded.replace("Add", "Mul"), "s", "w")
    feeds = random_feeds(scaled, 0)
    wanted = reference(scaled, feeds)
    assert FoldAffine()(scaled).modified
    assert largest_error(wanted, reference(scaled, feeds)) <= 1e-5


def test_a_shift_by_zeros_goes_into_a_padded_convolution() -> None:
    model = typed(SHIFTED.replace("Conv(", "Conv <pads = [1, 1, 1, 1]> ("), "s", "w")
    model.graph.initializers["s"].const_value = ir.tensor(np.zeros((4, 1, 1), np.float32), name="s")
    assert FoldAffine()(model).modified
    assert len(model.graph) == 1


def test_a_shift_stays_before_a_transposed_convolution_whose_outputs_meet_different_taps() -> None:
    text = SHIFTED.replace("Conv(", "ConvTranspose(")
    assert FoldAffine()(typed(text.replace("[3,4,3,3]", "[4,3,1,1]"), "s", "w")).modified
    text = text.replace("[3,4,3,3]", "[4,3,2,2]")
    assert not FoldAffine()(typed(text, "s", "w")).modified
    assert not FoldAffine()(typed(text.replace("Transpose(", "Transpose <strides = [2, 2]> ("), "s", "w")).modified
    assert FoldAffine()(typed(text.replace("Add", "Mul"), "s", "w")).modified


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("another reader of the convolution", "y = Batch", "z = Neg(c) y = Batch"),
        ("a later reader of the convolution", "(c, g, b, m, v)", "(c, g, b, m, v) z = Neg(c)"),
        ("the convolution as an output", "(float[1,3,5,6] y)", "(float[1,3,5,6] y, float[1,3,5,6] c)"),
        ("an activation in between", "y = BatchNormalization(c,", "r = Relu(c) y = BatchNormalization(r,"),
        ("statistics of the batch", "y = BatchNormalization(", "y, n, o = BatchNormalization <training_mode = 1> ("),
        ("a parameter that is an input", "(c, g, b, m, v)", "(c, g, u, m, v)"),
        ("weights that are an input", "(a, w)", "(a, k)"),
        ("weights that another node reads", "c = Conv", "z = Conv <pads = [1, 1, 1, 1]> (x, w) c = Conv"),
        ("automatic padding", "pads = [1, 1, 1, 1]", 'auto_pad = "SAME_UPPER"'),
    ],
)  # fmt: skip
def test_a_normalization_stays(what: str, old: str, new: str) -> None:
    text = NORMALIZED.replace("a = Mul(x, s)", "a = Relu(x)")
    assert FoldAffine()(normalized(text)).modified
    assert old in text
    text = text.replace(old, new).replace("float[3] v)", "float[3] v, float[3] u, float[3,4,3,3] k)")
    if "z = " in new:
        text = text.replace("(float[1,3,5,6] y)", "(float[1,3,5,6] y, float[1,3,5,6] z)")
    assert not FoldAffine()(normalized(text, "k")).modified, what


@pytest.mark.parametrize(
    ("what", "shape", "node"),
    [
        ("one number a row", "[4,1]", "Mul(c, k)"),
        ("one number a pixel", "[6]", "Mul(c, k)"),
        ("one number an element", "[4,4,6]", "Mul(c, k)"),
        ("a larger output", "[2,4,1,1]", "Mul(c, k)"),
        ("a constant divided by the data", "[4,1,1]", "Div(k, c)"),
        ("a minimum", "[4,1,1]", "Min(c, k)"),
    ],
)
def test_other_operators_and_constants_that_do_not_go_by_channel_stay(what: str, shape: str, node: str) -> None:
    text = "(float[1,4,4,6] x, float[4,4,1,1] w, float{} k) => (float[n,c,h,v] y) {{ c = Conv(x, w) y = {} }}"
    assert FoldAffine()(typed(text.format("[4,1,1]", "Mul(c, k)"), "w", "k")).modified
    assert not FoldAffine()(typed(text.format(shape, node), "w", "k")).modified, what


@pytest.mark.parametrize("constant", [0.0, np.inf, np.nan, 1e-38])
def test_a_divisor_that_gives_no_finite_weights_stays(constant: float) -> None:
    text = "(float[5,4] x, float[4,3] w, float k) => (float[5,3] y) { c = Gemm(x, w) y = Div(c, k) }"
    model = typed(text, "w", "k")
    model.graph.initializers["w"].const_value = ir.tensor(np.full((4, 3), 1e3, np.float32), name="w")
    model.graph.initializers["k"].const_value = ir.tensor(np.float32(constant), name="k")
    assert not FoldAffine()(model).modified


def test_what_saves_no_node_stays() -> None:
    text = "(float[5,4] x, float[4] s, float[4,3] w, float[3] b) => (float[5,3] y) { %s }"
    assert not FoldAffine()(typed(text % "p = MatMul(x, w) y = Add(p, b)", "s", "w", "b")).modified
    assert not FoldAffine()(typed(text % "a = Sub(x, s) y = MatMul(a, w)", "s", "w", "b")).modified
    both = typed(text % "a = Sub(x, s) p = MatMul(a, w) y = Add(p, b)", "s", "w", "b")
    assert FoldAffine()(both).modified
    assert [node.op_type for node in both.graph] == ["MatMul", "Add"]


@pytest.mark.parametrize(
    "product",
    ["MatMul(w, c)", "Gemm <transA = 1> (c, w)", "MatMul(c, c)"],
)
def test_other_products_stay(product: str) -> None:
    text = "(float[4,4] x, float[4,4] w, float k) => (float[4,4] y) {{ c = Mul(x, k) y = {} }}"
    assert not FoldAffine()(typed(text.format(product), "w", "k")).modified
    assert FoldAffine()(typed(text.format("MatMul(c, w)"), "w", "k")).modified


def test_uniform_constants_that_broadcast_otherwise_go_back_right_behind_the_map() -> None:
    """Found by random graphs: a constant [1, 1, 1, 3], the same in all places, is none for each channel, but one for
    all; with no move between, what it scales is the map's own output."""
    text = """(float[1,2,3,3] x, float[1,2,1,1] w) => (float[1,1,3,3] y) <float[1,1,1,3] c = {0.5, 0.5, 0.5}> {
        a = Conv(x, w)
        y = Mul(a, c)
    }"""
    before, after = typed(text, "w"), typed(text, "w")
    assert FoldAffine()(after).modified
    assert [node.op_type for node in after.graph] == ["Conv"]
    feeds = random_feeds(after, 0)
    assert largest_error(reference(before, feeds), reference(after, feeds)) <= TOLERANCE["float"]


def test_two_uniform_constants_behind_a_move_go_back_together() -> None:
    text = """(float[2,4] x, float[4,6] w) => (float[2,2,3] y)
    <float s = {0.5}, float t = {3.0}, int64[3] n = {2, 2, 3}> {
        a = MatMul(x, w)
        r = Reshape(a, n)
        m = Mul(r, s)
        y = Mul(m, t)
    }"""
    before, after = typed(text, "w"), typed(text, "w")
    assert FoldAffine()(after).modified
    assert [node.op_type for node in after.graph] == ["MatMul", "Reshape"]
    feeds = random_feeds(after, 0)
    assert largest_error(reference(before, feeds), reference(after, feeds)) <= TOLERANCE["float"]
    after.clone()  # every value that an operand or an output names is in the graph
