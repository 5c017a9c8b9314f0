from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.merge_duplicates import MergeDuplicates
from tests.passes.graph_text import assert_same_bits, body_of, constants_of, model_of, ports_of


def test_equal_chains_are_computed_once() -> None:
    text = """(float[2,3] x) => (float[3,2] y) <float[3,2] w = {1,2,3,4,5,6}, float[3,2] v = {1,2,3,4,5,6}> {
        a = Transpose <perm = [1, 0]> (x)
        b = Transpose <perm = [1, 0]> (x)
        c = Mul(a, w)
        d = Mul(b, v)
        y = Add(c, d)
    }"""
    model, original = model_of(text), model_of(text)
    assert MergeDuplicates()(model).modified
    assert body_of(model) == ["a = Transpose(x)", "c = Mul(a, w)", "y = Add(c, c)"]
    assert list(constants_of(model)) == ["w"]
    assert_same_bits(original, model)
    assert not MergeDuplicates()(model).modified


def test_outputs_keep_their_names() -> None:
    text = "(float[2] x) => (float[2] y, float[2] z) { y = Neg(x) z = Neg(x) }"
    model, original = model_of(text), model_of(text)
    MergeDuplicates()(model)
    assert body_of(model) == ["y = Neg(x)", "z = Identity(y)"]
    assert ports_of(model) == (["x"], ["y", "z"])
    assert_same_bits(original, model)
    assert not MergeDuplicates()(model).modified


@pytest.mark.parametrize(
    ("what", "text"),
    [
        (
            "attributes",
            "(float[2] x) => (float[2] y) { a = LeakyRelu <alpha=0.1> (x) b = LeakyRelu <alpha=0.2> (x) y = Sub(a, b)}",
        ),
        ("order of inputs", "(float[2] x, float[2] z) => (float[2] y) { a = Sub(x, z) b = Sub(z, x) y = Mul(a, b) }"),
        ("domains", "(float[2] x) => (float[2] y) { a = Gelu(x) b = com.microsoft.Gelu(x) y = Mul(a, b) }"),
        ("draws", "(float[2] x) => (float[2] y) { a = RandomNormalLike(x) b = RandomNormalLike(x) y = Mul(a, b) }"),
        (
            "named outputs",
            """(float[1,2] x) => (float[1,2] y) <float[2] g = {1, 1}> {
                a, m = LayerNormalization(x, g) b = LayerNormalization(x, g) c = Mul(a, m) y = Mul(b, c) }""",
        ),
    ],
)
def test_nodes_that_differ_stay_apart(what: str, text: str) -> None:
    model = model_of(text)
    before = body_of(model)
    assert not MergeDuplicates()(model).modified, what
    assert body_of(model) == before


@pytest.mark.parametrize(
    ("what", "constants"),
    [
        ("the sign of zero", "float[1] w = {0.0}, float[1] v = {-0.0}"),
        ("shapes", "float[1] w = {1}, float[1,1] v = {1}"),
    ],
)
def test_initialisers_that_differ_stay_apart(what: str, constants: str) -> None:
    model = model_of(f"(float[2] x) => (float[p,q] y) <{constants}> {{ a = Div(x, w) b = Div(x, v) y = Mul(a, b) }}")
    assert not MergeDuplicates()(model).modified, what


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["Add", "Mul", "Sub"]), st.integers(0, 9), st.integers(0, 9)), min_size=1))
def test_any_expression_keeps_its_bits(steps: list[tuple[str, int, int]]) -> None:
    names = ["x", "w", "v"]
    lines = []
    for index, (op, left, right) in enumerate(steps):
        lines.append(f"t{index} = {op}({names[left % len(names)]}, {names[right % len(names)]})")
        names.append(f"t{index}")
    text = f"""(float[2] x) => (float[2] t{len(steps) - 1}, float[2] z) <float[2] w = {{1,2}}, float[2] v = {{1,2}}> {{
        {" ".join(lines)} z = Neg(t{len(steps) - 1}) }}"""
    model, original = model_of(text), model_of(text)
    MergeDuplicates()(model)
    assert_same_bits(original, model)
    assert len(set(body_of(model))) == len(model.graph)


@pytest.mark.parametrize("call", ["mine.Magic(x)", "com.microsoft.BitmaskDropout(x)", "Dropout(x)"])
def test_what_may_be_random_is_computed_twice(call: str) -> None:
    """Nobody knows what operators of other domains do."""
    model = model_of(f"(float[2] x) => (float[2] y) {{ a = {call} b = {call} y = Sub(a, b) }}")
    model.opset_imports["mine"] = 1
    assert not MergeDuplicates()(model).modified


def test_calls_of_functions_are_made_twice() -> None:
    text = """<ir_version: 10, opset_import: ["" : 23, "local" : 1]>
    graph (float[2] x) => (float[2] y) { a = local.Noise(x) b = local.Noise(x) y = Sub(a, b) }
    <domain: "local", opset_import: ["" : 23]> Noise (v) => (w) { w = RandomNormalLike(v) }"""
    assert not MergeDuplicates()(ir.from_onnx_text(text)).modified
