"""The pass `join_keys`: parts of an attention's keys are joined before their projection instead of behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import AttentionCall, UnreadableAttentionError, is_attention, read_attention
from samonnx.passes.graph_values import constant_array, replace_value, static_shape
from samonnx.passes.interface import Array, Exactness, GraphPass, PassResult
from samonnx.passes.linear_call import LinearCall, is_read_once, read_linear
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.rotary_call import RotaryCall, is_rotary, keeps_channels, once, read_rotary
from samonnx.passes.unread import remove_unread

__all__ = ["JoinKeys"]


@dataclass(frozen=True)
class JoinKeys(GraphPass):
    """[rot(M W + b); P W + b | mask] → rot([M; P | mask | 1] · [W 0; 0 1; b 0]): one product, rotation, and no copy.

        M ─ MatMul(W) ─ Add(b) ─ RotaryEmbedding ┐ tokens   channels
        P ─ MatMul(W) ─ Add(b) ──────────────────┴ Concat ─ Concat ─ K   →   X ─ MatMul(W') ─ RotaryEmbedding ─ K
                                                    mask ───┘
        with X = Concat(Concat(M, P), mask, 1), the same for all layers with the same M, P and mask.

    Joining moves the few channels of M (64 in memory attention), once, instead of the many of K (256) in each layer,
    and takes the mask's column (see `mask_as_channel`) and the bias with it. Tokens are turned by their positions
    in the table; those that are not turned take a row of angle 0, such as the grid's first. One layer's keys, from
    memory [1, 7, 5184, 64] and 64 pointers to K [1, 36352, 257], milliseconds (ONNX Runtime 1.31, 2 threads on 2 busy
    cores: CPU time ÷ 2, median and least of 9; wall time on such a machine says little):

                                                                         median   least
        traced (Gather, 4 Mul, Sub, Add, Concat), both Concat            27.2     23.6
        halves (one MatMul, Split, …), both Concat                       27.0     23.3
        turned by a second weight: (x W) ⊙ C + (x W J) ⊙ S, both Concat  34.2     31.4
        com.microsoft.RotaryEmbedding, both Concat                       17.1     15.6
        this, bias added behind the product, 264 channels                15.9     14.4
        this (257 channels)                                              12.5     11.7
        the product of this alone                                        10.8      9.7

    The odd number of channels costs nothing: MultiHeadAttention, 5,184 × 36,352, 64 value channels, takes 883 ms with
    256 channels, 879 with 257, 916 with 264, 945 with 272 (CPU time ÷ 2, median of 5).

    Exact:    in real arithmetic: a linear map and the rotation work token by token, so that they commute with joining
              tokens; mask and 1 meet only zeros, an identity and b; angle 0 turns nothing.
    Declines: several heads; parts with different W or b, or none that is turned; different tables, or tables without
              angle 0 where it is needed; parts, projections or joins that others read; other operators in between;
              weights that are not constant; projections that do not widen, whose inputs are no less to move.
    Cost:     no copies of K; (channels of mask + 1) / (channels of M) more multiply-adds in the projection; positions
              int64 [tokens].
    """

    name: ClassVar[str] = "join_keys"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        made: dict[tuple[object, ...], ir.Value] = {}
        for node in list(model.graph):
            if not is_attention(node):
                continue
            try:
                call = read_attention(node)
            except UnreadableAttentionError:
                continue
            keys = _joined_keys(call)
            if keys is not None:
                _rewrite(model.graph, call, keys, made)
                modified = True
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Part:
    """Tokens [batch · tokens, channels] of the keys: a projection, turned or not."""

    linear: LinearCall
    tokens: int
    rotary: RotaryCall | None


@dataclass(frozen=True)
class _Keys:
    """parts joined along the tokens; `columns` [batch, 1, keys, n] joined along the channels, if there are any."""

    parts: tuple[_Part, ...]
    columns: tuple[ir.Value, ...]
    rotary: RotaryCall
    """Any of the rotations."""
    still: int
    """The row of the tables that turns nothing."""


def _joined_keys(call: AttentionCall) -> _Keys | None:
    if call.heads != 1 or not is_read_once(call.key):
        return None
    body, columns = _without_columns(call)
    if body is None:
        return None
    joined = _through_regroups(body)
    node = joined.producer()
    if node is not None and node.op_type == "Concat" and not node.domain:
        shape = static_shape(joined) or ()
        if node.attributes.get_int("axis", 0) % len(shape) != len(shape) - 2:
            return None
        operands = list(node.inputs)
        batch = int(np.prod(shape[:-2], dtype=np.int64))
        if batch != call.batch:
            return None
    else:
        operands = [joined]
    parts = [_part(operand, call.batch) for operand in operands]
    found = [part for part in parts if part is not None]
    turned = [part.rotary for part in found if part.rotary is not None]
    if len(found) < len(parts) or not turned or (len(parts) == 1 and not columns):
        return None
    inputs, outputs = found[0].linear.weight.shape
    if inputs >= outputs or any(not _same_map(part.linear, found[0].linear) for part in found):
        return None
    if any(one.cosine is not turned[0].cosine or one.sine is not turned[0].sine for one in turned):
        return None
    still = _still_row(turned[0]) if len(turned) < len(parts) else 0
    return None if still is None else _Keys(tuple(found), columns, turned[0], still)


def _without_columns(call: AttentionCall) -> tuple[ir.Value | None, tuple[ir.Value, ...]]:
    """The projected channels of the keys, and what is joined to them along the channels."""
    node = call.key.producer()
    if node is None or node.op_type != "Concat" or node.domain or node.attributes.get_int("axis", 0) not in (-1, 3):
        return call.key, ()
    operands = [operand for operand in node.inputs if operand is not None]
    if len(operands) < 2 or not is_read_once(operands[0]) or any(static_shape(one) is None for one in operands):
        return None, ()
    return operands[0], tuple(operands[1:])


def _through_regroups(value: ir.Value) -> ir.Value:
    """`value` before reshapes that leave the tokens whole and in order, up to a value that others read too."""
    node = value.producer()
    while keeps_channels(node) and node is not None and node.inputs[0] is not None and is_read_once(node.inputs[0]):
        value = node.inputs[0]
        node = value.producer()
    return value


def _part(value: ir.Value | None, batch: int) -> _Part | None:
    if value is None or not is_read_once(value):
        return None
    inner = _through_regroups(value)
    rotary = read_rotary(inner.producer())
    if rotary is not None:
        inner = _through_regroups(rotary.input)
    elif is_rotary(inner.producer()):
        return None
    if not is_read_once(inner):
        return None
    linear = read_linear(inner)
    shape = static_shape(inner)
    if linear is None or shape is None:
        return None
    rows = int(np.prod(shape[:-1], dtype=np.int64))
    if rows % batch or (rotary is not None and (rows // batch) % rotary.tokens):
        return None
    return _Part(linear, rows // batch, rotary)


def _same_map(one: LinearCall, other: LinearCall) -> bool:
    """Whether both have the same weight and the same bias."""
    if not np.array_equal(one.weight, other.weight) or (one.bias is None) != (other.bias is None):
        return False
    return one.bias is None or other.bias is None or np.array_equal(one.bias, other.bias)


def _rewrite(graph: ir.Graph, call: AttentionCall, keys: _Keys, made: dict[tuple[object, ...], ir.Value]) -> None:
    build = NodeBuilder(graph, f"{call.name}/keys", call.node)
    linear = keys.parts[0].linear
    source = _source(build, call, keys, made)
    width, extra = linear.weight.shape[1], call.channels - linear.weight.shape[1]
    weight = build.constant("weight", _extended_weight(linear, extra))
    rows = call.batch * call.keys
    projected = _shaped(build.node("MatMul", source, weight), call, (call.batch, call.keys, call.channels))
    positions = _positions(build, call, keys, made)
    flat = _reshaped(build, projected, call, (rows, 1, call.channels))
    operands = (flat, keys.rotary.cosine, keys.rotary.sine, positions)
    turned = build.node("RotaryEmbedding", *operands, interleaved=1, num_heads=1, rotary_embedding_dim=width)
    key = _reshaped(build, _shaped(turned, call, (rows, 1, call.channels)), call, static_shape(call.key) or ())
    old = call.key.producer()
    replace_value(graph, call.key, key)
    remove_unread(graph, old)


def _source(build: NodeBuilder, call: AttentionCall, keys: _Keys, made: dict[tuple[object, ...], ir.Value]) -> ir.Value:
    """[M; P | columns | 1]: [batch, keys, C + extra (+ 1 if there is a bias)]."""
    linear = keys.parts[0].linear
    biased = linear.bias is not None
    key = ("source", biased, *(id(part.linear.data) for part in keys.parts), *map(id, keys.columns))

    def make() -> ir.Value:
        width = len(linear.weight)
        parts = [_reshaped(build, part.linear.data, call, (call.batch, part.tokens, width)) for part in keys.parts]
        joined = parts[0]
        if len(parts) > 1:
            joined = _shaped(build.node("Concat", *parts, axis=1), call, (call.batch, call.keys, width))
        operands = [joined]
        for column in keys.columns:
            operands.append(_reshaped(build, column, call, (call.batch, call.keys, (static_shape(column) or ())[-1])))
        if biased:
            one = build.constant("one", np.ones((1, 1, 1), call.dtype.numpy()))
            ones = build.node("Expand", one, build.integers("tokens", call.batch, call.keys, 1))
            operands.append(_shaped(ones, call, (call.batch, call.keys, 1)))
        if len(operands) == 1:
            return operands[0]
        channels = width + call.channels - linear.weight.shape[1] + int(biased)
        return _shaped(build.node("Concat", *operands, axis=2), call, (call.batch, call.keys, channels))

    return once(made, key, make)


def _extended_weight(linear: LinearCall, extra: int) -> Array:
    """[[W, 0], [0, 1], [b, 0]]."""
    weight, bias = linear.weight, linear.bias
    rows = len(linear.weight) + extra + (bias is not None)
    extended = np.zeros((rows, linear.weight.shape[1] + extra), weight.dtype)
    extended[: len(linear.weight), : linear.weight.shape[1]] = weight
    extended[len(linear.weight) : len(linear.weight) + extra, linear.weight.shape[1] :] = np.eye(extra)
    if bias is not None:
        extended[-1, : linear.weight.shape[1]] = bias
    return extended


def _still_row(rotary: RotaryCall) -> int | None:
    """The first row of the tables that turns nothing; None if there is none."""
    cosine, sine = constant_array(rotary.cosine), constant_array(rotary.sine)
    assert cosine is not None
    assert sine is not None
    still = np.flatnonzero((cosine == 1).all(1) & (sine == 0).all(1))
    return int(still[0]) if len(still) else None


def _positions(
    build: NodeBuilder, call: AttentionCall, keys: _Keys, made: dict[tuple[object, ...], ir.Value]
) -> ir.Value:
    """The row of the tables of each token, int64 [batch · keys, 1]."""
    pieces = [
        np.full(part.tokens, keys.still) if part.rotary is None else np.resize(part.rotary.positions, part.tokens)
        for part in keys.parts
    ]
    positions = np.tile(np.concatenate(pieces), call.batch).astype(np.int64)[:, None]
    return once(made, ("positions", positions.tobytes()), lambda: build.constant("positions", positions))


def _shaped(value: ir.Value, call: AttentionCall, shape: tuple[int, ...]) -> ir.Value:
    value.type, value.shape = ir.TensorType(call.dtype), ir.Shape(shape)
    return value


def _reshaped(build: NodeBuilder, value: ir.Value, call: AttentionCall, shape: tuple[int, ...]) -> ir.Value:
    if static_shape(value) == shape:
        return value
    return _shaped(build.node("Reshape", value, build.integers("shape", *shape)), call, shape)
