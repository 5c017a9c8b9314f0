from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.fuse_linear_chain import FuseLinearChain
from samonnx.passes.graph_values import static_shape
from samonnx.passes.reassociate_products import ReassociateProducts
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed

MASKS = """({dtype}[{batch},{rows},{c}] a, {dtype}[{batch},{d},{h},{w}] x, {dtype}[{c},{d},1,1] m, {dtype}[{c}] b)
=> ({dtype}[{batch},{rows},{h},{w}] y)
<int64[3] flat = {{{batch}, {c}, -1}}, int64[4] map = {{{batch}, {rows}, {h}, {w}}}> {{
    p = Conv ({operands})
    f = Reshape (p, flat)
    q = MatMul (a, f)
    y = Reshape (q, map)
}}"""
SIZES = {"dtype": "float", "batch": 1, "rows": 3, "c": 16, "d": 16, "h": 9, "w": 8}
ONE = MASKS.format(**SIZES, operands="x, m, b")
ANY_BIAS = ReassociateProducts(multiply_adds_per_byte=0)


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    batch=st.integers(1, 2),
    rows=st.integers(1, 6),
    c=st.integers(1, 9),
    d=st.integers(1, 9),
    sides=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    with_bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_rows_meet_the_weights_before_the_pixels_where_that_is_less_work(
    dtype: str, batch: int, rows: int, c: int, d: int, sides: tuple[int, int], with_bias: bool, seed: int
) -> None:
    h, w = sides
    text = MASKS.format(
        dtype=dtype, batch=batch, rows=rows, c=c, d=d, h=h, w=w, operands="x, m, b" if with_bias else "x, m"
    )
    model = typed(text, "m", "b", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    before = graph_statistics(model).flops
    spent = rows * d * (c + h * w) + (rows * c if with_bias else 0)
    fires = spent < h * w * c * (d + rows)
    assert ANY_BIAS(model).modified == fires
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    assert not ANY_BIAS(model).modified
    assert graph_statistics(model).flops == (2 * batch * spent if fires else before)
    found = {value.name: static_shape(value) for node in model.graph for value in node.outputs}
    infer_shapes(model, forget=True)
    assert found == {value.name: static_shape(value) for node in model.graph for value in node.outputs}


def test_the_convolution_is_gone() -> None:
    model = typed(ONE, "m", "b")
    assert ANY_BIAS(model).modified
    assert operators(model) == ["Reshape", "MatMul", "Split", "MatMul", "Add", "Reshape"]
    model = typed(ONE.replace("x, m, b)\n", "x, m)\n"), "m", "b")
    assert ReassociateProducts()(model).modified
    assert operators(model) == ["Reshape", "MatMul", "MatMul", "Reshape"]


def test_layers_of_rows_share_the_pixels() -> None:
    text = ONE.replace("float[1,3,16] a", "float[2,1,3,16] a").replace("(float[1,3,9,8] y)", "(float[2,1,3,72] q)")
    model = typed(text.replace("y = Reshape (q, map)", ""), "m", "b")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert ANY_BIAS(model).modified
    assert operators(model) == ["Reshape", "MatMul", "Split", "MatMul", "Add"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_weights_and_bias_go_on_into_what_makes_the_rows() -> None:
    text = ONE.replace("(float[1,3,16] a,", "(float[1,3,16] a0, float[16,16] l, float[16] k,").replace(
        "p = Conv", "a1 = MatMul(a0, l) a = Add(a1, k) p = Conv"
    )
    model = typed(text, "m", "b", "l", "k")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert ANY_BIAS(model).modified
    assert FuseLinearChain()(model).modified
    assert sorted(operators(model)) == ["Add", "Add", "MatMul", "MatMul", "Reshape", "Reshape", "Split"]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_a_convolution_of_other_readers_stays_for_them_and_must_pay_without() -> None:
    shared = ONE.replace("f = Reshape", "z = Neg(p) f = Reshape")
    shared = shared.replace("(float[1,3,9,8] y)", "(float[1,3,9,8] y, float[1,16,9,8] z)")
    assert not ANY_BIAS(typed(shared, "m", "b")).modified
    narrow = shared.replace("float[1,16,9,8] x, float[16,16,1,1] m", "float[1,2,9,8] x, float[16,2,1,1] m")
    model = typed(narrow, "m", "b")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert ANY_BIAS(model).modified
    assert operators(model).count("Conv") == 1
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_adding_the_bias_to_many_rows_may_cost_more_than_is_saved() -> None:
    assert ANY_BIAS(typed(ONE, "m", "b")).modified
    many = ONE.replace("float[1,3,16] a", "float[1,12,16] a").replace("float[1,3,9,8] y", "float[1,12,9,8] y")
    many = many.replace("map = {1, 3,", "map = {1, 12,")
    assert ANY_BIAS(typed(many, "m", "b")).modified
    assert not ReassociateProducts()(typed(many, "m", "b")).modified


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("a weight that is an input", "(x, m, b)", "(x, u, b)"),
        ("an output in between", "(float[1,3,9,8] y)", "(float[1,3,9,8] y, float[1,16,9,8] p)"),
        ("a kernel", "float[16,16,1,1] m", "float[16,16,3,3] m"),
        ("groups", "p = Conv", "p = Conv <group = 2>"),
        ("an activation in between", "f = Reshape (p", "r = Relu(p) f = Reshape (r"),
        ("channels that move", "flat = {1, 16, -1}", "flat = {1, 8, -1}"),
        ("rows as many as pixels", "float[1,3,16] a", "float[1,999,16] a"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    text = ONE.replace(old, new)
    assert text != ONE
    text = text.replace("(float[1,3,16] a,", "(float[1,3,16] a, float[16,16,1,1] u,")
    if "3,3] m" in text:
        text = text.replace("p = Conv", "p = Conv <pads = [1,1,1,1]>")
    if "group" in text:
        text = text.replace("float[16,16,1,1] m", "float[16,8,1,1] m")
    if "8, -1" in text:
        text = text.replace("float[1,3,16] a", "float[1,3,8] a").replace("float[1,3,9,8] y", "float[1,3,9,16] y")
        text = text.replace("map = {1, 3, 9, 8}", "map = {1, 3, 9, 16}")
    if "999" in text:
        text = text.replace("float[16,16,1,1] m", "float[16,99,1,1] m").replace(
            "float[1,16,9,8] x", "float[1,99,9,8] x"
        )
        text = text.replace("float[1,3,9,8] y", "float[1,999,9,8] y").replace("map = {1, 3,", "map = {1, 999,")
    assert not ANY_BIAS(typed(text, "m", "b")).modified, what


def test_before_opset_13_split_takes_no_operand() -> None:
    model = typed(ONE)
    model.opset_imports[""] = 12
    assert not ANY_BIAS(model).modified
