"""The pass `upscale_by_phase`: what follows a transposed convolution pixel by pixel is done before its pixels are laid
out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes.convolution_call import UnreadableConvolutionError, read_convolution
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.phase_layout import PhaseMap, PhaseWriter, from_phases
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["UpscaleByPhase"]


@dataclass(frozen=True)
class UpscaleByPhase(GraphPass):
    """ConvTranspose ── pixelwise … ── A · x   →   W · x ── pixelwise … ── A · x ── pixels laid out.

        x [N,C,h,w] ── ConvTranspose 2x2 ── norm, Gelu ── ConvTranspose 2x2 ── Gelu ── A · ── y [N,M,4h·4w]
        →
        x [N,1,C,hw] ── W · ── [N,4,C',hw] ── norm, Gelu ── W' · ── [N,16,C'',hw] ── Gelu ── A · ── [N,16,M,hw] ── y

    A mask decoder's upscaling makes 32 channels at 16 times the grid's cells, of which four masks remain: only these
    are laid out as pixels, and its transposed convolutions are plain matrix products of many columns.

    Exact:    the same products, sums and elementwise functions of the same numbers; sums in another order. A transposed
              convolution whose kernel is its stride makes the tile of one cell from that cell alone, and all that is
              carried along looks at one pixel at a time.
    Declines: kernels that overlap or leave gaps, and regions that would lay out more than `most_moved` of the elements
              that their transposed convolutions lay out (as where a 3x3 convolution follows, or where a full map is
              added).
    Cost:     the same multiply-adds; the layout of the last result instead of that of each transposed convolution.

    Attributes:
        most_moved: share of the elements of the transposed convolutions' outputs that may be laid out at the ends.
    """

    name: ClassVar[str] = "upscale_by_phase"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    most_moved: float = 0.5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        graph, modified = model.graph, False
        seen = set[ir.Node]()
        nodes = list(graph)
        for place, node in enumerate(nodes):
            if not _is_tiling(node) or node in seen:
                continue
            build = NodeBuilder(graph, f"{node.name or node.outputs[0].name}/by_phase", None)
            region = _write_region(build, nodes[place:])
            seen.update(region.nodes)
            if not region.ends or region.moved > self.most_moved * region.laid_out:
                build.discard()
                continue
            for value, map_ in region.ends:
                replace_value(graph, value, from_phases(build, map_))
            graph.remove(region.nodes, safe=True)
            modified = True
        if modified:
            graph.sort()  # all was written at the end
            infer_shapes(model)
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Region:
    """What could be written by phase: its `nodes`, and the outputs that others read (`ends`). `moved` counts the
    elements to lay out at the ends and for operands from elsewhere, `laid_out` those that the transposed convolutions
    lay out."""

    nodes: tuple[ir.Node, ...]
    ends: tuple[tuple[ir.Value, PhaseMap], ...]
    moved: int
    laid_out: int


def _write_region(build: NodeBuilder, nodes: list[ir.Node]) -> _Region:
    """Begins with the first of `nodes`, a transposed convolution, and goes as far as maps can be kept by phase."""
    first, data = nodes[0], nodes[0].inputs[0]
    maps: dict[ir.Value, PhaseMap] = {}
    writer = PhaseWriter(build, maps)
    start = None if data is None else writer.start(data)
    if data is None or start is None:
        return _Region((first,), (), 0, 0)
    maps[data] = start
    written: list[ir.Node] = []
    for node in nodes:
        made = writer.write(node) if any(value in maps for value in node.inputs if value is not None) else None
        maps.pop(data, None)  # others that read the small map gain nothing
        if made is not None:
            written.append(node)
            maps[node.outputs[0]] = made
    inside = set(written)
    ends = tuple(
        (value, map_)
        for value, map_ in maps.items()
        if value.is_graph_output() or any(user not in inside for user, _ in value.uses())
    )
    enlarging = [node.outputs[0] for node in written if node.op_type == "ConvTranspose"]
    laid_out = sum(math.prod(static_shape(value) or (0,)) for value in enlarging)
    moved = writer.moved + sum(math.prod(map_.shape) for _, map_ in ends)
    return _Region(tuple(written), ends, moved, laid_out)


def _is_tiling(node: ir.Node) -> bool:
    if node.op_type != "ConvTranspose" or node.domain:
        return False
    try:
        return read_convolution(node).map.is_tiling
    except UnreadableConvolutionError:
        return False
