from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from samonnx.passes.node_builder import NodeBuilder
from tests.passes.graph_text import body_of, model_of


def test_nodes_go_in_front_of_the_given_node_under_the_common_name() -> None:
    model = model_of("(float[2] x) => (float[2] y) { h = Neg(x) y = Abs(h) }")
    build = NodeBuilder(model.graph, "new", model.graph[1])
    build.node("Add", build.node("Relu", model.graph.inputs[0]), build.constant("two", np.full(2, 2, np.float32)))
    assert body_of(model) == [
        "h = Neg(x)",
        "new/Relu_0 = Relu(x)",
        "new/Add_1 = Add(new/Relu_0, new/two)",
        "y = Abs(h)",
    ]


def test_equal_constants_are_made_once_and_missing_last_operands_are_left_out() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Abs(x) }")
    build = NodeBuilder(model.graph, "new", None)
    assert build.integers("a", 1, 2) is build.integers("b", 1, 2)
    assert build.integers("a", 1, 2) is not build.integers("a", 1, 3)
    node = build.node("Clip", model.graph.inputs[0], None, None, outputs=1).producer()
    assert node is not None
    assert len(node.inputs) == 1


def test_a_taken_name_gets_a_suffix() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Abs(x) }")
    names = [NodeBuilder(model.graph, "new", None).node("Neg", model.graph.inputs[0]).name for _ in range(2)]
    assert names == ["new/Neg_0", "new/Neg_0_1"]


def test_what_is_discarded_leaves_no_trace() -> None:
    model = model_of("(float[2] x) => (float[2] y) <float[1] one = {1}> { h = Neg(x) y = Add(h, one) }")
    before = ir.to_proto(model).SerializeToString(deterministic=True)
    build = NodeBuilder(model.graph, "new", model.graph[1])
    halves = build.node("Split", model.graph[0].outputs[0], build.integers("sizes", 1, 1), outputs=2)
    build.node("Mul", halves, build.constant("two", np.full(1, 2, np.float32)))
    build.discard()
    assert ir.to_proto(model).SerializeToString(deterministic=True) == before
    assert [node.op_type for node, _ in model.graph[0].outputs[0].uses()] == ["Add"]


def test_a_builder_that_discarded_can_build_again() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Abs(x) }")
    build = NodeBuilder(model.graph, "new", model.graph[0])
    for _ in range(2):
        build.node("Add", model.graph.inputs[0], build.constant("two", np.full(2, 2, np.float32)))
        build.discard()
    build.node("Mul", model.graph.inputs[0], build.constant("two", np.full(2, 2, np.float32)))
    assert [line.partition(" = ")[2].partition("(")[0] for line in body_of(model)] == ["Mul", "Abs"]
    assert len(model.graph.initializers) == 1


def test_what_others_read_is_not_discarded() -> None:
    model = model_of("(float[2] x) => (float[2] y) { y = Abs(x) }")
    build = NodeBuilder(model.graph, "new", model.graph[0])
    model.graph[0].replace_input_with(0, build.node("Neg", model.graph.inputs[0]))
    with pytest.raises(ValueError, match="is still being used by other nodes"):
        build.discard()
