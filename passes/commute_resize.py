"""The pass `commute_resize`: per-pixel linear maps move in front of the resize that feeds them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import onnx_ir as ir

from samonnx.passes.convolution_call import ConvolutionCall, UnreadableConvolutionError, read_convolution
from samonnx.passes.graph_values import constant_array, replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.transposed_conv_to_matmul import join_tiles, tile_side, tiles_as_channels

__all__ = ["CommuteResize"]

_POSITIONS = frozenset({"half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric"})
"""Values of `coordinate_transformation_mode` under which every output sample is made of input samples only."""


@dataclass(frozen=True)
class CommuteResize(GraphPass):
    """A(resize(X)) → resize(A(X)) for maps A of each pixel's channels, where that is less work.

        X [C, h, w] ─ Resize ─ R [C, H, W] ─┬─ Conv 1 × 1 ─ y [D, H, W]
                                            └─ ConvTranspose k × k, stride k ─ z [E, kH, kW]
        →
        X ─┬─ Conv 1 × 1 ─ [D, h, w] ─ Resize ─ y
           └─ Conv 1 × 1 ─ [E·k², h, w] ─ Resize ─ [E·k², H, W] ─ DepthToSpace ─ z

    Each consumer moves on its own, and all of them, so that R is no longer needed, where that is cheaper still.

    Exact:    in real arithmetic. Resize acts on each channel alike, by a matrix S over pixels, and A on each pixel
              alike, by a matrix over channels: the two commute. A bias b becomes S applied to b everywhere, which is b
              because the weights of every output sample sum to one: along an axis `nearest` takes one input sample,
              `linear` two neighbours with weights 1 − t and t, clamped into the image at its border (where both may be
              the same sample); over two axes the sums multiply. The coordinate mode only moves the samples, and
              t, which engines compute in float32, is the same on both sides: the node keeps its attributes and scales
              or sizes. `tf_crop_and_resize` puts a constant outside, so there the weights do not sum to one.
              ConvTranspose with kernel = stride = k gives each pixel a tile: a 1 × 1 convolution to k² times the
              channels, then DepthToSpace, which only moves samples of R's grid.
    Declines: `cubic` (weights sum to one within 7e-7 in ONNX's evaluator), `antialias`, `exclude_outside`, aspect
              ratio policies, resized batches or channels, `tf_crop_and_resize`; convolutions that are padded, grouped,
              larger, not constant, or with tiles not square; what is not cheaper, as nearly every map behind a
              downsampling, or, while R stays, a 1 × 1 convolution of less than `interpolation` · HW / (HW − hw)
              channels.
    Cost:     C·D·(HW − hw) fewer multiply-adds for a 1 × 1 convolution (E·k² for D with tiles); D instead of C
              channels are interpolated. Measured in ONNX Runtime 1.31 (time of both cores together, AVX2, busy
              machine): `linear` 1.8 ns an element, `nearest` 0.8 ns but in one thread, DepthToSpace 2.4 ns in one
              thread, which keeps both cores waiting; 1 × 1 convolutions 0.025 ns a multiply-add. That makes 70
              multiply-adds an interpolated element and 190 a rearranged one; where the GEMM runs at twice the rate,
              150 and 400. The defaults are the latter: what gains on one kind of machine only stays.
              The neck behind 32² → 72² (ConvTranspose 1024 → 512 and 1024 → 256, Conv 1024 → 256): 35.3 → 7.0
              GFLOP; 1859 → 760 ms in ONNX Runtime (lowest of 9, machine five times overloaded; medians 2288 → 972),
              1564 → 474 (1905 → 568) in OpenVINO 2026.4.

    Attributes:
        interpolation: multiply-adds that take as long as one interpolated element.
        rearrangement: multiply-adds that take as long as one element of DepthToSpace.
    """

    name: ClassVar[str] = "commute_resize"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    interpolation: int = 150
    rearrangement: int = 400

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        pending = [node for node in model.graph if node.op_type == "Resize" and not node.domain]
        while pending:
            resize = _read_resize(pending.pop(0))
            chosen = [] if resize is None else self._chosen(resize)
            for move in chosen:
                # Another map may follow the one that moved, so the new Resize is looked at too.
                pending.append(_apply(model.graph, move))
                modified = True
            if chosen and resize is not None and not resize.output.uses() and not resize.output.is_graph_output():
                model.graph.remove(resize.node, safe=True)
        return PassResult(model, modified)

    def _chosen(self, resize: _Resize) -> list[_Move]:
        readers = [node for node, _ in resize.output.uses()]
        moves = [move for node in readers if (move := _read_move(resize, node)) is not None]
        cheaper = [move for move in moves if self._after(move) < move.before]
        if len(moves) < len(readers) or resize.output.is_graph_output():
            return cheaper  # R stays
        kept = sum(move.before for move in moves if move not in cheaper)
        kept += resize.elements(resize.channels) * self.interpolation
        return moves if sum(self._after(move) for move in moves if move not in cheaper) < kept else cheaper

    def _after(self, move: _Move) -> int:
        each = self.interpolation + (self.rearrangement if move.side > 1 else 0)
        return move.after + move.resize.elements(move.channels) * each


@dataclass(frozen=True, eq=False)
class _Resize:
    """A Resize from `source` [N, C, h, w] to `target` [N, C, H, W] whose weights sum to one."""

    node: ir.Node
    data: ir.Value
    source: tuple[int, ...]
    target: tuple[int, ...]
    by_sizes: bool
    """Whether an operand names the sizes of all four axes, the channels among them."""

    @property
    def output(self) -> ir.Value:
        return self.node.outputs[0]

    @property
    def channels(self) -> int:
        return self.source[1]

    def elements(self, channels: int) -> int:
        """Interpolated elements of `channels` channels."""
        return self.target[0] * channels * math.prod(self.target[2:])

    def build(self, build: NodeBuilder, data: ir.Value) -> ir.Value:
        """The same Resize of `data` [N, D, h, w]."""
        shape = (self.target[0], (static_shape(data) or self.source)[1], *self.target[2:])
        _, roi, scales, sizes = [*self.node.inputs, None, None][:4]
        if self.by_sizes:
            sizes = build.integers("sizes", *shape)  # `scales` stays: before opset 13 an empty one is required
        attributes: dict[str, Any] = {name: attribute.value for name, attribute in self.node.attributes.items()}
        output = build.node("Resize", data, roi, scales, sizes, **attributes)
        output.type, output.shape = data.type, ir.Shape(shape)
        return output


@dataclass(frozen=True, eq=False)
class _Move:
    """A convolution behind `resize` that could stand in front of it; its tiles are `side` × `side`."""

    resize: _Resize
    call: ConvolutionCall
    side: int

    @property
    def channels(self) -> int:
        """To interpolate after the move."""
        return self.call.map.out_channels * self.side**2

    @property
    def before(self) -> int:
        """Multiply-adds behind the Resize."""
        return self.call.multiply_adds

    @property
    def after(self) -> int:
        """Multiply-adds in front of it."""
        return self.call.map.multiply_adds(self.resize.source)


def _read_resize(node: ir.Node) -> _Resize | None:
    attributes = node.attributes
    kept = (
        attributes.get_string("mode", "nearest") in ("nearest", "linear")
        and attributes.get_string("coordinate_transformation_mode", "half_pixel") in _POSITIONS
        and not attributes.get_int("antialias", 0)
        and not attributes.get_int("exclude_outside", 0)
        and attributes.get_string("keep_aspect_ratio_policy", "stretch") == "stretch"
    )
    data, _, scales, sizes = [*node.inputs, None, None, None][:4]
    source, target = static_shape(data), static_shape(node.outputs[0])
    if not kept or data is None or source is None or target is None or len(source) != 4:
        return None
    if source[:2] != target[:2]:
        return None
    axes = attributes.get_ints("axes", ())
    if any(axis % 4 < 2 for axis in axes):
        return None
    if sizes is not None:
        return _Resize(node, data, source, target, by_sizes=not axes)
    factors = constant_array(scales)
    if factors is None or factors.size == 0 or (not axes and any(factors[:2] != 1)):
        return None  # a scale of 1.01 keeps three channels three, and mixes them
    return _Resize(node, data, source, target, by_sizes=False)


def _read_move(resize: _Resize, node: ir.Node) -> _Move | None:
    try:
        call = read_convolution(node)
    except UnreadableConvolutionError:
        return None
    side = tile_side(call.map)
    return None if side is None or node.graph is not resize.node.graph else _Move(resize, call, side)


def _apply(graph: ir.Graph, move: _Move) -> ir.Node:
    """Puts the moved convolution in place; the new Resize."""
    call, resize = move.call, move.resize
    build = NodeBuilder(graph, call.name, call.node)
    if call.map.transposed:
        mapped = tiles_as_channels(call.map).build(build, resize.data, call.output)
    else:  # the weights stay the initialisers that they are
        mapped = build.node("Conv", resize.data, *call.node.inputs[1:], kernel_shape=(1, 1))
        shape = call.map.output_shape(resize.source)
        mapped.type, mapped.shape = call.output.type, ir.Shape(shape)
    resized = resize.build(build, mapped)
    replace_value(graph, call.output, join_tiles(build, resized, move.side))
    graph.remove(call.node, safe=True)
    node = resized.producer()
    assert node is not None
    return node
