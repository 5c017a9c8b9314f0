"""The pass `fuse_linear_chain`: two linear maps in a row become one."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.compose_convolutions import BiasTable, composed_bias, composed_form, composed_weight, overlaps
from samonnx.passes.convolution_call import (
    ConvolutionCall,
    UnreadableConvolutionError,
    is_convolution,
    read_convolution,
)
from samonnx.passes.graph_values import replace_value
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.linear_call import LinearCall, is_read_once, moved_rows, read_linear, rebuilt_move
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.phase_convolution import phase_convolution

__all__ = ["FuseLinearChain"]

_MARK = "/chain"
"""What is made is named after the last node of the chain, with this behind."""


@dataclass(frozen=True)
class FuseLinearChain(GraphPass):
    """Two linear maps in a row → one, where that is no more work.

        x ── Conv k×k ── Conv 1×1 ── y              →   x ── Conv k×k ── y
        x ── Conv 1×1 ── Conv k×k ── y              →   x ── Conv k×k ── [Add(map)] ── y
        x ── ConvTranspose ── Conv 1×1 ── y         →   x ── ConvTranspose ── y
        x ── ConvTranspose s×s / s ── Conv k×k ── y →   x ── (ConvTranspose (s+k-1)×(s+k-1) / s) ── [Add(map)] ── y
        X ── MatMul ── Add ── moves ── MatMul ── Y  →   X ── moves ── MatMul ── Add ── Y

    The first map's bias fills the image but not the padding of a second, so behind a padded convolution it depends on
    the distance to the border: a map, gathered by constant rows and columns from a table of its few values ([out, 3, 3]
    for 3 x 3 with padding 1). "Moves" are Reshape, Squeeze, Unsqueeze, Flatten and Transpose that leave the last axis
    alone. Among pairs that overlap, those without a map go first, then those that save most, until none is left.

    A transposed convolution that overlaps is emitted as a convolution for all phases of its stride, DepthToSpace and a
    crop, where `phase_convolution` has that form. Milliseconds (minimum of 7 on 2 busy cores, float32) of ConvTranspose
    512→256 2×2 / 2, 1×1 256→256, 3×3 256→256 and 1×1 256→D on [1, 512, 144, 144]; D = 256 is without the last:

                                                ONNX Runtime 1.31    OpenVINO 2026.4
                                                D = 32   D = 256     D = 32   D = 256
        the nodes as they are                   2714     –           3307     –
        ConvTranspose 2×2 / 2, Conv 3×3         784      3877        914      3413
        ConvTranspose 4×4 / 2, map              328      4124        226      2517
        Conv 2×2, DepthToSpace, Slice, map      299      2633        238      2324
        four Conv 2×2, Concat, DepthToSpace     301      –           260      –
        Conv 3×3, DepthToSpace, map             563      –           523      –

    Exact:    in real arithmetic: linear maps compose (`composed_form` has the proofs), and the map is what the first's
              bias adds at each place, summed over the taps of the second that lie within the image.
    Declines: an inner value that is read elsewhere or is a graph output, weights that are not constant, a padded
              k×k after a k×k, strides other than 1 after a transposed convolution, more multiply-adds than before
              (groups are filled with zeros to their common divisor, which seldom pays), a map that costs more than is
              saved, and what `read_convolution` and `read_linear` refuse.
    Cost:     fewer multiply-adds or the same, one node less; with a map up to three nodes more, which engines that fold
              constants turn into one Add.

    Attributes:
        overlapping: whether a transposed convolution may take in a k×k. What commutes a resize with a transposed
            convolution needs its tiles apart, so it goes between a run without and a run with.
        interleaved: whether transposed convolutions that overlap get the form above; false: they stay ConvTranspose.
        multiply_adds_per_byte: what the traffic of a map counts (it is written, read, and added to what is read and
            written). An estimate: two cores do some 170 billion multiply-adds or move some 20 billion bytes a second.
    """

    name: ClassVar[str] = "fuse_linear_chain"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    overlapping: bool = True
    interleaved: bool = True
    multiply_adds_per_byte: int = 8

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        made: list[ir.Node] = []
        while found := [fusion for node in model.graph for fusion in self._fusions(node)]:
            made.append(max(found, key=lambda fusion: (not fusion.has_map, fusion.saved)).apply(model.graph))
        for node in made if self.interleaved else ():
            if node.graph is model.graph and is_convolution(node):
                _interleave(model.graph, read_convolution(node))
        return PassResult(model, bool(made))

    def _fusions(self, node: ir.Node) -> Iterator[_Fusion]:
        """Those that replace `node`, as their second map, and pay."""
        fusion: _Fusion | None = None
        if is_convolution(node):
            fusion = self._convolutions(node)
        elif not node.domain and node.op_type in ("MatMul", "Gemm"):
            fusion = _products(node)
        if fusion is not None and fusion.saved >= 0:
            yield fusion

    def _convolutions(self, node: ir.Node) -> _Fusion | None:
        inner = node.inputs[0]
        producer = None if inner is None else inner.producer()
        if inner is None or not is_convolution(producer) or not is_read_once(inner):
            return None
        try:
            first, second = read_convolution(producer), read_convolution(node)
        except UnreadableConvolutionError:
            return None
        form = composed_form(first.map, second.map)
        if form is None or (not self.overlapping and overlaps(first.map, second.map)):
            return None
        saved = first.multiply_adds + second.multiply_adds - form.multiply_adds(first.input_shape)
        if saved < 0:
            return None
        bias = composed_bias(first.map, second.map, second.input_shape)
        if bias is not None and not bias.is_uniform:
            traffic = 4 * math.prod(form.output_shape(first.input_shape)) * first.dtype.itemsize
            saved -= int(traffic * self.multiply_adds_per_byte)
        return _Convolutions(saved, first, second, bias)


@dataclass(frozen=True)
class _Fusion:
    """A pair that can be one, and the multiply-adds that this saves."""

    saved: int

    @property
    def has_map(self) -> bool:
        return False

    @abstractmethod
    def apply(self, graph: ir.Graph) -> ir.Node:
        """Puts one map in place of two; returns its node."""


@dataclass(frozen=True)
class _Convolutions(_Fusion):
    first: ConvolutionCall
    second: ConvolutionCall
    bias: BiasTable | None

    @property
    def has_map(self) -> bool:
        return self.bias is not None and not self.bias.is_uniform

    def apply(self, graph: ir.Graph) -> ir.Node:
        dtype, like = self.first.dtype, self.second.output
        build = NodeBuilder(graph, _unused_prefix(graph, self.second.name), self.second.node)
        composed = composed_weight(self.first.map, self.second.map)
        if self.bias is not None and not self.has_map:
            composed = replace(composed, bias=self.bias.values.reshape(-1))
        made = output = composed.rounded(dtype).build(build, self.first.data, like)
        if self.bias is not None and self.has_map:
            output = build.node("Add", output, _map(build, self.bias, like))
            output.type, output.shape = like.type, like.shape
        replace_value(graph, like, output)
        graph.remove([self.second.node, self.first.node], safe=True)
        return _node_of(made)


def _unused_prefix(graph: ir.Graph, name: str) -> str:
    """That of the chain's last node, as it was called before it became part of one; new for each thing made, because
    a node keeps its name when its output takes over that of a graph output."""
    names = {str(node.name).rpartition("/")[0] for node in graph}
    wish = name.partition(_MARK)[0] + _MARK
    wishes = itertools.chain([wish], (f"{wish}_{count}" for count in itertools.count(1)))
    return next(wish for wish in wishes if wish not in names)


def _node_of(made: ir.Value) -> ir.Node:
    node = made.producer()
    if node is None:
        raise AssertionError(f"{made.name} was just made by a node")
    return node


def _interleave(graph: ir.Graph, call: ConvolutionCall) -> None:
    """Another form for a transposed convolution that overlaps, where there is one."""
    phases = phase_convolution(call.map)
    if phases is not None:
        build = NodeBuilder(graph, _unused_prefix(graph, call.name), call.node)
        shape = call.map.output_shape(call.input_shape)
        replace_value(graph, call.output, phases.build(build, call.data, call.output, shape))
        graph.remove(call.node, safe=True)


def _map(build: NodeBuilder, bias: BiasTable, like: ir.Value) -> ir.Value:
    """[1, out, h, w] (an axis along which it is the same has size 1)."""
    dtype = (like.dtype or ir.DataType.FLOAT).numpy()
    value = build.constant("border", bias.values[None].astype(dtype))
    shape = [1, *bias.values.shape]
    for axis, classes in ((2, bias.rows), (3, bias.columns)):
        if shape[axis] > 1:
            shape[axis] = len(classes)
            value = build.node("Gather", value, build.integers("border/classes", *classes), axis=axis)
            value.type, value.shape = like.type, ir.Shape(shape)
    return value


@dataclass(frozen=True)
class _Products(_Fusion):
    first: LinearCall
    moves: tuple[ir.Node, ...]
    """Between the two, last first."""
    second: LinearCall

    def apply(self, graph: ir.Graph) -> ir.Node:
        like, dtype = self.second.output, self.first.weight.dtype
        build = NodeBuilder(graph, _unused_prefix(graph, self.second.name), self.second.nodes[0])
        outer = self.second.weight.astype(np.float64)
        data = self.first.data
        for move in reversed(self.moves):
            data = rebuilt_move(build, move, data)
        weight = (self.first.weight.astype(np.float64) @ outer).astype(dtype)
        made = output = build.node("MatMul", data, build.constant("weight", weight))
        output.type, output.shape = like.type, like.shape
        if self.first.bias is not None or self.second.bias is not None:
            bias = np.zeros(outer.shape[1]) if self.second.bias is None else self.second.bias.astype(np.float64)
            if self.first.bias is not None:
                bias = bias + self.first.bias.astype(np.float64) @ outer
            output = build.node("Add", output, build.constant("bias", bias.astype(dtype)))
            output.type, output.shape = like.type, like.shape
        replace_value(graph, like, output)
        graph.remove([*self.second.nodes, *self.moves, *self.first.nodes], safe=True)
        return _node_of(made)


def _products(node: ir.Node) -> _Products | None:
    """`node` and what it multiplies, as a pair; the bias that is added behind belongs to it."""
    output = node.outputs[0]
    second = read_linear(output)
    if second is None:
        return None
    moves: list[ir.Node] = []
    inner = second.data
    while (before := moved_rows(inner)) is not None and is_read_once(inner):
        producer = inner.producer()
        moves += [] if producer is None else [producer]
        inner = before
    first = read_linear(inner)
    if first is None or not is_read_once(inner):
        return None
    if is_read_once(output):
        sum_ = read_linear(next(iter(output.uses())).node.outputs[0])
        second = sum_ if sum_ is not None and sum_.nodes[-1] is node else second
    inputs, middle = first.weight.shape
    outputs = second.weight.shape[1]
    return _Products(second.rows * (inputs * middle + middle * outputs - inputs * outputs), first, tuple(moves), second)
