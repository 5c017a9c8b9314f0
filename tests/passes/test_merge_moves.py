from __future__ import annotations

import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.passes.lower.onnx import LowerOnnx
from samonnx.passes.merge_moves import MergeMoves
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes
from tests.passes.attention_oracle import typed
from tests.passes.graph_text import assert_same_bits, model_of, ports_of, special_floats
from tests.passes.test_move_chain import regrouped


def merged(text: str) -> ir.Model:
    """After the pass, with the bits compared and the laws of every run checked."""
    before, after = typed(text), typed(text)
    MergeMoves()(after)
    shapes = {str(o.name): o.shape for node in after.graph for o in node.outputs}
    infer_shapes(after, forget=True)
    assert shapes == {str(o.name): o.shape for node in after.graph for o in node.outputs}
    assert ports_of(before) == ports_of(after)
    assert_same_bits(before, after)
    assert not MergeMoves()(after).modified
    return after


def operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def test_two_transposes_become_one() -> None:
    model = merged("""(float[2,3,4,5] x) => (float[2,4,5,3] y) {
        a = Transpose <perm = [0, 2, 1, 3]> (x)
        y = Transpose <perm = [0, 1, 3, 2]> (a)
    }""")
    assert [node.attributes.get_ints("perm") for node in model.graph] == [(0, 2, 3, 1)]


def test_transposes_that_undo_each_other_vanish_also_through_reshapes() -> None:
    model = merged("""(float[2,3,4,5] x, float[5] c) => (float[2,3,4,5] y)
    <int64[2] flat = {20, 6}, int64[4] s = {4, 5, 2, 3}> {
        h = Add(x, c)
        a = Transpose <perm = [2, 3, 0, 1]> (h)
        b = Reshape(a, flat)
        r = Reshape(b, s)
        d = Transpose <perm = [2, 3, 0, 1]> (r)
        y = Neg(d)
    }""")
    assert operators(model) == ["Add", "Neg"]


def test_a_transpose_without_perm_reverses_the_axes() -> None:
    model = merged("(float[2,3,4] x) => (float[2,3,4] y) { a = Transpose(x) b = Transpose(a) y = Neg(b) }")
    assert operators(model) == ["Neg"]


def test_a_transpose_of_unit_axes_is_a_reshape_and_joins_its_neighbours() -> None:
    model = merged("""(float[1,6,8] x) => (float[1,6,8] y, float[6,1,4] z)
    <int64[4] s = {1, 1, 6, 8}, int64[3] t = {1, 6, 8}> {
        n = Neg(x)
        a = Reshape(n, s)
        b = Transpose <perm = [0, 2, 1, 3]> (a)
        c = Reshape(b, t)
        y = Relu(c)
        u, v = Split <axis = 2, num_outputs = 2> (n)
        z = Transpose <perm = [1, 0, 2]> (u)
    }""")
    assert operators(model) == ["Neg", "Relu", "Split", "Reshape"]


def test_unsqueezes_squeezes_and_flattens_are_reshapes() -> None:
    model = merged("""(float[6,8] x) => (float[1,48] y) <int64[1] two = {2}, int64[1] zero = {0}> {
        n = Neg(x)
        a = Unsqueeze(n, zero)
        b = Transpose <perm = [1, 0, 2]> (a)
        c = Unsqueeze(b, two)
        d = Squeeze(c, two)
        y = Flatten <axis = 0> (d)
    }""")
    assert operators(model) == ["Neg", "Reshape"]


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("splitting heads needs both nodes", """(float[1,6,8] x) => (float[1,2,6,4] y) <int64[4] s = {1, 6, 2, 4}> {
            a = Reshape(x, s) y = Transpose <perm = [0, 2, 1, 3]> (a) }"""),
        ("the first transpose has another reader", """(float[2,3,4] x) => (float[4,3,2] y, float[3,2,4] z) {
            a = Transpose <perm = [1, 0, 2]> (x) y = Transpose <perm = [2, 0, 1]> (a) z = Neg(a) }"""),
        ("the first transpose is an output", """(float[2,3,4] x) => (float[4,3,2] y, float[3,2,4] a) {
            a = Transpose <perm = [1, 0, 2]> (x) y = Transpose <perm = [2, 0, 1]> (a) }"""),
        ("the reshape cuts across axes", """(float[4,6] x) => (float[6,4] y) <int64[2] s = {4, 6}> {
            a = Transpose(x) r = Reshape(a, s) y = Transpose(r) }"""),
        ("an Identity would have to bear the name", """(float[4,6] x) => (float[4,6] y) <int64[2] s = {4, 6}> {
            y = Reshape(x, s) }"""),
        ("nothing has a static shape", """(float[N,2,3] x) => (float[N,2,3] y) {
            a = Transpose <perm = [0, 2, 1]> (x) y = Transpose <perm = [0, 2, 1]> (a) }"""),
        ("there is no element", """(float[0,2,3] x) => (float[0,2,3] y) {
            a = Transpose <perm = [0, 2, 1]> (x) y = Transpose <perm = [0, 2, 1]> (a) }"""),
        ("the operator is of another domain", """(float[2,3] x) => (float[2,3] y) {
            a = com.microsoft.Transpose(x) b = com.microsoft.Transpose(a) y = Neg(b) }"""),
    ],
)  # fmt: skip
def test_it_declines(what: str, text: str) -> None:
    model = model_of(text)
    if "microsoft" not in text:
        infer_shapes(model)
    before = ir.to_onnx_text(model)
    assert not MergeMoves()(model).modified, what
    assert ir.to_onnx_text(model) == before


def test_a_reader_of_the_inner_transpose_does_not_stop_what_undoes_it() -> None:
    model = merged("""(float[2,3,4] x) => (float[2,3,4] y, float[3,2,4] z) {
        n = Relu(x)
        a = Transpose <perm = [1, 0, 2]> (n)
        b = Transpose <perm = [1, 0, 2]> (a)
        y = Neg(b)
        z = Neg(a)
    }""")
    assert operators(model) == ["Relu", "Transpose", "Neg", "Neg"]


def test_an_output_that_equals_an_input_keeps_its_name_and_place() -> None:
    model = merged("""(float[2,3] x) => (float[2,3] y, float[2,3] z) {
        a = Transpose(x)
        y = Transpose(a)
        z = Neg(x)
    }""")
    assert sorted(operators(model)) == ["Identity", "Neg"]


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_random_chains_with_readers_on_the_way_keep_every_bit(data: st.DataObject) -> None:
    size = data.draw(st.sampled_from([12, 24, 60]))
    shape = data.draw(regrouped(size))
    model = model_of(
        f"(float[{','.join(map(str, shape))}] x) => (float[{','.join(map(str, shape))}] y) {{ y = Neg(x) }}"
    )
    graph = model.graph
    build = NodeBuilder(graph, "n", None)
    value = graph.inputs[0] if data.draw(st.booleans()) else graph.outputs[0]
    for number in range(data.draw(st.integers(1, 7))):
        rank = len(value.shape or ())
        kind = data.draw(st.sampled_from(["Transpose", "Reshape", "Unsqueeze", "Flatten", "Neg"]))
        match kind:
            case "Transpose":
                value = build.node("Transpose", value, perm=tuple(data.draw(st.permutations(range(rank)))))
            case "Reshape":
                value = build.node("Reshape", value, build.integers("s", *data.draw(regrouped(size))))
            case "Unsqueeze":
                value = build.node("Unsqueeze", value, build.integers("u", data.draw(st.integers(0, rank))))
            case "Flatten":
                value = build.node("Flatten", value, axis=data.draw(st.integers(0, rank)))
            case _:
                value = build.node("Neg", value)
        infer_shapes(model)
        if data.draw(st.integers(0, 3)) == 0:
            value.name = f"out{number}"
            graph.outputs.append(value)
    if not value.is_graph_output():
        graph.outputs.append(value)
    after = model.clone()
    MergeMoves()(after)
    assert ports_of(model) == ports_of(after)
    assert_same_bits(model, after, {"x": special_floats(shape)})
    text = ir.to_onnx_text(after)
    assert not MergeMoves()(after).modified
    assert ir.to_onnx_text(after) == text
    assert operators(after).count("Transpose") <= operators(model).count("Transpose")
    assert len(after.graph) <= len(model.graph)
    again = model.clone()
    MergeMoves()(again)
    assert ir.to_onnx_text(again) == text  # the same bytes in every run


def test_keys_that_only_the_logits_read_are_transposed_once() -> None:
    text = """(float[1,2,6,4] q, float[1,5,8] x, float[1,2,5,4] v) => (float[1,2,6,4] y) <int64[4] s = {1, 5, 2, 4}> {
        a = Reshape(x, s)
        k = Transpose <perm = [0, 2, 1, 3]> (a)
        y = Attention(q, k, v)
    }"""
    before, after = typed(text), typed(text)
    LowerOnnx()(before)
    LowerOnnx()(after)
    MergeMoves()(after)
    assert operators(before).count("Transpose") == 2
    assert operators(after).count("Transpose") == 1
    assert_same_bits(before, after)
