from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.evaluation import run_model
from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.lower.opset import LowerOpset
from samonnx.passes.lower.rotary import LowerRotary
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.rotary_graphs import ANY_DTYPE, MEMORY_WEIGHTS, dims, memory_attention, operators, rotation

HEADS = """({dtype}[{b}, {t}, {w}] x, {dtype}[{b}, {h}, {t}, 3] v, {dtype}[{w}, {w}] wq, {dtype}[{w}, {w}] wk,
    {dtype}[{t}, {half}] c, {dtype}[{t}, {half}] s) => ({dtype}[{b}, {h}, {t}, 3] y) {{
    split = Constant <value = int64[4] {{{b}, {t}, {h}, {d}}}> ()
    q0 = MatMul(x, wq)
    q1 = Reshape(q0, split)
    q2 = Transpose <perm = [0, 2, 1, 3]> (q1)
    {turned_q}
    k0 = MatMul(x, wk)
    k1 = Reshape(k0, split)
    k2 = Transpose <perm = [0, 2, 1, 3]> (k1)
    {turned_k}
    y = Attention(q, k, v)
}}"""


def heads(dtype: str, batch: int, count: int, tokens: int, half: int) -> str:
    shape = (batch, count, tokens, 2 * half)
    turned_q, turned_k = rotation("q2", "q", shape), rotation("k2", "k", shape)
    return HEADS.format(
        dtype=dtype, b=batch, h=count, t=tokens, d=2 * half, w=2 * half * count, half=half,
        turned_q=turned_q, turned_k=turned_k,
    )  # fmt: skip


def test_queries_and_keys_of_one_head_become_halves() -> None:
    model = typed(memory_attention("float", 1, 2, 5, 3), *MEMORY_WEIGHTS)
    ANY_DTYPE(model)
    assert LowerRotary()(model).modified
    found = operators(model)
    assert found.count("MatMul") == 5  # two halves of Q, two of K, the pointers
    assert found.count("Mul") == 8
    assert {"RotaryEmbedding", "Gather", "Split"}.isdisjoint(found)
    attention = next(node for node in model.graph if node.op_type == "Attention")
    assert str(attention.inputs[1].shape) == "[1,1,13,4]"  # type: ignore[union-attr]
    assert not LowerRotary()(model).modified


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    objects=st.integers(1, 3),
    slots=st.integers(1, 3),
    cells=st.integers(1, 5),
    pointers=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_channels_of_queries_and_keys_permuted_alike_change_nothing(
    dtype: str, objects: int, slots: int, cells: int, pointers: int, seed: int
) -> None:
    model = typed(memory_attention(dtype, objects, slots, cells, pointers), *MEMORY_WEIGHTS, seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    assert ANY_DTYPE(model).modified
    assert LowerRotary()(model).modified
    assert "RotaryEmbedding" not in operators(model)
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


@settings(max_examples=30, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    batch=st.integers(1, 2),
    count=st.integers(2, 4),
    tokens=st.integers(1, 5),
    half=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_several_heads_turn_by_a_swap_matrix(
    dtype: str, batch: int, count: int, tokens: int, half: int, seed: int
) -> None:
    model = typed(heads(dtype, batch, count, tokens, half), "wq", "wk", "c", "s", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    assert ANY_DTYPE(model).modified
    assert LowerRotary()(model).modified
    assert operators(model).count("MatMul") == 4
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


def test_doubled_tables_and_the_swap_matrix_are_stored_once() -> None:
    model = typed(heads("float", 2, 3, 5, 2), "wq", "wk", "c", "s")
    ANY_DTYPE(model)
    LowerRotary()(model)
    crossed = [node for node in model.graph if node.op_type == "Mul"]
    assert len({id(value) for node in crossed for value in node.inputs[1:]}) == 2
    swaps = [node.inputs[1] for node in model.graph if node.op_type == "MatMul" and "Rotary" in str(node.name)]
    assert len(swaps) == 2
    assert swaps[0] is swaps[1]
    assert swaps[0] is not None
    assert swaps[0].const_value is not None
    np.testing.assert_array_equal(swaps[0].const_value.numpy()[:2, :2], [[0, 1], [-1, 0]])


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("queries that others read", "q = Unsqueeze(q2, one)", "q = Unsqueeze(q2, one) z = Neg(q2)"),
        ("an activation behind the pointers", "p1 = Add(p0, bk)", "p2 = Add(p0, bk) p1 = Relu(p2)"),
        ("a sign behind the pointers", "p1 = Add(p0, bk)", "p2 = Add(p0, bk) p1 = Neg(p2)"),
    ],
)
def test_beyond_moves_the_channels_stay_in_place(what: str, old: str, new: str) -> None:
    text = memory_attention("float", 1, 2, 5, 3)
    assert text.count(old) == 1
    text = text.replace(old, new)
    if "z = Neg" in new:
        text = text.replace("[1, 1, 5, 2] y)", "[1, 1, 5, 2] y, float[1, 5, 4] z)")
    model = typed(text, *MEMORY_WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    ANY_DTYPE(model)
    assert LowerRotary()(model).modified
    assert "Sub" not in operators(model), what  # both turn by the swap matrix
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_queries_that_objects_share_are_permuted_before_they_are_repeated() -> None:
    text = memory_attention("float", 2, 2, 5, 3)
    text = text.replace("float[2, 5, 6] x", "float[1, 5, 6] x").replace("int64[3] {2, 5, 4}", "int64[3] {1, 5, 4}", 1)
    text = text.replace("int64[4] {2, 5, 2, 2}", "int64[4] {1, 5, 2, 2}", 1)
    text = text.replace("q = Unsqueeze(q2, one)", "q3 = Expand(q2, two) q = Unsqueeze(q3, one)").replace(
        "int64[1] one = {1}>", "int64[1] one = {1}, int64[3] two = {2, 5, 4}>"
    )
    model = typed(text, *MEMORY_WEIGHTS)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    ANY_DTYPE(model)
    LowerRotary()(model)
    assert operators(model).count("Mul") == 8  # four for Q, four for K
    assert "Expand" in operators(model)
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_a_rotation_of_joined_projections_turns_by_the_swap_matrix() -> None:
    text = f"""(float[1, 5, 6] x, float[1, 2, 3] m, float[1, 3, 3] n, float[1, 1, 5, 2] v, float[6, 4] wq,
        float[3, 4] wk, float[5, 2] c, float[5, 2] s) => (float[1, 1, 5, 2] y) <int64[1] one = {{1}}> {{
        q0 = MatMul(x, wq)
        {rotation("q0", "q2", (1, 5, 4))}
        q = Unsqueeze(q2, one)
        k0 = MatMul(m, wk)
        k1 = MatMul(n, wk)
        k2 = Concat <axis = 1> (k0, k1)
        {rotation("k2", "k3", (1, 5, 4))}
        k = Unsqueeze(k3, one)
        y = Attention(q, k, v)
    }}"""
    model = typed(text, "wq", "wk", "c", "s")
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    ANY_DTYPE(model)
    assert LowerRotary()(model).modified
    assert "Sub" not in operators(model)
    assert largest_error(wanted, reference(model, feeds)) <= 1e-5


def test_after_it_the_graph_fits_an_older_opset_and_runs() -> None:
    model = typed(memory_attention("float", 2, 2, 5, 3), *MEMORY_WEIGHTS)
    feeds = random_feeds(model, 3)
    wanted = reference(model, feeds)
    ANY_DTYPE(model)
    for pass_ in (LowerRotary(), LowerOnnx(), LowerOpset()):
        pass_(model)
    assert model.opset_imports[""] == 21
    assert largest_error(wanted, run_model(model, feeds)) <= 1e-5


def test_a_rotation_of_halves_is_left() -> None:
    shape = dims((1, 2, 3, 4))
    model = typed(
        f"(float[{shape}] x, float[3, 2] c, float[3, 2] s) => (float[{shape}] y) <int64[1, 3] p = {{0, 1, 2}}>"
        " { y = RotaryEmbedding <interleaved = 0> (x, c, s, p) }",
        "c",
        "s",
    )
    assert isinstance(model, ir.Model)
    assert not LowerRotary()(model).modified
