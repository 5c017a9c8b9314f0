from __future__ import annotations

from samonnx.passes.unread import remove_unread
from tests.passes.attention_oracle import typed
from tests.passes.rotary_graphs import operators

CHAIN = """(float[3] x) => (float[3] y) {
    a = Relu(x)
    b = Neg(a)
    c = Exp(b)
    d = Add(b, c)
    y = Abs(a)
}"""


def test_what_only_the_unread_node_read_goes_with_it() -> None:
    model = typed(CHAIN)
    remove_unread(model.graph, model.graph.node(3))
    assert operators(model) == ["Relu", "Abs"]


def test_what_is_read_or_a_graph_output_or_no_node_stays() -> None:
    model = typed(CHAIN)
    for node in (model.graph.node(2), model.graph.node(4), None):
        remove_unread(model.graph, node)
    assert operators(model) == ["Relu", "Neg", "Exp", "Add", "Abs"]
