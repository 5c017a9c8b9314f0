"""The part of a graph between two places: all nodes on a path from one to the other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from samonnx.inspect_facts import InspectError

__all__ = ["MOST_NODES", "Edge", "Region", "choose_region", "read_values"]

MOST_NODES = 400
"""More boxes than these are no picture any more."""


@dataclass(frozen=True)
class Edge:
    """`value` goes from a node to a node; None: it comes from outside, or leaves (`reader`)."""

    value: ir.Value
    maker: ir.Node | None
    reader: ir.Node | None


@dataclass(frozen=True)
class Region:
    """Nodes in graph order, and the values between them, into them and out of them; constants are left out."""

    nodes: tuple[ir.Node, ...]
    edges: tuple[Edge, ...]


def choose_region(graph: ir.Graph, start: str | None, end: str | None) -> Region:
    """What lies on paths from `start` to `end`, each the name of a value or of a node (None: from the inputs, to the
    outputs). A node that is named belongs to it; of a value, what reads or makes it.

    Raises InspectError: a name that is not there, no path, more than `MOST_NODES` nodes.
    """
    chosen = set(graph)
    if start is not None:
        chosen &= _behind(_first_nodes(graph, start))
    if end is not None:
        chosen &= _before(_last_nodes(graph, end))
    nodes = tuple(node for node in graph if node in chosen)
    if not nodes:
        raise InspectError(
            f"there is no path from {start!r} to {end!r}" if start and end else "there is nothing to draw"
        )
    if len(nodes) > MOST_NODES:
        middle = nodes[len(nodes) // 2]
        raise InspectError(
            f"{len(nodes)} nodes are too many to draw (at most {MOST_NODES}): give --from and --to, each the name of a "
            f"value or a node that are closer together, for example --to {_name(middle)!r}"
        )
    return Region(nodes, tuple(_edges(nodes, chosen)))


def read_values(node: ir.Node) -> list[ir.Value]:
    """Operands, and outer values that the bodies of a node of control flow read."""
    found = [value for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            body = attribute.as_graph()
            own = {*body.inputs, *body.initializers.values(), *(out for inner in body for out in inner.outputs)}
            inner_reads = [value for inner in body for value in read_values(inner)]
            found += [value for value in inner_reads if value not in own]
    return list(dict.fromkeys(found))


def _name(node: ir.Node) -> str:
    return node.name or str(node.outputs[0].name)


def _find(graph: ir.Graph, name: str) -> ir.Node | ir.Value:
    values = {str(value.name): value for value in (*graph.inputs, *graph.initializers.values())}
    values |= {str(value.name): value for node in graph for value in node.outputs if value.name}
    nodes = {str(node.name): node for node in graph if node.name}
    found = values.get(name, nodes.get(name))
    if found is None:
        close = difflib.get_close_matches(name, {**values, **nodes}, n=5)
        hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
        raise InspectError(f"there is no value and no node {name!r} in the graph{hint}")
    return found


def _first_nodes(graph: ir.Graph, name: str) -> list[ir.Node]:
    found = _find(graph, name)
    return [found] if isinstance(found, ir.Node) else [node for node in graph if found in read_values(node)]


def _last_nodes(graph: ir.Graph, name: str) -> list[ir.Node]:
    found = _find(graph, name)
    if isinstance(found, ir.Node):
        return [found]
    producer = found.producer()
    return [] if producer is None else [producer]


def _behind(starts: Iterable[ir.Node]) -> set[ir.Node]:
    """`starts` and all that depends on them; they are in one graph."""
    found = set(starts)
    graph = next((node.graph for node in found), None)
    for node in graph or ():  # in topological order one walk is enough
        if any(value.producer() in found for value in read_values(node)):
            found.add(node)
    return found


def _before(ends: Iterable[ir.Node]) -> set[ir.Node]:
    """`ends` and all that they depend on."""
    found = set(ends)
    stack = list(found)
    while stack:
        makers = {value.producer() for value in read_values(stack.pop())}
        new = {maker for maker in makers if maker is not None} - found
        found |= new
        stack += new
    return found


def _edges(nodes: Iterable[ir.Node], chosen: set[ir.Node]) -> Iterator[Edge]:
    graph = next(iter(chosen)).graph
    read_outside = {value for node in graph or () if node not in chosen for value in read_values(node)}
    for node in nodes:
        for value in read_values(node):
            maker = value.producer()
            is_input = value.is_graph_input()
            if maker in chosen or is_input or (maker is not None and maker.op_type != "Constant"):
                yield Edge(value, maker if maker in chosen else None, node)
        for value in node.outputs:
            if value.is_graph_output() or value in read_outside:
                yield Edge(value, node, None)
