"""The pass `merge_parallel_convolutions`: a sum of convolutions of one input becomes one convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.convolution_call import (
    Convolution,
    ConvolutionCall,
    UnreadableConvolutionError,
    is_convolution,
    read_convolution,
)
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Array, Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["MergeParallelConvolutions"]


@dataclass(frozen=True)
class MergeParallelConvolutions(GraphPass):
    """Conv(x) + Conv(x) + … + x → one Conv(x), where that is no more work.

        x ─┬─ Conv 3 × 3 ── Add ── Add ── y   →   x ── Conv 3 × 3 ── y
           ├─ Conv 1 × 1 ──┘      │
           └──────────────────────┘

    A kernel is laid into the merged one at the place that its own pads give it (a 1 × 1 in the middle of a 3 × 3 with
    pads of 1); x itself is the kernel that is 1 for the output's own channel. What else is added, stays added.

    Exact:    in real arithmetic: convolution is linear in its kernel, and a tap that a kernel lacks is a tap of 0. A
              merged output sees padding where the branch's did, plus taps of 0. Weights are added in float64 and
              rounded once.
    Declines: a branch that another node or the caller reads, or whose weights are not constant; branches of other
              inputs, strides or groups, dilated or transposed ones; x itself where strides or the number of channels
              change; sums that broadcast; dtypes other than float32 and float64.
    Cost:     the multiply-adds of the merged convolution may be at most `most_growth` times those of the branches, x
              itself counted as none. A kernel that lies inside another's saves all of its own; x costs nothing: at
              stride 1, with as many pixels out as in, every kernel has the tap of the output's own pixel. 1 × 3 with
              3 × 1 would grow from 6 taps to 9, and stays. One Add less for each branch merged, and a pass over the
              branch's output.

    Attributes:
        most_growth: largest allowed ratio of multiply-adds, after to before.
    """

    name: ClassVar[str] = "merge_parallel_convolutions"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    most_growth: float = 1.0

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        for node in reversed(list(model.graph)):  # a sum before its parts
            if node.graph is None or not _is_plain_sum(node):
                continue
            terms = _terms(node.outputs[0])
            merged = self._merged(terms)
            if len(merged) < len(terms.values):
                _rebuild(model.graph, node, terms, merged)
                modified = True
        return PassResult(model, modified)

    def _merged(self, terms: _Terms) -> list[_Term]:
        """What to add instead of `terms`, in the order of each one's first."""
        rest = list(range(len(terms.values)))
        calls = {at: call for at in rest if (call := _branch(terms.values[at])) is not None}
        merged: dict[int, _Term] = {}
        for at, first in calls.items():
            if at not in rest:
                continue
            alike = [other for other in rest if other in calls and _are_alike(first, calls[other])]
            same = [other for other in rest if terms.values[other] is first.data]
            taken = {*alike, *same} if _keeps_channels(first) else set(alike)
            if len(taken) < 2:
                continue
            branches = [calls[other] for other in alike]
            found = _sum(branches, len(taken) - len(alike))
            before = sum(branch.multiply_adds for branch in branches)
            if found.multiply_adds(first.input_shape) <= self.most_growth * before:
                merged[min(taken)] = _Sum(found, branches)
                rest = [other for other in rest if other not in taken]
        return [merged[at] if at in merged else terms.values[at] for at in sorted([*rest, *merged])]


@dataclass(frozen=True)
class _Terms:
    """`values` add up to the output of the last of `nodes`, all of one shape."""

    values: list[ir.Value]
    nodes: list[ir.Node]


@dataclass(frozen=True)
class _Sum:
    """`map` takes the place of `branches`, one or more, and perhaps of their data; the first lends name and dtype."""

    map: Convolution
    branches: list[ConvolutionCall]


_Term = ir.Value | _Sum


def _is_plain_sum(node: ir.Node) -> bool:
    """Whether it adds two values of one shape [N, C, h, w]."""
    if node.op_type != "Add" or node.domain:
        return False
    shape = static_shape(node.outputs[0])
    return shape is not None and len(shape) == 4 and all(static_shape(value) == shape for value in node.inputs)


def _is_read_once(value: ir.Value) -> bool:
    return len(list(value.uses())) == 1 and not value.is_graph_output()


def _terms(total: ir.Value) -> _Terms:
    """The operands of `total`, which a plain sum makes, and of the sums that only go into it."""
    node = total.producer()
    if node is None:
        return _Terms([total], [])
    values: list[ir.Value] = []
    nodes: list[ir.Node] = []
    for operand in node.inputs:
        if operand is None:
            continue
        inner = operand.producer()
        if inner is not None and inner.graph is node.graph and _is_plain_sum(inner) and _is_read_once(operand):
            found = _terms(operand)
            values, nodes = values + found.values, nodes + found.nodes
        else:
            values.append(operand)
    return _Terms(values, [*nodes, node])


def _branch(value: ir.Value) -> ConvolutionCall | None:
    """The convolution behind `value`, where it is one that may be merged."""
    node = value.producer()
    if node is None or not is_convolution(node) or not _is_read_once(value):
        return None
    try:
        call = read_convolution(node)
    except UnreadableConvolutionError:
        return None
    return call if not call.map.transposed and call.map.dilations == (1, 1) else None


def _are_alike(first: ConvolutionCall, other: ConvolutionCall) -> bool:
    """Whether both read the same pixels' groups with the same strides."""
    same = first.map.strides == other.map.strides and first.map.group == other.map.group
    return same and first.data is other.data


def _keeps_channels(call: ConvolutionCall) -> bool:
    """Whether the input itself is a convolution with its strides and channels."""
    return call.map.strides == (1, 1) and call.map.in_channels == call.map.out_channels


def _identity(like: Convolution) -> Convolution:
    """x → x as a 1 × 1 convolution of the same groups."""
    channels, width = like.out_channels, int(like.weight.shape[1])
    weight = np.zeros((channels, width, 1, 1))
    weight[np.arange(channels), np.arange(channels) % width] = 1.0
    return Convolution(weight, None, like.group)


def _sum(calls: Sequence[ConvolutionCall], skips: int) -> Convolution:
    """The convolution that equals `calls` added up, plus `skips` times their input; float64.

    A tap at (i, j) of a kernel with pads (top, left, …) reads the pixel (i − top, j − left) from its output's own, so
    kernels are aligned where their pads end. All outputs have one shape: the last pads follow from any branch's.
    """
    branches = [call.map.wide() for call in calls]
    branches += [_identity(branches[0])] * skips
    pads, kernel = [0, 0, 0, 0], [0, 0]
    for axis in range(2):
        before = max(branch.pads[axis] for branch in branches)
        behind = max(branch.kernel[axis] - branch.pads[axis] for branch in branches)
        pads[axis], kernel[axis] = before, before + behind
        pads[axis + 2] = behind - (branches[0].kernel[axis] - branches[0].pads[axis]) + branches[0].pads[axis + 2]
    weight = np.zeros((*branches[0].weight.shape[:2], *kernel))
    bias: Array | None = None
    for branch in branches:
        top, left = pads[0] - branch.pads[0], pads[1] - branch.pads[1]
        height, width = branch.kernel
        weight[:, :, top : top + height, left : left + width] += branch.weight
        if branch.bias is not None:
            bias = branch.bias if bias is None else bias + branch.bias
    return replace(branches[0], weight=weight, bias=bias, pads=(pads[0], pads[1], pads[2], pads[3]))


def _rebuild(graph: ir.Graph, total: ir.Node, terms: _Terms, merged: Sequence[_Term]) -> None:
    """Adds `merged` up in front of `total`, and lets its readers read that."""
    old = total.outputs[0]
    values = [_built(graph, total, term) for term in merged]
    new = values[0]
    build = NodeBuilder(graph, total.name or str(old.name), total)
    for value in values[1:]:
        new = build.node("Add", new, value)
        new.type, new.shape = old.type, old.shape
    replace_value(graph, old, new)
    graph.remove(terms.nodes[::-1], safe=True)
    graph.remove([call.node for term in merged if isinstance(term, _Sum) for call in term.branches], safe=True)


def _built(graph: ir.Graph, before: ir.Node, term: _Term) -> ir.Value:
    if isinstance(term, ir.Value):
        return term
    first = term.branches[0]
    return term.map.rounded(first.dtype).build(NodeBuilder(graph, first.name, before), first.data, first.output)
