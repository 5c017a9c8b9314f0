"""Graphs that also give out values from their inside."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir

__all__ = ["TRUNK_MAP", "probed"]

TRUNK_MAP = "encode_trunk/trunk_map"
"""The image encoder's last value that detector and tracker share, as it is called in a linked graph."""


def probed(graph: ir.Model, names: Iterable[str]) -> ir.Model:
    """A copy of `graph` with the values called `names` as further outputs, where they still exist under their names."""
    copy = graph.clone()
    values = {str(output.name): output for node in copy.graph for output in node.outputs}
    copy.graph.outputs.extend(values[name] for name in names if name in values and not values[name].is_graph_output())
    return copy
