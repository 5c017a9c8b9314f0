"""One standard `RotaryEmbedding` node (opset 23), read as what it computes, and the axes that only move its tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, static_shape
from samonnx.passes.interface import Array

__all__ = ["RotaryCall", "is_rotary", "keeps_channels", "once", "read_rotary"]


@dataclass(frozen=True)
class RotaryCall:
    """Adjacent channel pairs (2i, 2i+1) of each token are turned by the angles of the token's position.

    `input` and the output are [1, groups, tokens, channels]; `cosine`, `sine` [positions, channels // 2] constants;
    `positions` int64 [tokens], the same for all groups.
    """

    node: ir.Node
    input: ir.Value
    cosine: ir.Value
    sine: ir.Value
    positions: Array
    groups: int
    tokens: int
    channels: int

    @property
    def output(self) -> ir.Value:
        """[1, groups, tokens, channels]."""
        return self.node.outputs[0]

    @property
    def name(self) -> str:
        """Prefix for what replaces the node."""
        return self.node.name or str(self.output.name)

    def tables(self) -> tuple[Array, Array]:
        """Cosines and sines by token, [tokens, channels // 2]."""
        cosine, sine = constant_array(self.cosine), constant_array(self.sine)
        assert cosine is not None
        assert sine is not None
        if np.array_equal(self.positions, np.arange(len(cosine))):
            return cosine, sine
        return cosine[self.positions], sine[self.positions]


def is_rotary(node: ir.Node | None) -> bool:
    """Whether `node` is the standard operator."""
    return node is not None and node.op_type == "RotaryEmbedding" and not node.domain


def read_rotary(node: ir.Node | None) -> RotaryCall | None:
    """None for other operators, and for a `RotaryEmbedding` that is not as `fuse_rotary` makes it: rank 4 with batch
    1, interleaved pairs, all channels turned, constant tables and positions."""
    if node is None or not is_rotary(node) or len(node.inputs) != 4:
        return None
    source, cosine, sine, positions = node.inputs
    shape = static_shape(source)
    ids = constant_array(positions)
    if source is None or cosine is None or sine is None or shape is None or len(shape) != 4 or ids is None:
        return None
    table = static_shape(cosine)
    turned = node.attributes.get_int("rotary_embedding_dim", 0) or shape[3]
    if (
        shape[0] != 1
        or not node.attributes.get_int("interleaved", 0)
        or turned != shape[3]
        or table is None
        or len(table) != 2
        or table != static_shape(sine)
        or table[1] * 2 != shape[3]
        or ids.shape != (1, shape[2])
        or constant_array(cosine) is None
        or constant_array(sine) is None
    ):
        return None
    return RotaryCall(node, source, cosine, sine, ids[0], *shape[1:])


_REGROUPS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def keeps_channels(node: ir.Node | None) -> bool:
    """Whether `node` gives its first operand another shape with the same last axis: every token stays whole and the
    tokens keep their order."""
    if node is None or node.domain or node.op_type not in _REGROUPS:
        return False
    before, after = static_shape(node.inputs[0]), static_shape(node.outputs[0])
    return bool(before) and bool(after) and (before or ())[-1] == (after or ())[-1]


def once(made: dict[tuple[object, ...], ir.Value], key: tuple[object, ...], make: Callable[[], ir.Value]) -> ir.Value:
    """`made[key]`, made at the first call."""
    if key not in made:
        made[key] = make()
    return made[key]
