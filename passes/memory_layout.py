"""Where the places of a padded axis lie in every tensor of a graph, and a proof that they do not mix.

An input [O, n, …] with a symbolic number n of slots is followed forward. Each tensor computed from it gets a `Layout`:
which axis the slots have become, how many consecutive places belong to a slot, what stands before and after. A node is
accepted only if its result at a place depends on that place alone (elementwise operators, matrix products of the other
axes, moves of axes, concatenation); attention over the axis is where places may meet, because a mask rules there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, static_shape

__all__ = ["Layout", "MixedPlacesError", "Segment", "layout_after"]


@dataclass(frozen=True)
class Segment:
    """Consecutive places: `repeat` for each slot of `symbol`; or, where it is None, `repeat` that are always filled."""

    symbol: str | None
    repeat: int

    def length(self, sizes: Mapping[str, int]) -> int:
        """Number of places."""
        return self.repeat if self.symbol is None else self.repeat * sizes[self.symbol]


@dataclass(frozen=True)
class Layout:
    """`axis` holds `segments` one after the other; `batch` is the axis of the objects (None: there is one object), on
    which each object has `rows` consecutive places (heads that were merged with it)."""

    axis: int
    segments: tuple[Segment, ...]
    batch: int | None = None
    rows: int = 1


class MixedPlacesError(Exception):
    """Why a node cannot be shown to keep the places of the padded axis apart."""


def layout_after(
    node: ir.Node, layouts: Mapping[ir.Value, Layout], sizes: Mapping[str, int]
) -> Iterator[tuple[ir.Value, Layout]]:
    """The layouts of the outputs of `node`, of whose inputs at least one is in `layouts`.

    All shapes are static, with the sizes of the symbols in `sizes`. `Attention` is not handled here.

    Raises:
        MixedPlacesError: places mix, or the operator is not known to keep them apart.
    """
    rule = _RULES.get(node.op_type) if not node.domain else None
    if rule is None:
        raise MixedPlacesError("this operator is not known to keep them apart")
    yield from rule(_Step(node, layouts, sizes))


@dataclass(frozen=True)
class _Step:
    node: ir.Node
    layouts: Mapping[ir.Value, Layout]
    sizes: Mapping[str, int]

    def tagged(self) -> list[tuple[int, ir.Value, Layout]]:
        return [
            (index, value, self.layouts[value])
            for index, value in enumerate(self.node.inputs)
            if value is not None and value in self.layouts
        ]

    def only(self, operand: int) -> tuple[ir.Value, Layout]:
        """The tagged input, which must be this operand."""
        tagged = self.tagged()
        if len(tagged) != 1 or tagged[0][0] != operand:
            raise MixedPlacesError(f"slots reach operand {tagged[-1][0]}")
        return tagged[0][1:]

    def axis(self, default: int, rank: int) -> int:
        return self.node.attributes.get_int("axis", default) % rank

    def constants(self, operand: int) -> list[int] | None:
        if operand >= len(self.node.inputs) or self.node.inputs[operand] is None:
            return None
        array = constant_array(self.node.inputs[operand])
        if array is None:
            raise MixedPlacesError(f"operand {operand} is not a constant")
        return [int(element) for element in array.reshape(-1)]


_Result = Iterator[tuple[ir.Value, Layout]]


def _shape(value: ir.Value) -> tuple[int, ...]:
    shape = static_shape(value)
    if shape is None:
        raise MixedPlacesError(f"the shape of {value.name!r} is not known: {value.shape}")
    return shape


def _shifted(layout: Layout, shift: int) -> Layout:
    return replace(layout, axis=layout.axis + shift, batch=None if layout.batch is None else layout.batch + shift)


def _keep_off(layout: Layout, axes: Sequence[int]) -> None:
    if layout.axis in axes:
        raise MixedPlacesError(f"it works along axis {layout.axis}, which holds the slots")
    if layout.batch in axes:
        raise MixedPlacesError(f"it works along axis {layout.batch}, which holds the objects")


def _elementwise(step: _Step) -> _Result:
    """out[…, i, …] = f(in[…, i, …]), with broadcasting."""
    for output in step.node.outputs:
        rank = len(_shape(output))
        found = {_shifted(layout, rank - len(_shape(value))) for _, value, layout in step.tagged()}
        if len(found) > 1:
            raise MixedPlacesError("its operands hold the slots in different places")
        layout = found.pop()
        if _shape(output)[layout.axis] != _length(layout, step.sizes):
            raise MixedPlacesError("it broadcasts the slots")
        yield output, layout


def _length(layout: Layout, sizes: Mapping[str, int]) -> int:
    return sum(segment.length(sizes) for segment in layout.segments)


def _matmul(step: _Step) -> _Result:
    (operand, value, layout), *others = step.tagged()
    rank = len(_shape(value))
    contracted = rank - 1 if operand == 0 else max(rank - 2, 0)
    if others or layout.axis == contracted:
        raise MixedPlacesError("it sums over the slots (is it part of an attention? then run fuse_attention first)")
    output = step.node.outputs[0]
    yield output, _shifted(layout, len(_shape(output)) - rank)


def _gemm(step: _Step) -> _Result:
    _, layout = step.only(0)
    if step.node.attributes.get_int("transA", 0) or layout.axis != 0:
        raise MixedPlacesError("it sums over the slots")
    yield step.node.outputs[0], layout


def _along_axis(step: _Step) -> _Result:
    """Softmax and its like: one axis."""
    value, layout = step.only(0)
    _keep_off(layout, [step.axis(-1, len(_shape(value)))])
    yield step.node.outputs[0], layout


def _from_axis(step: _Step) -> _Result:
    """LayerNormalization, RMSNormalization: this axis and all after it."""
    value, layout = step.only(0)
    rank = len(_shape(value))
    _keep_off(layout, range(step.axis(-1, rank), rank))
    yield step.node.outputs[0], layout


def _reduce(step: _Step) -> _Result:
    value, layout = step.only(0)
    rank = len(_shape(value))
    axes = [axis % rank for axis in step.constants(1) or range(rank)]
    _keep_off(layout, axes)
    if step.node.attributes.get_int("keepdims", 1):
        yield step.node.outputs[0], layout
    else:
        yield step.node.outputs[0], _renumbered(layout, [axis for axis in range(rank) if axis not in axes])


def _renumbered(layout: Layout, order: Sequence[int]) -> Layout:
    """`order[new]` is the old axis."""
    batch = None if layout.batch is None else order.index(layout.batch)
    return replace(layout, axis=order.index(layout.axis), batch=batch)


def _transpose(step: _Step) -> _Result:
    value, layout = step.only(0)
    reverse = list(range(len(_shape(value))))[::-1]
    yield step.node.outputs[0], _renumbered(layout, list(step.node.attributes.get_ints("perm", reverse)))


def _reshape(step: _Step) -> _Result:
    """Reshape, Flatten, Squeeze, Unsqueeze: row-major order stays, axes merge and split."""
    value, layout = step.only(0)
    output = step.node.outputs[0]
    before, after = _shape(value), _shape(output)
    olds, news = _group(before, after, layout.axis)
    if olds[0] != layout.axis:
        raise MixedPlacesError(f"it merges axis {olds[0]} with the slots behind it")
    grow, shrink = math.prod(before[axis] for axis in olds[1:]), math.prod(after[axis] for axis in news[1:])
    if any(segment.repeat * grow % shrink for segment in layout.segments):
        raise MixedPlacesError("it cuts through slots")
    segments = tuple(replace(segment, repeat=segment.repeat * grow // shrink) for segment in layout.segments)
    batch, rows = None, 1
    if layout.batch is not None:
        old_batch, new_batch = _group(before, after, layout.batch)
        objects = before[layout.batch] // layout.rows
        # Row-major order: an object stays in one piece as long as the objects come first before and after.
        if old_batch[0] != layout.batch or after[new_batch[0]] % objects:
            raise MixedPlacesError("it merges or splits the axis of the objects")
        batch, rows = new_batch[0], after[new_batch[0]] // objects
    yield output, Layout(news[0], segments, batch, rows)


def _group(before: Sequence[int], after: Sequence[int], axis: int) -> tuple[list[int], list[int]]:
    """The smallest runs of axes before and after with the same elements, of which `axis` is one; ones are left out."""
    olds = [i for i, size in enumerate(before) if size != 1]
    news = [i for i, size in enumerate(after) if size != 1]
    while olds and news:
        left, right = [olds.pop(0)], [news.pop(0)]
        sizes = [before[left[0]], after[right[0]]]
        while sizes[0] != sizes[1]:
            if sizes[0] < sizes[1]:
                left.append(olds.pop(0))
                sizes[0] *= before[left[-1]]
            else:
                right.append(news.pop(0))
                sizes[1] *= after[right[-1]]
        if axis in left:
            return left, right
    raise MixedPlacesError(f"axis {axis} of {list(before)} is lost")


def _concat(step: _Step) -> _Result:
    output = step.node.outputs[0]
    axis = step.axis(0, len(_shape(output)))
    found = [layout for _, _, layout in step.tagged()]
    if len({(layout.axis, layout.batch, layout.rows) for layout in found}) > 1:
        raise MixedPlacesError("its operands hold the slots on different axes")
    if axis == found[0].batch:
        raise MixedPlacesError("it joins along the axis of the objects")
    if axis != found[0].axis:
        if len(set(found)) > 1:
            raise MixedPlacesError("its operands hold the slots in different places")
        yield output, found[0]
        return
    segments: list[Segment] = []
    for value in step.node.inputs:
        if value is None:
            continue
        layout = step.layouts.get(value)
        segments += layout.segments if layout is not None else [Segment(None, _shape(value)[axis])]
    yield output, replace(found[0], segments=tuple(segments))


def _cut(layout: Layout, start: int, end: int, sizes: Mapping[str, int]) -> Layout | None:
    """Places start to end; None when none of them belongs to a slot."""
    kept, place = [], 0
    for segment in layout.segments:
        first, place = place, place + segment.length(sizes)
        if end <= first or place <= start:
            continue
        if segment.symbol is None:
            kept.append(Segment(None, min(end, place) - max(start, first)))
        elif start <= first and place <= end:
            kept.append(segment)
        else:
            raise MixedPlacesError(
                f"it cuts through the slots of {segment.symbol!r} within a slot, or at a slot by number"
            )
    return replace(layout, segments=tuple(kept)) if any(segment.symbol for segment in kept) else None


def _slice(step: _Step) -> _Result:
    value, layout = step.only(0)
    shape = _shape(value)
    starts, ends = step.constants(1) or [], step.constants(2) or []
    axes = [axis % len(shape) for axis in step.constants(3) or range(len(starts))]
    steps = step.constants(4) or [1] * len(starts)
    cut: Layout | None = layout
    for start, end, axis, stride in zip(starts, ends, axes, steps, strict=True):
        if axis not in (layout.axis, layout.batch):
            continue
        first, last, _ = slice(start, end, stride).indices(shape[axis])
        if stride != 1 or (axis == layout.batch and (first, last) != (0, shape[axis])):
            raise MixedPlacesError(f"it takes some of axis {axis}, or takes it in another order")
        if axis == layout.axis:
            cut = _cut(layout, first, last, step.sizes)
    if cut is not None:
        yield step.node.outputs[0], cut


def _split(step: _Step) -> _Result:
    value, layout = step.only(0)
    axis = step.axis(0, len(_shape(value)))
    if axis == layout.batch:
        raise MixedPlacesError("it splits the axis of the objects")
    place = 0
    for output in step.node.outputs:
        cut: Layout | None = layout
        if axis == layout.axis:
            first, place = place, place + _shape(output)[axis]
            cut = _cut(layout, first, place, step.sizes)
        if cut is not None:
            yield output, cut


def _gather(step: _Step) -> _Result:
    operand, value, layout = step.tagged()[0]
    indices_rank = len(_shape(step.node.inputs[1])) if step.node.inputs[1] is not None else 0
    if len(step.tagged()) > 1:
        raise MixedPlacesError("data and indices both hold slots")
    axis = step.axis(0, len(_shape(value)) if operand == 0 else len(_shape(step.node.outputs[0])))
    if operand == 1:  # a table is read by slot
        yield step.node.outputs[0], _shifted(layout, axis)
        return
    _keep_off(layout, [axis])
    places = [old for old in range(len(_shape(value))) if old != axis]
    places[axis:axis] = [-1] * indices_rank
    yield step.node.outputs[0], _renumbered(layout, places)


def _expand(step: _Step) -> _Result:
    """Expand, Tile: other axes may grow."""
    value, layout = step.only(0)
    output = step.node.outputs[0]
    moved = _shifted(layout, len(_shape(output)) - len(_shape(value)))
    for old, new in ((layout.axis, moved.axis), (layout.batch, moved.batch)):
        if old is not None and new is not None and _shape(value)[old] != _shape(output)[new]:
            raise MixedPlacesError(f"it repeats axis {old}")
    yield output, moved


def _words(text: str) -> list[str]:
    return text.split()


_ELEMENTWISE = _words(
    """Abs Add And Cast Ceil Clip Cos Div Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish
    Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log Max Mean Min Mish Mod Mul Neg Not Or Pow PRelu Reciprocal Relu
    Round Sigmoid Sign Sin Softplus Sqrt Sub Sum Tanh Where Xor"""
)
_REDUCTIONS = _words(
    """ReduceL1 ReduceL2 ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare"""
)
_Rule = Callable[[_Step], _Result]
_RULES: Mapping[str, _Rule] = MappingProxyType(
    {
        **dict.fromkeys(_ELEMENTWISE, _elementwise),
        **dict.fromkeys(_REDUCTIONS, _reduce),
        **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), _reshape),
        **dict.fromkeys(("Softmax", "LogSoftmax", "LpNormalization"), _along_axis),
        **dict.fromkeys(("LayerNormalization", "RMSNormalization"), _from_axis),
        **dict.fromkeys(("Expand", "Tile"), _expand),
        "MatMul": _matmul,
        "Gemm": _gemm,
        "Transpose": _transpose,
        "Concat": _concat,
        "Slice": _slice,
        "Split": _split,
        "Gather": _gather,
    }
)
