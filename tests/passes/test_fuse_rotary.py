from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes import graph_statistics
from samonnx.passes.fuse_rotary import FuseRotary
from samonnx.passes.lower.rotary import LowerRotary
from tests.passes.attention_oracle import TOLERANCE, largest_error, random_feeds, reference, typed
from tests.passes.rotary_graphs import ANY_DTYPE, dims, operators, rotation

SHAPE = (2, 3, 5, 4)


def turned(shape: tuple[int, ...], final: tuple[int, ...] | None = None, dtype: str = "float") -> str:
    return f"""({dtype}[{dims(shape)}] x, {dtype}[{shape[-2]}, {shape[-1] // 2}] c,
        {dtype}[{shape[-2]}, {shape[-1] // 2}] s) => ({dtype}[{dims(final or shape)}] y) {{
        {rotation("x", "y", shape, final)}
    }}"""


def test_eleven_nodes_become_one_between_reshapes() -> None:
    model = typed(turned(SHAPE), "c", "s")
    assert FuseRotary()(model).modified
    assert operators(model) == ["Reshape", "RotaryEmbedding", "Reshape"]
    node = next(node for node in model.graph if node.op_type == "RotaryEmbedding")
    assert str(node.outputs[0].shape) == "[1,6,5,4]"
    assert not FuseRotary()(model).modified


def test_one_batch_of_groups_needs_no_reshape() -> None:
    model = typed(turned((1, 3, 5, 4)), "c", "s")
    FuseRotary()(model)
    assert operators(model) == ["RotaryEmbedding"]


@settings(max_examples=40, deadline=None)
@given(
    dtype=st.sampled_from(["float", "double"]),
    leading=st.lists(st.integers(1, 3), max_size=3),
    tokens=st.integers(1, 5),
    half=st.integers(1, 4),
    seed=st.integers(0, 99),
)
def test_any_leading_axes_turn_by_the_same_tables(
    dtype: str, leading: list[int], tokens: int, half: int, seed: int
) -> None:
    shape = (*leading, tokens, 2 * half)
    flat = (int(np.prod(shape[:-1])), 2 * half)
    model = typed(turned(shape, flat, dtype), "c", "s", seed=seed)
    feeds = random_feeds(model, seed)
    wanted = reference(model, feeds)
    assert ANY_DTYPE(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= TOLERANCE[dtype]


def test_the_tables_are_stored_once_for_all_layers_and_slots() -> None:
    two = f"""(float[1, 5, 4] q, float[1, 3, 5, 4] k, float[5, 2] c, float[5, 2] s)
    => (float[1, 5, 4] y, float[1, 15, 4] z) {{
        {rotation("q", "y", (1, 5, 4))}
        {rotation("k", "z", (1, 3, 5, 4), (1, 15, 4))}
    }}"""
    model = typed(two, "c", "s")
    FuseRotary()(model)
    first, second = (node for node in model.graph if node.op_type == "RotaryEmbedding")
    assert [value.name for value in first.inputs[1:3]] == ["c", "s"]  # type: ignore[union-attr]
    assert list(first.inputs[1:]) == list(second.inputs[1:])
    assert graph_statistics(model).constant_bytes < 2 * 5 * 2 * 4 + 5 * 8 + 200


@pytest.mark.parametrize(
    ("what", "old", "new"),
    [
        ("a sum with the other sign", "yd = Sub(yrc, yis)", "yd = Sub(yis, yrc)"),
        ("tables that are swapped in one half", "yic = Mul(yi, c)", "yic = Mul(yi, s)"),
        ("halves taken in another order", "yr = Gather <axis = 4> (yx, yz)", "yr = Gather <axis = 4> (yx, yo)"),
        ("elements of another axis", "yz = Constant <value = int64 {0}> ()", "yz = Constant <value = int64 {1}> ()"),
        ("parts stacked in another order", "Concat <axis = -1> (yu, yv)", "Concat <axis = -1> (yv, yu)"),
        ("a half that others read", "y = Reshape(yk, yf)", "y = Reshape(yk, yf) z = Neg(yr)"),
        ("a product that others read", "y = Reshape(yk, yf)", "y = Reshape(yk, yf) z = Neg(yis)"),
    ],
)
def test_it_declines(what: str, old: str, new: str) -> None:
    text = turned(SHAPE)
    assert text.count(old) == 1
    text = text.replace(old, new)
    if "z = Neg" in new:
        text = text.replace("float[2, 3, 5, 4] y)", "float[2, 3, 5, 4] y, float[2, 3, 5, 2] z)")
    assert not FuseRotary()(typed(text, "c", "s")).modified, what


def test_tables_that_are_inputs_and_dtypes_beyond_the_schema_stay() -> None:
    assert not FuseRotary()(typed(turned(SHAPE), "c")).modified
    assert not FuseRotary()(typed(turned(SHAPE, dtype="double"), "c", "s")).modified


def test_an_older_opset_stays() -> None:
    model = typed(turned(SHAPE), "c", "s")
    model.opset_imports[""] = 21
    assert not FuseRotary()(model).modified


def test_a_stack_that_is_a_graph_output_keeps_its_name_and_shape() -> None:
    model = typed(turned(SHAPE), "c", "s")
    stack = next(node for node in model.graph if node.op_type == "Concat").outputs[0]
    model.graph.outputs.append(stack)
    feeds = random_feeds(model, 0)
    wanted = reference(model, feeds)
    assert FuseRotary()(model).modified
    assert largest_error(wanted, reference(model, feeds)) <= 1e-6


def test_the_same_graph_gives_the_same_bytes() -> None:
    models = [typed(turned(SHAPE), "c", "s") for _ in range(2)]
    for model in models:
        FuseRotary()(model)
        LowerRotary()(model)
    first, second = (ir.to_proto(model).SerializeToString(deterministic=True) for model in models)
    assert first == second
