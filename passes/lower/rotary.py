"""The pass `lower_rotary`: rotary embeddings in operators that every opset has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import AttentionCall, UnreadableAttentionError, is_attention, read_attention
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Array, Exactness, GraphPass, PassResult
from samonnx.passes.linear_call import LinearCall, is_read_once, read_linear
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.rotary_call import RotaryCall, once, read_rotary
from samonnx.passes.unread import remove_unread

__all__ = ["LowerRotary"]

_Made = dict[tuple[object, ...], ir.Value]
_MOVES = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Transpose"})


@dataclass(frozen=True)
class LowerRotary(GraphPass):
    """RotaryEmbedding → two half products, four Mul, Sub, Add, Concat; or, without its projection, one swap matrix.

        K = Concat(rot(M W + b), P W + b), Q alike
        →   r, i = M W₀ + b₀, M W₁ + b₁;   K = Concat([r·c − i·s | r·s + i·c], P [W₀ | W₁] + [b₀ | b₁])

        where W₀ has the even columns of W and W₁ the odd ones: pairs become halves, in Q and in K. Elsewhere:
        rot(x) = x ⊙ C + (x J) ⊙ S, where C, S are c, s with each column twice, and J takes (r, i) to (−i, r).

    Measured, milliseconds (2 threads on 2 busy cores: CPU time ÷ 2, median and least of 11; ONNX Runtime 1.31, OpenVINO
    2026.4, float32), with the projection in front and the Concat with the pointers behind:

                                                    memory keys [1, 7, 5184, 256]    SAM 3's q [9, 16, 576, 64]
                                                    ONNX Runtime   OpenVINO          ONNX Runtime   OpenVINO
        traced (Gather, …, Concat, over pairs)      25.4 (21.8)    58.6 (56.4)       7.3 (7.0)      30.5 (28.7)
        halves by two products (first form)         24.2 (20.9)    17.8 (16.6)       –              –
        halves by Split                             26.4 (23.9)    20.4 (20.0)       9.3 (7.4)      9.1 (8.4)
        halves, swapped by Split and Concat         26.4 (23.2)    21.3 (19.6)       –              –
        second weight: (x W) ⊙ C + (x W J) ⊙ S      35.1 (29.8)    24.7 (24.0)       –              –
        swap matrix (second form)                   –              –                 10.9 (8.9)     10.8 (10.3)

    Exact:    in real arithmetic: q·k stays when the channels of q and k are permuted alike; both forms are the
              definition of the rotation, written out.
    Declines: what `read_rotary` cannot read. The first form: Q or K with other operators than moves and Concat of
              tokens between attention and projections, projections that others read, several heads.
    Cost:     first form: no pass over interleaved pairs, two products of half the width. Second form: 2 · channels
              multiply-adds an element, tables of twice the width, once for all nodes.
    """

    name: ClassVar[str] = "lower_rotary"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what it cannot read it leaves."""
        modified = False
        made: _Made = {}
        for node in list(model.graph):
            if is_attention(node):
                try:
                    modified |= _in_halves(model.graph, read_attention(node), made)
                except UnreadableAttentionError:
                    continue
        for node in list(model.graph):
            call = read_rotary(node)
            if call is not None:
                _by_swap_matrix(model.graph, call, made)
                modified = True
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Leaf:
    """A projection, turned or not, at the far end of the moves behind Q or K."""

    linear: LinearCall
    rotary: RotaryCall | None
    moves: tuple[ir.Value, ...]
    """Between projection and rotation, in the order of computing."""


def _in_halves(graph: ir.Graph, call: AttentionCall, made: _Made) -> bool:
    """Permutes the channels of Q and K if both end in projections and one is turned."""
    if call.key is call.query:
        return False
    trees = [_leaves(value) for value in (call.query, call.key)]
    leaves = [leaf for tree in trees if tree is not None for leaf in tree.values()]
    if any(tree is None for tree in trees) or all(leaf.rotary is None for leaf in leaves):
        return False
    if any(leaf.linear.weight.shape[1] != call.channels for leaf in leaves):
        return False
    build = NodeBuilder(graph, f"{call.name}/halves", call.node)
    for index, (value, tree) in enumerate(zip((call.query, call.key), trees, strict=True)):
        assert tree is not None
        call.node.replace_input_with(index, _permuted(build, value, tree, made))
        remove_unread(graph, value.producer())
    return True


def _leaves(value: ir.Value) -> dict[ir.Value, _Leaf] | None:
    """The projections behind `value` by the value at which the moves end; None where something else stands there."""
    node = value.producer()
    if node is None or node.domain or not is_read_once(value):
        return None
    rotary = read_rotary(node)
    if rotary is not None:
        inner, moves = rotary.input, []
        while is_read_once(inner) and len(operands := _moved(inner)) == 1:
            moves.append(inner)
            inner = operands[0]
        linear = read_linear(inner) if is_read_once(inner) else None
        return None if linear is None else {value: _Leaf(linear, rotary, tuple(moves[::-1]))}
    linear = read_linear(value)
    if linear is not None:
        return {value: _Leaf(linear, None, ())}
    operands = _moved(value)
    trees = [_leaves(operand) for operand in operands]
    if not operands or any(tree is None for tree in trees):
        return None
    return {end: leaf for tree in trees if tree is not None for end, leaf in tree.items()}


def _moved(value: ir.Value) -> list[ir.Value]:
    """The operands whose tokens `value` holds, each whole; empty where its node does something else."""
    node = value.producer()
    if node is None or node.domain or (node.op_type not in _MOVES and node.op_type != "Concat"):
        return []
    operands = [operand for operand in node.inputs if operand is not None]
    operands = operands if node.op_type == "Concat" else operands[:1]
    shapes, shape = [static_shape(operand) for operand in operands], static_shape(value)
    if not shape or any(not one or one[-1] != shape[-1] for one in shapes):
        return []
    last = len(shape) - 1
    if node.op_type == "Concat" and node.attributes.get_int("axis", 0) % len(shape) == last:
        return []
    if node.op_type == "Transpose" and node.attributes.get_ints("perm", (0,))[-1] != last:
        return []
    return operands


def _permuted(build: NodeBuilder, value: ir.Value, leaves: dict[ir.Value, _Leaf], made: _Made) -> ir.Value:
    """`value` with all even channels in front of the odd ones."""
    leaf = leaves.get(value)
    if leaf is not None:
        return _turned(build, leaf, made) if leaf.rotary is not None else _projected(build, leaf, slice(None))
    node = value.producer()
    assert node is not None
    operands = [_permuted(build, operand, leaves, made) for operand in _moved(value)]
    return _again(build, value, operands)


def _again(build: NodeBuilder, value: ir.Value, operands: list[ir.Value]) -> ir.Value:
    """The move that makes `value`, of other operands, whose last axis may have another length."""
    node = value.producer()
    assert node is not None
    shape = (*(static_shape(value) or ())[:-1], (static_shape(operands[0]) or ())[-1])
    match node.op_type:
        case "Concat":
            moved = build.node("Concat", *operands, axis=node.attributes.get_int("axis", 0))
        case "Transpose":
            moved = build.node("Transpose", operands[0], perm=tuple(node.attributes.get_ints("perm", ())))
        case "Expand":
            moved = build.node("Expand", operands[0], build.integers("shape", *shape))
        case _:
            moved = build.node("Reshape", operands[0], build.integers("shape", *shape))
    return _shaped(moved, value, shape)


def _shaped(value: ir.Value, like: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    value.type, value.shape = like.type, ir.Shape(shape)
    return value


def _projected(build: NodeBuilder, leaf: _Leaf, part: slice) -> ir.Value:
    """The channels `part`, counted with the even ones first."""
    linear = leaf.linear
    order = np.arange(linear.weight.shape[1]).reshape(-1, 2).T.ravel()[part]
    shape = (*(static_shape(linear.output) or ())[:-1], len(order))
    result = build.node("MatMul", linear.data, build.constant("weight", linear.weight[:, order]))
    if linear.bias is not None:
        _shaped(result, linear.output, shape)
        result = build.node("Add", result, build.constant("bias", linear.bias[order]))
    return _shaped(result, linear.output, shape)


def _turned(build: NodeBuilder, leaf: _Leaf, made: _Made) -> ir.Value:
    rotary = leaf.rotary
    assert rotary is not None
    half = rotary.channels // 2
    real, imaginary = (_projected(build, leaf, part) for part in (slice(None, half), slice(half, None)))
    for move in leaf.moves:
        real, imaginary = _again(build, move, [real]), _again(build, move, [imaginary])
    cosine, sine = _tables(build, rotary, made)
    shape = (1, rotary.groups, rotary.tokens, half)

    def combined(op_type: str, left: ir.Value, right: ir.Value) -> ir.Value:
        return _shaped(build.node(op_type, left, right), rotary.output, shape)

    first = combined("Sub", combined("Mul", real, cosine), combined("Mul", imaginary, sine))
    second = combined("Add", combined("Mul", real, sine), combined("Mul", imaginary, cosine))
    return _shaped(build.node("Concat", first, second, axis=-1), rotary.output, (*shape[:-1], 2 * half))


def _tables(build: NodeBuilder, rotary: RotaryCall, made: _Made) -> tuple[ir.Value, ir.Value]:
    """Cosines and sines [tokens, channels // 2]: the graph's own where the tokens take its rows in order."""
    tables = rotary.tables()
    if len(tables[0]) == (static_shape(rotary.cosine) or (0,))[0] and np.array_equal(
        rotary.positions, np.arange(rotary.tokens)
    ):
        return rotary.cosine, rotary.sine
    return _stored(build, rotary, made, "cosine", tables[0]), _stored(build, rotary, made, "sine", tables[1])


def _stored(build: NodeBuilder, rotary: RotaryCall, made: _Made, what: str, array: Array) -> ir.Value:
    key = (what, array.shape, id(rotary.cosine), id(rotary.sine), rotary.positions.tobytes())
    return once(made, key, lambda: build.constant(what, array))


def _by_swap_matrix(graph: ir.Graph, rotary: RotaryCall, made: _Made) -> None:
    """x ⊙ C + (x J) ⊙ S."""
    build = NodeBuilder(graph, rotary.name, rotary.node)
    cosine, sine = (np.repeat(table, 2, axis=1) for table in rotary.tables())
    swap = np.zeros((rotary.channels, rotary.channels), cosine.dtype)
    even = np.arange(0, rotary.channels, 2)
    swap[even + 1, even], swap[even, even + 1] = -1, 1
    matrix = once(made, ("swap", swap.shape, swap.dtype.name), lambda: build.constant("swap", swap))
    swapped = build.node("MatMul", rotary.input, matrix)
    kept = build.node("Mul", rotary.input, _stored(build, rotary, made, "cosines", cosine))
    crossed = build.node("Mul", swapped, _stored(build, rotary, made, "sines", sine))
    turned = build.node("Add", kept, crossed)
    for value in (swapped, kept, crossed, turned):
        value.type, value.shape = rotary.output.type, rotary.output.shape
    replace_value(graph, rotary.output, turned)
    graph.remove(rotary.node, safe=True)
