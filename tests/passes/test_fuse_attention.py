from __future__ import annotations

import logging

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.evaluation import run_model
from samonnx.passes.fuse_attention import FuseAttention, attention_sizes, near_misses
from samonnx.passes.interface import PassDeclinedError
from samonnx.passes.lower.onnx import LowerOnnx
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.graph_text import body_of

PLAIN = """(float[2,2,5,4] q, float[2,2,7,4] k, float[2,2,7,3] v) => (float[2,2,5,3] y) <float s = {0.5}> {
    t = Transpose <perm = [0, 1, 3, 2]> (k)
    l = MatMul(q, t)
    d = Mul(l, s)
    p = Softmax <axis = -1> (d)
    y = MatMul(p, v)
}"""


def fused(text: str) -> ir.Model:
    model = typed(text)
    assert FuseAttention()(model).modified
    return model


def scale_of(model: ir.Model) -> float:
    return next(node for node in model.graph if node.op_type == "Attention").attributes["scale"].as_float()


def test_five_nodes_become_one() -> None:
    model = fused(PLAIN)
    assert body_of(model) == ["y = Attention(q, k, v)"]
    assert scale_of(model) == 0.5
    assert not FuseAttention()(model).modified


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    on_q=st.booleans(),
    on_k=st.sampled_from(["", "before", "after"]),
    on_logits=st.sampled_from(["", "Mul(l, s)", "Mul(s, l)", "Div(l, s)"]),
    mask=st.sampled_from(["", "m1", "m2", "m3", "where", "inverted"]),
    key=st.sampled_from(["swapped", "given", "from tokens"]),
    rank=st.sampled_from([3, 4]),
    sizes=st.tuples(*[st.integers(1, 6)] * 4),
    seed=st.integers(0, 99),
)
def test_every_order_of_scales_masks_and_transposes_computes_the_same(
    dtype: str, on_q: bool, on_k: str, on_logits: str, mask: str, key: str, rank: int, sizes: tuple[int, ...], seed: int
) -> None:
    queries, keys, channels, values = sizes
    lead = "2,3" if rank == 4 else "6"
    swap = "0, 1, 3, 2" if rank == 4 else "0, 2, 1"
    masks = {
        "m1": f"{queries},{keys}",
        "m2": f"{'1,1,' if rank == 4 else '1,'}1,{keys}",
        "m3": f"{lead},{queries},{keys}",
    }
    lines = ["a = Mul(q, s)" if on_q else "a = Identity(q)"]
    if key == "swapped":
        lines += [
            "k1 = Mul(k, s)" if on_k == "before" else "k1 = Mul(k, one)",
            f"k2 = Transpose <perm = [{swap}]> (k1)",
        ]
        shape = f"{lead},{keys},{channels}"
    elif key == "from tokens" and rank == 4:
        lines += ["k2 = Transpose <perm = [0, 2, 3, 1]> (k)"]
        shape = f"2,{keys},3,{channels}"
    else:
        lines += ["k2 = Mul(k, one)"]
        shape = f"{lead},{channels},{keys}"
    lines += ["b = Mul(s, k2)" if on_k == "after" else "b = Div(k2, one)", "l = MatMul(a, b)"]
    lines += [f"d = {on_logits}" if on_logits else "d = Mul(l, one)"]
    masked = {"": "e = Mul(d, one)", "where": "e = Where(c, d, inf)", "inverted": "e = Where(c, inf, d)"}
    lines += [masked.get(mask, "e = Add(m, d)"), "p = Softmax(e)", "y = MatMul(p, v)"]
    text = (
        f"({dtype}[{lead},{queries},{channels}] q, {dtype}[{shape}] k, {dtype}[{lead},{keys},{values}] v,"
        f" {dtype}[{masks.get(mask, '1')}] m, bool[{queries},{keys}] c, {dtype}[1] inf)"
        f" => ({dtype}[{lead},{queries},{values}] y)"
        f" <{dtype} s = {{0.5}}, {dtype} one = {{1}}> {{ {' '.join(lines)} }}"
    )
    model = typed(text, "inf")
    fill = model.graph.initializers["inf"]
    number = np.float32(-np.inf if seed % 2 else -1e30)
    fill.const_value = ir.tensor(np.full(1, number, np.float32 if dtype == "float" else np.float64), name="inf")
    feeds = random_feeds(model, seed)
    if mask == "inverted":
        feeds["c"] = ~feeds["c"]
    wanted = reference(model, feeds)
    assert FuseAttention(expected=1)(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]
    if dtype == "float":
        LowerOnnx()(model)
        assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_torchs_square_roots_of_the_scale_multiply_to_it() -> None:
    text = PLAIN.replace("l = MatMul(q, t)", "qs = Mul(q, r) ts = Mul(t, r) l = MatMul(qs, ts)")
    text = text.replace("d = Mul(l, s)", "").replace("p = Softmax <axis = -1> (d)", "p = Softmax(l)")
    model = fused(text.replace("float s = {0.5}", "float r = {0.70710678}"))
    assert body_of(model) == ["y = Attention(q, k, v)"]
    assert scale_of(model) == pytest.approx(0.5, abs=1e-7)


def test_a_transpose_from_token_major_keys_is_composed_with_the_swap() -> None:
    text = PLAIN.replace("float[2,2,7,4] k", "float[2,7,2,4] k").replace("[0, 1, 3, 2]", "[0, 2, 3, 1]")
    model = fused(text)
    assert list(model.graph[0].attributes.get_ints("perm", ())) == [0, 2, 1, 3]
    assert [node.op_type for node in model.graph] == ["Transpose", "Attention"]


def test_attention_traced_from_sdpa_is_left() -> None:
    model = typed("(float[1,1,3,4] q) => (float[1,1,3,4] y) { y = Attention(q, q, q) }")
    assert not FuseAttention()(model).modified


REFUSALS = [
    ("another softmax axis", "axis = -1", "axis = 2", "its axis is 2, expected the last of 4"),
    ("scores read elsewhere", "p = Softmax", "z = Neg(d) p = Softmax", "'d' is read elsewhere too"),
    ("weights read elsewhere", "y = MatMul(p, v)", "z = Neg(p) y = MatMul(p, v)", "'p' is read elsewhere too"),
    ("a scale that is no constant", "Mul(l, s)", "Mul(l, u)", "is not one constant number"),
    ("a scale per key", "Mul(l, s)", "Mul(l, w7)", "is not one constant number"),
    ("a scale after the mask", "d = Mul(l, s)", "e = Add(l, m) d = Mul(e, s)", "logits come from Add"),
    ("a guard behind the softmax", "y = MatMul(p, v)", "g = Where(c, p, s) y = MatMul(g, v)", "operand 1 of Where"),
    ("weights on the right", "y = MatMul(p, v)", "y = MatMul(x, p)", "operand 1 of MatMul"),
    ("a finite fill", "p = Softmax <axis = -1> (d)", "e = Where(c, d, s) p = Softmax <axis = -1> (e)", "fills in 0.5"),
    ("a fill that varies", "p = Softmax <axis = -1> (d)", "e = Where(c, d, l2) p = Softmax(e)", "not one constant"),
    ("a mask that widens", "d = Mul(l, s)", "d = Add(l, big)", "does not broadcast to the logits"),
    ("two products added", "d = Mul(l, s)", "l2 = MatMul(q, t) d = Add(l, l2)", "2 operands of the sum"),
    ("no product", "l = MatMul(q, t)", "l = Identity(m)", "come from Identity"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "old", "new", "reason"), REFUSALS)
def test_it_declines_and_says_why(what: str, old: str, new: str, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    text = PLAIN.replace(old, new)
    assert text != PLAIN
    extra = ", float[] u, float[2,2,5,7] m, bool[2,2,5,7] c, float[2,2,3,5] x, float[3,2,2,5,7] big"
    text = text.replace("v)", f"v{extra})", 1).replace(
        "float s = {0.5}", "float s = {0.5}, float[7] w7 = {1,2,3,4,5,6,7}"
    )
    text = text.replace("e = Where(c, d, l2)", "l2 = Neg(m) e = Where(c, d, l2)")
    if "MatMul(x, p)" in new:
        text = text.replace("float[2,2,5,3] y", "float[2,2,3,7] y")
    if "big)" in new:
        text = text.replace("float[2,2,5,3] y", "float[3,2,2,5,3] y")
    model = typed(text)
    before = ir.to_onnx_text(model)
    with caplog.at_level(logging.INFO):
        assert not FuseAttention()(model).modified, what
    assert reason in caplog.text
    assert [reason in miss.reason for miss in near_misses(model)] == [True]
    assert ir.to_onnx_text(model) == before


def test_grouped_heads_are_declined() -> None:
    text = PLAIN.replace("float[2,2,7,4] k", "float[2,1,7,4] k")
    assert "equal batch and heads" in near_misses(typed(text))[0].reason


def test_a_wrong_number_of_fusions_is_an_error_with_the_near_misses() -> None:
    model = typed(PLAIN.replace("axis = -1", "axis = 2"))
    with pytest.raises(PassDeclinedError, match=r"0 fusions, expected 1; near misses:\n.*its axis is 2"):
        FuseAttention(expected=1)(model)


def test_a_scaled_query_that_others_read_stays_for_them() -> None:
    text = PLAIN.replace("l = MatMul(q, t)", "a = Mul(q, s) l = MatMul(a, t)").replace("=> (", "=> (float[2,2,5,4] a, ")
    model = fused(text)
    assert body_of(model) == ["a = Mul(q, s)", "y = Attention(q, k, v)"]
    assert scale_of(model) == 0.25


def test_half_precision_and_old_opsets_are_left_alone() -> None:
    """In float16 a scale that moves rounds elsewhere; before opset 23 there is no Attention to write."""
    model = typed(PLAIN.replace("float[", "float16[").replace("float s = {0.5}", "float16 s = {14336}"))
    assert not FuseAttention()(model).modified
    assert "its dtype is FLOAT16: in half precision a moved scale rounds elsewhere" in near_misses(model)[0].reason
    old = typed(PLAIN)
    old.opset_imports[""] = 22
    assert not FuseAttention()(old).modified
    assert attention_sizes(old) == ((5, 7),)
