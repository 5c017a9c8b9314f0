"""Adds named nodes and constants at one place of a graph."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import add_initializer, taken_names, unused_name
from samonnx.passes.interface import Array

__all__ = ["NodeBuilder"]

_Attribute = int | float | str | Sequence[int]


class NodeBuilder:
    """Adds nodes in front of `before` (None: the end of the graph); names start with `name`.

    Equal small constants are made once for all nodes of one builder.
    """

    def __init__(self, graph: ir.Graph, name: str, before: ir.Node | None) -> None:
        self._graph, self._name, self._before = graph, name, before
        self._count = itertools.count()
        self._constants: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}
        self._taken: set[str] | None = None
        self._nodes: list[ir.Node] = []

    def constant(self, what: str, array: Array) -> ir.Value:
        """An initialiser; `what` says what it is for."""
        key = (array.dtype.name, array.tobytes(), array.shape)
        if key not in self._constants:
            name = self._unused(f"{self._name}/{what}")
            self._constants[key] = add_initializer(self._graph, name, array, taken=frozenset())
        return self._constants[key]

    def integers(self, what: str, *elements: int) -> ir.Value:
        """An int64 vector."""
        return self.constant(what, np.array(elements, np.int64))

    def node(
        self, op_type: str, *inputs: ir.Value | None, domain: str = "", outputs: int = 1, **attributes: _Attribute
    ) -> ir.Value:
        """The first output of a new node; the rest are its node's others. Missing last operands are left out."""
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        name = self._unused(f"{self._name}/{op_type}_{next(self._count)}")
        node = ir.node(op_type, list(inputs), attributes, domain=domain, num_outputs=outputs, name=name)
        for index, output in enumerate(node.outputs):
            output.name = f"{name}/{index}" if index else name
        self._nodes.append(node)
        if self._before is None:
            self._graph.append(node)
        else:
            self._graph.insert_before(self._before, node)
        return node.outputs[0]

    def discard(self) -> None:
        """Takes back all that it has added, which nothing else may read."""
        for node in reversed(self._nodes):
            self._graph.remove(node, safe=True)
        for value in self._constants.values():
            del self._graph.initializers[str(value.name)]
        self._nodes.clear()
        self._constants.clear()

    def _unused(self, wish: str) -> str:
        """`wish`, or `wish_1`, `wish_2`, … The graph's names are looked up once a builder: graphs are large."""
        if self._taken is None:
            self._taken = taken_names(self._graph)
        name = unused_name(self._graph, wish, self._taken)
        self._taken.add(name)
        return name
