"""The part of a graph between two names."""

from __future__ import annotations

import onnx_ir as ir
import pytest

from samonnx import inspect_region
from samonnx.inspect_facts import InspectError
from samonnx.inspect_region import choose_region, read_values
from tests.test_optimize import model_of, random

TEXT = """(float[2] x, float[2] z, bool c) => (float[2] y, float[2] other) {
    a = Neg(x)
    b = Relu(a)
    d = Abs(a)
    e = Add(b, d)
    f = Mul(e, w)
    y = If (c) <then_branch = t () => (float[2] p) { p = Add(f, z) },
                else_branch = e2 () => (float[2] q) { q = Neg(b) }>
    other = Exp(z)
}"""


@pytest.fixture
def graph() -> ir.Graph:
    return ir.from_proto(model_of(TEXT, {"w": random(2)})).graph


@pytest.mark.parametrize(
    ("start", "end", "made"),
    [
        (None, None, "a b d e f y other"),
        ("a", "e", "b d e"),
        ("x", "b", "a b"),
        ("b", None, "e f y"),
        (None, "d", "a d"),
        ("b", "y", "e f y"),  # into the branches too
        ("z", "y", "y"),
        ("w", "f", "f"),
    ],
)
def test_all_nodes_on_paths_and_no_others(start: str | None, end: str | None, made: str, graph: ir.Graph) -> None:
    region = choose_region(graph, start, end)
    assert [node.outputs[0].name for node in region.nodes] == made.split()


def test_values_come_in_and_go_out_and_constants_do_not(graph: ir.Graph) -> None:
    region = choose_region(graph, "a", "f")
    ends = [
        (edge.value.name, edge.maker and edge.maker.op_type, edge.reader and edge.reader.op_type)
        for edge in region.edges
    ]
    assert ends == [
        ("a", None, "Relu"),
        ("b", "Relu", None),  # the branch reads it
        ("a", None, "Abs"),
        ("b", "Relu", "Add"),
        ("d", "Abs", "Add"),
        ("e", "Add", "Mul"),
        ("f", "Mul", None),
    ]


def test_a_node_of_control_flow_reads_what_its_bodies_read(graph: ir.Graph) -> None:
    node = next(node for node in graph if node.op_type == "If")
    assert [value.name for value in read_values(node)] == ["c", "f", "z", "b"]


def test_names_and_paths_that_are_not_there_are_said(graph: ir.Graph) -> None:
    with pytest.raises(InspectError, match="no value and no node 'othr' in the graph; did you mean 'other'"):
        choose_region(graph, "othr", None)
    with pytest.raises(InspectError, match="there is no path from 'y' to 'b'"):
        choose_region(graph, "y", "b")


def test_too_many_nodes_are_refused_with_a_way_out(graph: ir.Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_region, "MOST_NODES", 3)
    with pytest.raises(InspectError, match=r"7 nodes are too many to draw \(at most 3\): give --from and --to"):
        choose_region(graph, None, None)
