from __future__ import annotations

import numpy as np

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
