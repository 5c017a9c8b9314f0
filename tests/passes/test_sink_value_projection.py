from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.evaluation import run_model
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.sink_value_projection import SinkValueProjection
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed

PLAIN = """(float[2,1,9,4] q, float[2,1,7,4] k, float[2,7,3] x, float[3,8] w, float[8] b) => (float[2,1,9,8] y)
<int64[1] one = {1}> {
    p = MatMul(x, w)
    s = Add(p, b)
    v = Unsqueeze(s, one)
    y = Attention(q, k, v)
}"""
MEMORY = """({dtype}[2,1,{queries},4] q, {dtype}[2,1,{keys},4] k, {dtype}[2,{slots},{cells},3] memory,
    {dtype}[2,{pointers},3] pointers, {dtype}[3,8] w, {dtype}[8] b, {dtype}[2,1,1,{keys}] m)
=> ({dtype}[2,1,{queries},8] y) <int64[3] tokens = {{2, -1, 8}}, int64[1] one = {{1}}> {{
    p0 = MatMul(memory, w)
    s0 = Add(b, p0)
    f0 = Reshape(s0, tokens)
    p1 = MatMul(pointers, w)
    s1 = Add(p1, b)
    all = Concat <axis = 1> (f0, s1)
    v = Unsqueeze(all, one)
    y = Attention <scale = 0.5> (q, k, v, m)
}}"""


def test_the_projection_moves_behind_the_attention() -> None:
    model = typed(PLAIN, "w", "b")
    assert SinkValueProjection()(model).modified
    live = [node.op_type for node in model.graph if node.outputs[0].uses() or node.outputs[0].is_graph_output()]
    assert live[-4:] == ["Reshape", "Attention", "MatMul", "Add"]
    attended = next(node for node in model.graph if node.op_type == "Attention")
    assert str(attended.outputs[0].shape) == "[2,1,9,3]"
    assert not SinkValueProjection()(model).modified


def test_fewer_operations_are_counted() -> None:
    model = typed(PLAIN, "w", "b")
    before = graph_statistics(model).flops
    SinkValueProjection()(model)
    dead = 2 * 2 * 7 * 3 * 8  # the old projection, left for eliminate_dead
    assert graph_statistics(model).flops - dead < before


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    queries=st.integers(1, 9),
    slots=st.integers(1, 4),
    cells=st.integers(1, 5),
    pointers=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_projected_memory_and_pointers_may_be_joined_first(
    dtype: str, queries: int, slots: int, cells: int, pointers: int, seed: int
) -> None:
    keys = slots * cells + pointers
    text = MEMORY.format(dtype=dtype, queries=queries, slots=slots, cells=cells, pointers=pointers, keys=keys)
    model = typed(text, "w", "b", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    if SinkValueProjection()(model).modified:
        attended = next(node for node in model.graph if node.op_type == "Attention").outputs[0]
        assert attended.shape is not None
        assert attended.shape[-1] == 3
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    if dtype == "float":
        LowerOnnx()(model)
        assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_layers_with_the_same_memory_share_the_joined_input() -> None:
    model = typed(
        """(float[1,1,9,4] q, float[1,1,9,4] k, float[1,5,3] x, float[1,4,3] z, float[3,8] w, float[3,8] w2)
        => (float[1,1,9,8] y0, float[1,1,9,8] y1) <int64[1] one = {1}> {
            p0 = MatMul(x, w)
            p1 = MatMul(z, w)
            a = Concat <axis = 1> (p0, p1)
            v0 = Unsqueeze(a, one)
            y0 = Attention(q, k, v0)
            p2 = MatMul(x, w2)
            p3 = MatMul(z, w2)
            c = Concat <axis = 1> (p2, p3)
            v1 = Unsqueeze(c, one)
            y1 = Attention(q, k, v1)
        }""",
        "w",
        "w2",
    )
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    SinkValueProjection()(model)
    values = [node.inputs[2] for node in model.graph if node.op_type == "Attention"]
    assert values[0] is values[1]
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_a_transpose_that_keeps_the_channels_is_a_move() -> None:
    model = typed(
        """(float[1,1,9,4] q, float[1,1,7,4] k, float[7,1,3] x, float[3,8] w) => (float[1,1,9,8] y)
        <int64[1] one = {1}> {
            p = MatMul(x, w)
            t = Transpose <perm = [1, 0, 2]> (p)
            v = Unsqueeze(t, one)
            y = Attention(q, k, v)
        }""",
        "w",
    )
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert SinkValueProjection()(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("wide inputs", "[3,8] w, float[8] b) => (float[2,1,9,8]", "[3,2] w, float[2] b) => (float[2,1,9,2]"),
        ("an activation in between", "v = Unsqueeze(s, one)", "r = Relu(s) v = Unsqueeze(r, one)"),
        ("a weight that is an input", "MatMul(x, w)", "MatMul(x, u)"),
        ("channels that move", "p = MatMul(x, w)", "t = MatMul(x, w) p = Reshape(t, s78)"),
        ("a projection of another reader", "s = Add(p, b)", "s = Add(p, b) z = Neg(p)"),
    ],
)  # fmt: skip
def test_it_declines(what: str, old: str, new: str) -> None:
    text = PLAIN.replace(old, new)
    assert text != PLAIN
    text = text.replace("float[3,8] w,", "float[3,8] w, float[3,8] u,").replace(
        "one = {1}>", "one = {1}, int64[3] s78 = {2, 7, 8}>"
    )
    if "t = MatMul" in text:  # rows of 4 channels become rows of 8
        text = text.replace("float[2,7,3] x", "float[2,14,3] x").replace("float[3,8] w", "float[3,4] w")
    if "z = Neg" in text:
        text = text.replace("(float[2,1,9,8] y)", "(float[2,1,9,8] y, float[2,7,8] z)")
    model = typed(text, "w", "b")
    assert not SinkValueProjection()(model).modified, what


def test_several_heads_and_different_weights_stay() -> None:
    heads = """(float[1,2,9,4] q, float[1,7,3] x, float[3,16] w) => (float[1,2,9,8] y) <int64[4] split = {1, 7, 2, 8}> {
        p = MatMul(x, w)
        r = Reshape(p, split)
        v = Transpose <perm = [0, 2, 1, 3]> (r)
        y = Attention(q, q, v)
    }""".replace("q, q, v", "q, k, v").replace("float[1,7,3] x", "float[1,2,7,4] k, float[1,7,3] x")
    assert not SinkValueProjection()(typed(heads, "w")).modified
    text = MEMORY.format(dtype="float", queries=9, slots=2, cells=3, pointers=1, keys=7)
    other = text.replace("MatMul(pointers, w)", "MatMul(pointers, w2)").replace(
        "float[3,8] w,", "float[3,8] w, float[3,8] w2,"
    )
    assert not SinkValueProjection()(typed(other, "w", "w2", "b")).modified
