from __future__ import annotations

from samonnx.passes.eliminate_dead import EliminateDead
from tests.passes.graph_text import assert_same_bits, body_of, constants_of, model_of, ports_of


def test_what_no_output_depends_on_goes() -> None:
    text = """(float[2] x, float[2] unused) => (float[2] y) <float[2] w = {1, 2}, float[2] v = {3, 4}> {
        a = Mul(x, w)
        b = Neg(a)
        y = Add(x, v)
    }"""
    model, original = model_of(text), model_of(text)
    assert EliminateDead()(model).modified
    assert body_of(model) == ["y = Add(x, v)"]
    assert constants_of(model) == {"v": [3, 4]}
    assert "com.microsoft" not in model.opset_imports
    assert ports_of(model) == (["x", "unused"], ["y"])
    assert_same_bits(original, model)


def test_a_node_with_one_living_output_stays_whole() -> None:
    model = model_of("(float[4] x) => (float[2] y) { a, y = Split <axis = 0, num_outputs = 2> (x) }")
    EliminateDead()(model)
    assert body_of(model) == ["a, y = Split(x)"]


def test_an_unused_optional_output_goes_and_is_said_to_be_a_change() -> None:
    model = model_of("""(float[2,4] x) => (float[2,4] y) <float[4] g = {1, 1, 1, 1}> {
        y, mean = LayerNormalization(x, g)
    }""")
    del model.opset_imports["com.microsoft"]
    assert EliminateDead()(model).modified
    assert body_of(model) == ["y = LayerNormalization(x, g)"]
    assert not EliminateDead()(model).modified


def test_an_initialiser_that_is_an_output_stays() -> None:
    model = model_of("(float[2] x) => (float[2] y, float[2] w) <float[2] w = {1, 2}> { y = Neg(x) }")
    EliminateDead()(model)
    assert constants_of(model) == {"w": [1, 2]}


def test_a_graph_without_dead_parts_is_left_unmodified() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = com.microsoft.Gelu(x) }")
    assert not EliminateDead()(model).modified
    assert set(model.opset_imports) == {"", "com.microsoft"}
