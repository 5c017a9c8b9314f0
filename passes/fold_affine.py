"""The pass `fold_affine`: constant scales and shifts of channels go into the weights next to them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.affine_call import AffineCall, UnreadableAffineError, read_affine
from samonnx.passes.channel_map import ChannelMap, ChannelMapCall, UnreadableChannelMapError, read_channel_map
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["FoldAffine"]

_MOVES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"})


@dataclass(frozen=True)
class FoldAffine(GraphPass):
    """BatchNormalization and constant scales and shifts of channels → into the linear map next to them.

        x ── Mul(s) ── Conv(W, b) ── BatchNormalization(γ, β, μ, σ²) ── y   →   x ── Conv(W', b') ── y

    with W' = diag(γ / √(σ² + ε)) W diag(s) and b' = (b − μ) γ / √(σ² + ε) + β. The affine maps are
    BatchNormalization, Add, Sub, Mul and Div by one constant a channel (or one for all); the linear maps Conv,
    ConvTranspose, MatMul and Gemm. A chain of them on either side is composed in float64 and rounded once. One scale or
    shift for all channels also goes back through Reshape, Transpose, Squeeze, Unsqueeze and Flatten: so the scale of
    the queries in front of their product with the keys goes into their projection.

        x ── MatMul(W) ── Add(b) ── Reshape ── Transpose ── Mul(s) ── Q   →   x ── MatMul(s W) ── Add(s b) ── … ── Q

    Exact:    in real arithmetic: s (W x + b) + t = (s W) x + (s b + t), and W (s x + t) + b = (W s) x + (W t + b).
              The second holds for t ≠ 0 only where no output meets padding, which is not shifted: so a shift goes
              into a Conv without pads and not into a ConvTranspose whose outputs meet different taps; a scale leaves
              the zeros of padding alone.
    Declines: a value in between that another node or the caller reads; weights that are not constant or that another
              node reads too; constants that differ along other axes than the channels'; a shift before padding;
              parameters or composed weights that are not finite; what would not lower the number of nodes (a MatMul
              needs an Add for its bias); dtypes other than float32 and float64.
    Cost:     one elementwise node less each; the same multiply-adds.
    """

    name: ClassVar[str] = "fold_affine"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        for node in list(model.graph):
            if node.graph is None:  # folded into a node before it
                continue
            try:
                chain = _chain(read_channel_map(node))
            except UnreadableChannelMapError:
                continue
            if chain.saved_nodes > 0:
                modified |= _fold(model.graph, chain)
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Chain:
    """before[0] → … → linear → after[0] → …, each read by the next alone; `moved`, uniform ones, come behind moves."""

    before: tuple[AffineCall, ...]
    linear: ChannelMapCall
    after: tuple[AffineCall, ...]
    moved: tuple[AffineCall, ...]

    @property
    def data(self) -> ir.Value:
        return self.before[0].data if self.before else self.linear.data

    @property
    def nodes(self) -> list[ir.Node]:
        return [*(call.node for call in self.before), self.linear.node, *(call.node for call in self.after)]

    @property
    def saved_nodes(self) -> int:
        affine = (*self.before, *self.after, *self.moved)
        return len(affine) - (self.linear.bias_nodes if any(call.shifts for call in affine) else 0)

    def composed(self) -> ChannelMap:
        """The whole chain as one map, in float64."""
        found = self.linear.map()
        for call in reversed(self.before):
            found = found.after(call.scale, call.shift)
        for call in self.after:
            found = found.then(call.scale, call.shift)
        channels = math.prod(found.weight.shape[:2])
        for call in self.moved:
            found = found.then(np.full(channels, call.scale[0]), np.full(channels, call.shift[0]))
        return found


def _only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads `value` where nothing else does, in the same graph."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    reader, producer = uses[0].node, value.producer()
    return reader if producer is not None and reader.graph is producer.graph else None


def _chain(linear: ChannelMapCall) -> _Chain:
    """As many affine maps on both sides as may be composed with it."""
    before: list[AffineCall] = []
    after: list[AffineCall] = []
    try:
        while (node := _only_reader((after[-1] if after else linear).output)) is not None:
            after.append(read_affine(node, linear.axis))
    except UnreadableAffineError:
        pass
    try:
        while _only_reader(value := before[-1].data if before else linear.data) is not None:
            call = read_affine(value.producer(), linear.axis)
            if call.shifts and not linear.keeps_shifts:
                break
            before.append(call)
    except UnreadableAffineError:
        pass
    moved = _moved((after[-1] if after else linear).output)
    return _Chain(tuple(reversed(before)), linear, tuple(after), tuple(moved))


def _moved(value: ir.Value) -> Iterator[AffineCall]:
    """The affine maps that are the same for all elements of `value` and come behind it, with only moves between."""
    while (node := _only_reader(value)) is not None:
        value = node.outputs[0]
        if node.op_type in _MOVES and not node.domain:
            continue
        try:
            call = read_affine(node, len(static_shape(value) or ()) - 1)
        except UnreadableAffineError:
            return
        if (call.scale != call.scale[0]).any() or (call.shift != call.shift[0]).any():
            return
        yield call


def _fold(graph: ir.Graph, chain: _Chain) -> bool:
    """Whether the composed weights could be represented, and so took the chain's place."""
    composed = chain.composed()
    largest = np.finfo(chain.linear.data.dtype.numpy() if chain.linear.data.dtype else np.float32).max
    for array in (composed.weight, composed.bias):
        if array is not None and not (np.abs(array) <= largest).all():
            return False
    for call in reversed(chain.moved):  # from behind: each one's data is still in the graph then
        replace_value(graph, call.output, call.data)
        graph.remove(call.node, safe=True)
    nodes = chain.nodes
    output = chain.linear.build(NodeBuilder(graph, chain.linear.name, nodes[-1]), chain.data, composed)
    replace_value(graph, nodes[-1].outputs[0], output)
    graph.remove(nodes, safe=True)
    return True
