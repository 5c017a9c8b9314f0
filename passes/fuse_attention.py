"""The pass `fuse_attention`: MatMul, Softmax, MatMul becomes one attention node."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassDeclinedError, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["FuseAttention", "NearMiss", "attention_sizes", "near_misses"]

_LOG = logging.getLogger(__name__)
# Below this, a fill value swallows any logit that is added to it, so that filling and adding are the same.
_SWALLOWS = -1e20
_LAST_TWO_SWAPPED = (0, 1, 3, 2)
_OPSET = 23
"""The first with `Attention`."""
_FLOATS = (ir.DataType.FLOAT, ir.DataType.DOUBLE)


@dataclass(frozen=True)
class NearMiss:
    """A softmax that could have been an attention, and why it is none."""

    node: str
    reason: str


@dataclass(frozen=True)
class FuseAttention(GraphPass):
    """MatMul, scale, mask, Softmax, MatMul → one standard `Attention` node.

        q ──(· s₁)── MatMul ──(· s₃)──(+ mask)── Softmax(-1) ── MatMul ── y      q ─┐
        k ──(· s₂)── Transpose ─┘                                 │          →   k ─┼ Attention(s₁ s₂ s₃) ── y
        v ────────────────────────────────────────────────────────┘              v ─┘   (mask)

    Scales are Mul or Div by one constant number, on q, on k (before or after its transpose, as torch splits √s), or
    on the logits. The mask is added, or filled in: Where(mask, logits, −∞) or Where(mask, −∞, logits). Operands have
    rank 4, [B, H, S, D], or rank 3, [B, S, D], which becomes one head. A transpose of k goes into the attention; other
    transposes in front of k are composed with it. What SDPA at opset 23 traced as `Attention` is left alone.

    Exact:    in real arithmetic; `scale` is the product of the scales, an attribute (float32).
    Declines: another softmax axis; logits, weights or masks that others read; a scale that is not a constant or comes
              after the mask; a finite fill above −1e20 (a row with all keys filled would change); grouped heads;
              a guard (Where, IsNaN) between softmax and V; dtypes other than float32 and float64; opsets before 23.
              `near_misses` lists them; the log says them (INFO).
    Cost:     3 to 8 nodes become 1, or 2 if k was not transposed before.

    Attributes:
        expected: how many fusions there must be; another number is an error that lists the near misses. None: any.
    """

    name: ClassVar[str] = "fuse_attention"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    expected: int | None = None

    def call(self, model: ir.Model) -> PassResult:
        """Raises `PassDeclinedError` when the number of fusions is not `expected`; the graph is unchanged then."""
        if model.opset_imports.get("", 0) < _OPSET:
            return PassResult(model, False)
        matches, missed = _matches(model.graph)
        for miss in missed:
            _LOG.info("fuse_attention: %s: %s", miss.node, miss.reason)
        if self.expected is not None and len(matches) != self.expected:
            lines = "".join(f"\n  - {miss.node}: {miss.reason}" for miss in missed) or " none"
            raise PassDeclinedError(
                f"fuse_attention: {len(matches)} fusions, expected {self.expected}; near misses:{lines}"
            )
        for match in matches:
            _fuse(model.graph, match)
        if matches:
            infer_shapes(model)
        return PassResult(model, bool(matches))


def near_misses(model: ir.Model) -> tuple[NearMiss, ...]:
    """The softmaxes behind a matrix product that `FuseAttention` leaves, each with the reason."""
    return _matches(model.graph)[1]


class _Refusal(Exception):
    """Why a softmax is no attention."""


@dataclass(frozen=True)
class _Match:
    query: ir.Value
    key: ir.Value
    key_swapped: bool
    """Whether `key` is [B, H, D, S]."""
    value: ir.Value
    mask: _Mask | None
    scale: float
    last: ir.Node

    @property
    def rank(self) -> int:
        return len(static_shape(self.value) or ())


@dataclass(frozen=True)
class _Mask:
    """`values` as `Attention` takes them; `inverted`: bool, true where a key is not attended."""

    values: ir.Value
    inverted: bool = False


def attention_sizes(model: ir.Model) -> tuple[tuple[int, int], ...]:
    """(queries, keys) of each softmax that `FuseAttention` would take, whatever the opset."""
    shapes = [[static_shape(value) or () for value in (match.query, match.value)] for match in _matches(model.graph)[0]]
    return tuple((query[-2], value[-2]) for query, value in shapes)


def _matches(graph: ir.Graph) -> tuple[list[_Match], tuple[NearMiss, ...]]:
    matches, missed = [], []
    for node in graph:
        if node.op_type != "Softmax" or node.domain:
            continue
        try:
            matches.append(_match(node))
        except _Refusal as refusal:
            missed.append(NearMiss(f"{node.name or node.outputs[0].name} (Softmax)", str(refusal)))
    return matches, tuple(missed)


def _match(softmax: ir.Node) -> _Match:
    last, value = _value_product(softmax)
    logits, mask = _unmasked(_input(softmax, 0))
    logits, scale = _unscaled(logits, single_reader=True)
    product = _alone(logits).producer()
    if product is None or product.op_type != "MatMul" or product.domain:
        what = "a graph input or constant" if product is None else f"{product.op_type} {product.name!r}"
        raise _Refusal(f"its logits come from {what}, expected MatMul (after an optional mask and scale)")
    if softmax.outputs[0].dtype not in _FLOATS:
        raise _Refusal(f"its dtype is {softmax.outputs[0].dtype}: in half precision a moved scale rounds elsewhere")
    query, query_scale = _unscaled(_input(product, 0), single_reader=False)
    key, key_scale = _unscaled(_input(product, 1), single_reader=False)
    shapes = [static_shape(operand) for operand in (query, key, value)]
    if any(shape is None for shape in shapes) or len({len(shape or ()) for shape in shapes}) != 1:
        raise _Refusal(f"operands {query.shape}, {key.shape}, {value.shape}; expected static shapes of one rank")
    query_shape, key_shape, value_shape = (shape or () for shape in shapes)
    if len(query_shape) not in (3, 4) or not query_shape[:-2] == key_shape[:-2] == value_shape[:-2]:
        raise _Refusal(
            f"operands {query.shape}, {key.shape}, {value.shape}; expected rank 3 or 4 and equal batch and heads"
        )
    inner, inner_scale = _behind_swap(key)
    factor = scale * query_scale * key_scale * inner_scale
    return _Match(query, key if inner is None else inner, inner is None, value, mask, factor, last)


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise _Refusal(f"operand {index} of {node.name!r} is missing")
    return value


def _alone(value: ir.Value) -> ir.Value:
    """`value`, which must have one reader."""
    if len(list(value.uses())) != 1 or value.is_graph_output():
        raise _Refusal(f"{value.name!r} is read elsewhere too")
    return value


def _value_product(softmax: ir.Node) -> tuple[ir.Node, ir.Value]:
    weights = softmax.outputs[0]
    rank = len(softmax.inputs[0].shape or ()) if softmax.inputs[0] is not None else 0
    axis = softmax.attributes.get_int("axis", -1)
    if axis not in (-1, rank - 1):
        raise _Refusal(f"its axis is {axis}, expected the last of {rank}")
    [(reader, index)] = list(_alone(weights).uses())
    if reader.op_type != "MatMul" or reader.domain or index != 0:
        raise _Refusal(f"its weights go to operand {index} of {reader.op_type} {reader.name!r}, expected 0 of MatMul")
    return reader, _input(reader, 1)


def _unmasked(logits: ir.Value) -> tuple[ir.Value, _Mask | None]:
    """The logits before the mask, and the mask."""
    node = _alone(logits).producer()
    if node is None or node.domain:
        return logits, None
    if node.op_type == "Where":
        condition, *branches = (_input(node, index) for index in range(3))
        fills = [constant_array(branch) for branch in branches]
        for fill, other, inverted in ((fills[1], branches[0], False), (fills[0], branches[1], True)):
            if fill is not None and fill.size == 1:
                if not fill.item() <= _SWALLOWS:
                    raise _Refusal(f"its mask fills in {fill.item():g}, expected −∞ or at most {_SWALLOWS:g}")
                return other, _fitting(_Mask(condition, inverted), other)
        raise _Refusal("its mask fills in something that is not one constant number")
    if node.op_type == "Add":
        scores = [value for value in node.inputs if value is not None and _is_scores(value)]
        if len(scores) != 1:
            raise _Refusal(f"{len(scores)} operands of the sum {node.name!r} come from a matrix product, expected 1")
        mask = next(value for value in node.inputs if value is not None and value is not scores[0])
        return scores[0], _fitting(_Mask(mask), scores[0])
    return logits, None


def _fitting(mask: _Mask, logits: ir.Value) -> _Mask:
    """`mask`, which must broadcast to the logits and not they to it."""
    small, large = static_shape(mask.values), static_shape(logits)
    fits = small is not None and large is not None and 2 <= len(small) <= len(large)
    pairs = zip((small or ())[::-1], (large or ())[::-1], strict=False)
    if not fits or any(one not in (1, other) for one, other in pairs):
        raise _Refusal(f"its mask {mask.values.shape} does not broadcast to the logits {logits.shape} from rank 2 up")
    return mask


def _is_scores(value: ir.Value) -> bool:
    try:
        producer = _unscaled(value, single_reader=True)[0].producer()
    except _Refusal:
        return False
    return producer is not None and producer.op_type == "MatMul" and not producer.domain


def _unscaled(value: ir.Value, *, single_reader: bool) -> tuple[ir.Value, float]:
    """`value` before multiplications and divisions by constant numbers, and their product."""
    scale = 1.0
    while True:
        node = value.producer()
        if node is None or node.domain or node.op_type not in {"Mul", "Div"}:
            return value, scale
        arrays = [constant_array(operand) for operand in node.inputs]
        constants = [index for index, array in enumerate(arrays) if array is not None and array.size == 1]
        if len(constants) != 1 or (node.op_type == "Div" and constants[0] == 0):
            if single_reader:
                raise _Refusal(f"the scale at {node.op_type} {node.name!r} is not one constant number")
            return value, scale
        if single_reader:
            _alone(value)
        number = float(np.asarray(arrays[constants[0]]).item())
        scale = scale * number if node.op_type == "Mul" else scale / number
        value = _input(node, 1 - constants[0])


def _behind_swap(key: ir.Value) -> tuple[ir.Value | None, float]:
    """K [B, H, S, D] where `key` is its transpose by the last two axes, and the scale before that transpose."""
    node = key.producer()
    if node is None or node.op_type != "Transpose" or node.domain:
        return None, 1.0
    rank = len(static_shape(key) or ())
    perm = tuple(node.attributes.get_ints("perm", tuple(range(rank))[::-1]))
    if perm != (*range(rank - 2), rank - 1, rank - 2):
        return None, 1.0
    return _unscaled(_input(node, 0), single_reader=False)


def _fuse(graph: ir.Graph, match: _Match) -> None:
    old = match.last.outputs[0]
    build = NodeBuilder(graph, match.last.name or str(old.name), match.last)
    query, key, value = match.query, match.key, match.value
    mask = match.mask.values if match.mask is not None else None
    if match.key_swapped:
        key = _unswapped(build, key, match.rank)
    if match.mask is not None and match.mask.inverted:
        mask = build.node("Not", mask)
    if match.rank == 3:  # the batch of a batched matrix product: one head each
        one = build.integers("head", 1)
        query, key, value = (build.node("Unsqueeze", operand, one) for operand in (query, key, value))
        if mask is not None and len(match.mask.values.shape or ()) == 3:  # type: ignore[union-attr]
            mask = build.node("Unsqueeze", mask, one)
    attended = build.node("Attention", query, key, value, mask, scale=match.scale)
    if match.rank == 3:
        attended = build.node("Squeeze", attended, one)
    attended.type, attended.shape = old.type, old.shape
    replace_value(graph, old, attended)
    _remove_unread(graph, match.last)


def _unswapped(build: NodeBuilder, key: ir.Value, rank: int) -> ir.Value:
    """`key` with its last two axes swapped; a transpose that makes `key` is composed with the swap."""
    perm = [*range(rank - 2), rank - 1, rank - 2]
    node = key.producer()
    if node is not None and node.op_type == "Transpose" and not node.domain and node.inputs[0] is not None:
        inner = node.attributes.get_ints("perm", tuple(range(rank))[::-1])
        perm, key = [inner[axis] for axis in perm], node.inputs[0]
    return build.node("Transpose", key, perm=tuple(perm))


def _remove_unread(graph: ir.Graph, node: ir.Node) -> None:
    """Removes `node`, and what only it read."""
    if any(output.uses() or output.is_graph_output() for output in node.outputs):
        return
    producers = [value.producer() for value in node.inputs if value is not None]
    graph.remove(node, safe=True)
    for producer in dict.fromkeys(producers):
        if producer is not None and producer.graph is graph:
            _remove_unread(graph, producer)
