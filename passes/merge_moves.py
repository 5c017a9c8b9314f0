"""The pass `merge_moves`: chains of reshapes and transposes become the fewest that do the same."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.move_chain import Arrangement, Steps
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["MergeMoves"]

_RESHAPES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


@dataclass(frozen=True)
class MergeMoves(GraphPass):
    """A chain of Transpose, Reshape, Squeeze, Unsqueeze and Flatten → at most Reshape, Transpose, Reshape.

        x ── Transpose(0,2,1,3) ── Transpose(0,1,3,2) ── y     →   x ── Transpose(0,2,3,1) ── y
        x ── Reshape ── Transpose(unit axes) ── Reshape ── y   →   x ── Reshape ── y
        x ── Reshape ── Transpose ── Transpose⁻¹ ── Reshape⁻¹ ── y   →   x

    A chain is one permutation of the factors of the shape (see `move_chain`). One that moves only axes of length 1 is
    a reshape, which engines do without touching the data; transposes that undo each other vanish, also through
    reshapes between them.

    Exact:    bit for bit: the same elements in the same places.
    Declines: shapes that are not static or have a 0; reshapes that cut an axis into other than whole factors of it
              (6 to 4 and 9, say), which end a chain; rewrites that do not lower the number of transposes, or of nodes
              at as many transposes, counting a node that others read as staying.
    Cost:     fewer transposes and nodes, never more of either. EfficientSAM3 m0_9, `ort-cpu`: 52 → 37 transposes and
              123 → 75 MiB that they write in `track`, 223 → 181 and 242 → 194 MiB in `segment`.
    """

    name: ClassVar[str] = "merge_moves"
    exactness: ClassVar[Exactness] = Exactness.BIT_EXACT
    tolerance: ClassVar[float] = 0.0

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        # Each rewrite lowers (transposes, nodes); the last sweep finds nothing.
        while _sweep(model.graph):
            modified = True
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Chain:
    """Moves from `source` to the output of `nodes[0]`; `dying` of them are read by nobody but the chain."""

    source: ir.Value
    nodes: tuple[ir.Node, ...]
    dying: int
    steps: Steps

    @property
    def gain(self) -> tuple[int, int]:
        """Fewer transposes, fewer nodes."""
        dying = self.nodes[: self.dying]
        transposes = sum(node.op_type == "Transpose" for node in dying)
        return transposes - self.steps.transposes, len(dying) - self._nodes_after

    @property
    def _nodes_after(self) -> int:
        # A graph input, initialiser or other output cannot take over an output's name: an Identity bears it.
        bears_name = self.nodes[0].outputs[0].is_graph_output()
        fixed_name = self.source.producer() is None or self.source.is_graph_output()
        return max(self.steps.nodes, int(bears_name and fixed_name))


def _sweep(graph: ir.Graph) -> bool:
    modified = False
    for node in list(graph):
        if node.graph is None:  # went with a chain
            continue
        best = max(_chains(node), key=lambda chain: chain.gain, default=None)
        if best is not None and best.gain > (0, 0):
            _rewrite(graph, best)
            modified = True
    return modified


def _chains(node: ir.Node) -> Iterator[_Chain]:
    """The chains that end in `node`, shortest first."""
    nodes: list[ir.Node] = []
    dying = 0
    here: ir.Node | None = node
    while here is not None and _is_move(here):
        value = here.inputs[0]
        if value is None:
            return
        alone = len(nodes) == 0 or (len(here.outputs[0].uses()) == 1 and not here.outputs[0].is_graph_output())
        dying += alone and dying == len(nodes)
        nodes.append(here)
        arrangement = _arrangement(nodes)
        if arrangement is None:
            return
        yield _Chain(value, tuple(nodes), dying, arrangement.steps())
        here = value.producer()


def _is_move(node: ir.Node) -> bool:
    if node.domain or (node.op_type not in _RESHAPES and node.op_type != "Transpose"):
        return False
    shapes = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return all(shape is not None and 0 not in shape for shape in shapes)


def _arrangement(nodes: list[ir.Node]) -> Arrangement | None:
    """What `nodes`, last first, do together."""
    arrangement: Arrangement | None = Arrangement.of(static_shape(nodes[-1].inputs[0]) or ())
    for node in reversed(nodes):
        if arrangement is None:
            return None
        if node.op_type == "Transpose":
            backwards = tuple(reversed(range(len(arrangement.shape))))
            arrangement = arrangement.transposed(tuple(node.attributes.get_ints("perm", backwards)))
        else:
            arrangement = arrangement.reshaped(static_shape(node.outputs[0]) or ())
    return arrangement


def _rewrite(graph: ir.Graph, chain: _Chain) -> None:
    node, steps = chain.nodes[0], chain.steps
    build = NodeBuilder(graph, node.name or str(node.outputs[0].name), node)
    value, shape = chain.source, static_shape(chain.source) or ()
    for target, perm in ((steps.first, None), (None, steps.perm), (steps.last, None)):
        if target is not None:
            value = build.node("Reshape", value, build.integers("shape", *target))
        elif perm is not None:
            target = tuple(shape[axis] for axis in perm)
            value = build.node("Transpose", value, perm=perm)
        else:
            continue
        shape = target
        value.type, value.shape = chain.source.type, ir.Shape(shape)
    replace_value(graph, node.outputs[0], value)
    for dead in chain.nodes[: chain.dying]:
        graph.remove(dead, safe=True)
