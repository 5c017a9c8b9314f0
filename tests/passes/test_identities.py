from __future__ import annotations

from typing import cast

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator

from samonnx.passes.evaluation import run_model
from samonnx.passes.fold_constants import FoldConstants
from samonnx.passes.identities import RULES
from samonnx.passes.interface import Array
from tests.passes.graph_text import assert_same_bits, body_of, model_of, special_floats

# (operator, graph, what is left of it). `x` holds signed zeros, infinities, NaN and denormals.
FLOAT_CASES = [
    ("Identity", "(float[2,3] x) => (float[2,3] y) { a = Identity(x) y = Neg(a) }", ["y = Neg(x)"]),
    ("Cast", "(float[2,3] x) => (float[2,3] y) { a = Cast <to = 1> (x) y = Neg(a) }", ["y = Neg(x)"]),
    ("CastLike", "(float[2,3] x) => (float[2,3] y) { a = CastLike(x, x) y = Neg(a) }", ["y = Neg(x)"]),
    (
        "CastLike",
        "(float[2,3] x) => (float[2,3] y) <int32 c = {7}> { a = CastLike(c, x) y = Div(x, a) }",
        ["y = Div(x, a/constant)"],
    ),
    (
        "Expand",
        "(float[2,3] x) => (float[2,3] y) <int64[2] s = {1, 3}> { a = Expand(x, s) y = Neg(a) }",
        ["y = Neg(x)"],
    ),
    ("Tile", "(float[2,3] x) => (float[2,3] y) <int64[2] s = {1, 1}> { a = Tile(x, s) y = Neg(a) }", ["y = Neg(x)"]),
    (
        "Reshape",
        "(float[2,3] x) => (float[2,3] y) <int64[2] s = {-1, 3}> { a = Reshape(x, s) y = Neg(a) }",
        ["y = Neg(x)"],
    ),
    (
        "Reshape",
        """(float[2,3] x) => (float[3,2] y) <int64[1] s = {-1}, int64[2] t = {3, -1}> {
            a = Reshape(x, s)
            b = Reshape(a, t)
            y = Neg(b) }""",
        ["b = Reshape(x, b/constant)", "y = Neg(b)"],
    ),
    (
        "Unsqueeze",
        """(float[2,3] x) => (float[2,3] y) <int64[1] s = {0}> {
            a = Unsqueeze(x, s)
            b = Squeeze(a, s)
            y = Neg(b) }""",
        ["y = Neg(x)"],
    ),
    ("Flatten", "(float[2,3] x) => (float[2,3] y) { a = Flatten(x) y = Neg(a) }", ["y = Neg(x)"]),
    (
        "Slice",
        """(float[2,3] x) => (float[2,3] y)
            <int64[1] b = {0}, int64[1] e = {9223372036854775807}, int64[1] axis = {1}> {
            a = Slice(x, b, e, axis)
            y = Neg(a) }""",
        ["y = Neg(x)"],
    ),
    (
        "Pad",
        "(float[2,3] x) => (float[2,3] y) <int64[4] p = {0, 0, 0, 0}> { a = Pad(x, p) y = Neg(a) }",
        ["y = Neg(x)"],
    ),
    ("Transpose", "(float[2,3] x) => (float[2,3] y) { a = Transpose <perm = [0, 1]> (x) y = Neg(a) }", ["y = Neg(x)"]),
    ("Concat", "(float[2,3] x) => (float[2,3] y) { a = Concat <axis = 1> (x) y = Neg(a) }", ["y = Neg(x)"]),
    (
        "Concat",
        "(float[2,3] x, float[2,0] z) => (float[2,6] y) { a = Concat <axis = -1> (x, z, x) y = Neg(a) }",
        ["a = Concat(x, x)", "y = Neg(a)"],
    ),
    (
        "Shape",
        "(float[2,3] x) => (float[2,3] y) { s = Shape <start = 1> (x) f = Cast <to = 1> (s) y = Add(x, f) }",
        ["y = Add(x, f/constant)"],
    ),
    (
        "Size",
        "(float[2,3] x) => (float[2,3] y) { s = Size(x) f = Cast <to = 1> (s) y = Add(x, f) }",
        ["y = Add(x, f/constant)"],
    ),
    (
        "Where",
        "(float[2,3] x, float[1,3] z) => (float[2,3] y) <bool[1] c = {1}> { a = Where(c, x, z) y = Neg(a) }",
        ["y = Neg(x)"],
    ),
    (
        "Where",
        "(float[2,3] x, float[1,3] z) => (float[2,3] y) <bool[2,1] c = {0, 0}> { a = Where(c, x, z) y = Neg(a) }",
        ["a = Expand(z, a/constant)", "y = Neg(a)"],
    ),
    (
        "Where",
        "(float[2,3] x, bool[2,1] c) => (float[2,3] y) { a = Where(c, x, x) y = Neg(a) }",
        ["y = Neg(x)"],
    ),
    ("Mul", "(float[2,3] x) => (float[2,3] y) <float one = {1}> { a = Mul(one, x) y = Neg(a) }", ["y = Neg(x)"]),
    (
        "Div",
        "(float[2,3] x) => (float[2,3] y) <float[1,3] one = {1,1,1}> { a = Div(x, one) y = Neg(a) }",
        ["y = Neg(x)"],
    ),
    ("Sub", "(float[2,3] x) => (float[2,3] y) <float zero = {0}> { a = Sub(x, zero) y = Neg(a) }", ["y = Neg(x)"]),
    ("Add", "(float[2,3] x) => (float[2,3] y) <float zero = {-0.0}> { a = Add(x, zero) y = Neg(a) }", ["y = Neg(x)"]),
]

BOOL_CASES = [
    ("And", "(bool[2,3] x) => (bool[2,3] y) <bool c = {1}> { a = And(x, c) y = Not(a) }", ["y = Not(x)"]),
    ("And", "(bool[2,3] x) => (bool[2,3] y) <bool c = {0}> { a = And(c, x) y = Or(a, x) }", ["y = Identity(x)"]),
    ("And", "(bool[2,3] x) => (bool[2,3] y) { a = And(x, x) y = Not(a) }", ["y = Not(x)"]),
    ("Or", "(bool[2,3] x) => (bool[2,3] y) <bool[1,3] c = {0,0,0}> { a = Or(c, x) y = Not(a) }", ["y = Not(x)"]),
    (
        "Or",
        "(bool[2,3] x) => (bool[2,3] y) <bool[1] c = {1}> { a = Or(c, x) y = Xor(a, x) }",
        ["y = Xor(a/constant_1, x)"],
    ),
    (
        "Or",
        "(bool[1,3] x) => (bool[2,3] y) <bool[2,1] c = {0,0}> { a = Or(c, x) y = Not(a) }",
        ["a = Expand(x, a/constant)", "y = Not(a)"],
    ),
    ("Xor", "(bool[2,3] x) => (bool[2,3] y) <bool[1] c = {0}> { a = Xor(x, c) y = Not(a) }", ["y = Not(x)"]),
    ("Not", "(bool[2,3] x) => (bool[2,3] y) { a = Not(x) b = Not(a) y = And(b, x) }", ["y = Identity(x)"]),
]

# Graphs that look alike and must stay as they are.
DECLINED = [
    ("x + 0.0 turns -0.0 into 0.0", "(float[2,3] x) => (float[2,3] y) <float z = {0}> { y = Add(x, z) }"),
    ("x - -0.0 does so too", "(float[2,3] x) => (float[2,3] y) <float z = {-0.0}> { y = Sub(x, z) }"),
    ("0 - x negates", "(float[2,3] x) => (float[2,3] y) <float z = {0}> { y = Sub(z, x) }"),
    ("1 / x inverts", "(float[2,3] x) => (float[2,3] y) <float one = {1}> { y = Div(one, x) }"),
    ("x * 0.0 keeps NaN", "(float[2,3] x) => (float[2,3] y) <float z = {0}> { y = Mul(x, z) }"),
    ("not all are ones", "(float[2,3] x) => (float[2,3] y) <float[3] m = {1, 1, 2}> { y = Mul(x, m) }"),
    (
        "a mixed condition",
        "(float[2,3] x) => (float[2,3] y) <bool[3] c = {1, 0, 1}, float z = {9}> { y = Where(c, x, z) }",
    ),
    (
        "a step of -1 reverses",
        """(float[2,3] x) => (float[2,3] y)
            <int64[1] b = {2}, int64[1] e = {-9}, int64[1] axis = {1}, int64[1] step = {-1}> {
            y = Slice(x, b, e, axis, step) }""",
    ),
    ("a square swapped", "(float[3,3] x) => (float[3,3] y) { y = Transpose <perm = [1, 0]> (x) }"),
    ("pads that cancel out", "(float[2,3] x) => (float[2,3] y) <int64[4] p = {0,1,0,-1}> { y = Pad(x, p) }"),
    ("unknown lengths may differ", "(float[n,3] x, int64[2] s) => (float[a,b] y) { y = Expand(x, s) }"),
    ("a symbolic dimension", "(float[n,3] x) => (int64[2] y) { y = Shape(x) }"),
]


@pytest.mark.parametrize(("rule", "text", "left"), FLOAT_CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(FLOAT_CASES)])
def test_a_float_rule_removes_its_node_and_keeps_every_bit(rule: str, text: str, left: list[str]) -> None:
    model, original = model_of(text), model_of(text)
    feeds = {str(v.name): special_floats(tuple(v.shape.numpy())) for v in model.graph.inputs if v.shape is not None}
    if "c" in feeds and rule == "Where":
        feeds["c"] = np.array([[True], [False]])
    FoldConstants()(model)
    assert rule in RULES
    assert body_of(model) == left
    # The reference evaluator, because ONNX Runtime's own Where turns -0.0 into 0.0.
    old, new = (np.asarray(next(iter(_outputs(graph, feeds)))) for graph in (original, model))
    assert old.shape == new.shape
    assert old.tobytes() == new.tobytes()


@pytest.mark.parametrize(("rule", "text", "left"), BOOL_CASES, ids=[f"{c[0]}-{i}" for i, c in enumerate(BOOL_CASES)])
def test_a_logical_rule_removes_its_node(rule: str, text: str, left: list[str]) -> None:
    model, original = model_of(text), model_of(text)
    FoldConstants()(model)
    assert rule in RULES
    assert body_of(model) == left
    assert_same_bits(original, model)


@pytest.mark.parametrize(("why", "text"), DECLINED, ids=[case[0] for case in DECLINED])
def test_it_declines_because(why: str, text: str) -> None:
    model = model_of(text)
    before = body_of(model)
    FoldConstants()(model)
    assert body_of(model) == before, why


@pytest.mark.parametrize(
    ("mask", "dropped"),
    [("bool[5,7]", "1"), ("float[5,7]", "0.0"), ("bool[5,7]", "0"), ("float[5,7]", "1")],
)
def test_attention_loses_a_mask_only_when_it_lets_everything_through(mask: str, dropped: str) -> None:
    text = f"""(float[1,2,5,8] q, float[1,2,7,8] k, float[1,2,7,4] v) => (float[1,2,5,4] y) <{mask} c = {{
        {", ".join([dropped] * 35)}}}> {{ y = Attention <scale = 0.3> (q, k, v, c) }}"""
    model, original = model_of(text), model_of(text)
    FoldConstants()(model)
    neutral = (mask[0] == "b") == (dropped == "1")
    assert [len(node.inputs) for node in model.graph] == [3 if neutral else 4]
    assert model.graph.node(0).attributes.get_float("scale", None) == pytest.approx(0.3)
    assert_same_bits(original, model)


def test_every_rule_has_a_case() -> None:
    cases = {"Attention"} | {rule for rule, _, _ in FLOAT_CASES + BOOL_CASES} | {"Squeeze"}
    assert cases == set(RULES)


def test_integers_have_one_zero_so_that_adding_it_is_idle() -> None:
    text = "(int32[2] x) => (int32[2] y) <int32 z = {0}> { a = Add(x, z) y = Neg(a) }"
    model = model_of(text)
    FoldConstants()(model)
    assert body_of(model) == ["y = Neg(x)"]


def test_two_outputs_of_one_value_keep_both_names() -> None:
    text = "(float[2] x) => (float[2] y, float[2] z, float[2] x2) { y = Neg(x) z = Identity(y) x2 = Identity(x) }"
    model, original = model_of(text), model_of(text)
    FoldConstants()(model)
    assert body_of(model) == ["y = Neg(x)", "z = Identity(y)", "x2 = Identity(x)"]
    assert_same_bits(original, model)


def test_an_output_takes_its_name_over_to_the_value_that_replaces_it() -> None:
    model = model_of("(float[2] x) => (float[2] y) <float one = {1}> { a = Neg(x) y = Mul(a, one) }")
    FoldConstants()(model)
    assert body_of(model) == ["y = Neg(x)"]


@settings(max_examples=40, deadline=None)
@given(
    op=st.sampled_from(["Add", "Sub", "Mul", "Div"]),
    scalar=st.sampled_from(["0", "-0.0", "1", "2"]),
    constant_first=st.booleans(),
    shapes=st.sampled_from(
        [("2,3", "2,3"), ("2,3", "1,3"), ("2,1", "2,3"), ("3", "2,3"), ("2,3", "1"), ("1,0", "2,1")]
    ),
)
def test_neutral_operands_of_any_shape_leave_every_bit(
    op: str, scalar: str, constant_first: bool, shapes: tuple[str, str]
) -> None:
    size = int(np.prod([int(dim) for dim in shapes[1].split(",")]))
    operands = "c, x" if constant_first else "x, c"
    text = f"""(float[{shapes[0]}] x) => (float[p,q] y) <float[{shapes[1]}] c = {{{", ".join([scalar] * size)}}}> {{
        y = {op}({operands}) }}"""
    model, original = model_of(text), model_of(text)
    FoldConstants()(model)
    feeds = {"x": special_floats(tuple(int(dim) for dim in shapes[0].split(",")))}
    old, new = run_model(original, feeds)["y"], run_model(model, feeds)["y"]
    assert old.shape == new.shape
    # Which NaN an operation returns is the processor's business.
    np.testing.assert_array_equal(np.isnan(old), np.isnan(new))
    assert old[~np.isnan(old)].tobytes() == new[~np.isnan(new)].tobytes()


def _outputs(model: ir.Model, feeds: dict[str, Array]) -> list[Array]:
    return cast("list[Array]", ReferenceEvaluator(ir.to_proto(model)).run(None, feeds))
