"""Removing what a rewrite leaves unread, so that the rest of the graph does not count it as a reader."""

from __future__ import annotations

import onnx_ir as ir

__all__ = ["remove_unread"]


def remove_unread(graph: ir.Graph, node: ir.Node | None) -> None:
    """Removes `node`, if nothing reads its outputs, and then what only it read."""
    if node is None or node.graph is not graph:
        return
    if any(output.uses() or output.is_graph_output() for output in node.outputs):
        return
    producers = [value.producer() for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for producer in dict.fromkeys(producers):
        remove_unread(graph, producer)
