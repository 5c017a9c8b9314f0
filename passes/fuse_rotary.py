"""The pass `fuse_rotary`: a rotary embedding written out over channel pairs becomes one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.graph_values import constant_array, replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.rotary_call import once
from samonnx.passes.unread import remove_unread

__all__ = ["FuseRotary"]

_OPSET = 23
"""The first with `RotaryEmbedding`."""


@dataclass(frozen=True)
class FuseRotary(GraphPass):
    """Gather, four Mul, Sub, Add, Concat over channel pairs → one standard `RotaryEmbedding`.

                     ┌ Gather 0 ── r ─┐  r·c − i·s ── Unsqueeze ┐
        x ── Reshape ┤   [..., n/2]   ├                         ├ Concat ── Reshape ── y
          [..., n/2, 2] Gather 1 ── i ┘  r·s + i·c ── Unsqueeze ┘
        →   x ── Reshape ── RotaryEmbedding(c, s, positions; interleaved) ── Reshape ── y

    x is [..., tokens, n] with any leading axes; all of them turn by the same tables c, s [tokens, n/2], which therefore
    become "heads" of one batch, and the tables stay as they are: one pair for all slots, layers and objects. The
    lowerings choose how it is computed (see `lower_rotary`, `lower_rotary_ort_cpu`, `join_keys`).

    Exact:    the operator's definition: for each pair (r, i) it gives (c·r − s·i, s·r + c·i).
    Declines: tables that are not constant or not [tokens, n/2]; halves, products or sums that others read; dtypes that
              the operator does not take (float64), opsets before 23.
    Cost:     11 nodes become 1, and up to 2 reshapes, which move nothing.

    Attributes:
        dtypes: what may be turned; the schema's floats by default.
    """

    name: ClassVar[str] = "fuse_rotary"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    dtypes: tuple[ir.DataType, ...] = (ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        if model.opset_imports.get("", 0) < _OPSET:
            return PassResult(model, False)
        modified = False
        positions: dict[tuple[object, ...], ir.Value] = {}
        for node in list(model.graph):
            found = _match(node)
            if found is not None and found.source.dtype in self.dtypes:
                _fuse(model.graph, node, found, positions)
                modified = True
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Match:
    source: ir.Value
    """[..., tokens, n]."""
    cosine: ir.Value
    sine: ir.Value


def _made_by(value: ir.Value | None, op_type: str, readers: int) -> ir.Node | None:
    """The node of `op_type` that makes `value`, if just `readers` operands read it."""
    node = value.producer() if value is not None else None
    if value is None or node is None or node.op_type != op_type or node.domain or value.is_graph_output():
        return None
    return node if len(list(value.uses())) == readers else None


def _match(stack: ir.Node) -> _Match | None:
    """What `stack` (the last Concat) turns; None where it is no rotation of pairs."""
    shape = static_shape(stack.outputs[0]) if stack.op_type == "Concat" and not stack.domain else None
    if shape is None or len(shape) < 3 or shape[-1] != 2 or len(stack.inputs) != 2:
        return None
    if stack.attributes.get_int("axis", 0) % len(shape) != len(shape) - 1:
        return None
    turned = [_without_last_axis(part, shape) for part in stack.inputs]
    difference, total = _made_by(turned[0], "Sub", 1), _made_by(turned[1], "Add", 1)
    if difference is None or total is None:
        return None
    first, second = (_product(value) for value in difference.inputs)
    if first is None or second is None:
        return None
    (real, cosine), (imaginary, sine) = first, second
    products = [_product(value) for value in total.inputs]
    wanted = [(real, sine), (imaginary, cosine)]
    if products not in (wanted, wanted[::-1]):
        return None
    source = _paired(real, 0)
    tokens, half = shape[-3:-1]
    if source is None or source is not _paired(imaginary, 1) or static_shape(source) != (*shape[:-2], 2 * half):
        return None
    if any(static_shape(table) != (tokens, half) for table in (cosine, sine)):
        return None
    return _Match(source, cosine, sine)


def _without_last_axis(value: ir.Value | None, shape: tuple[int, ...]) -> ir.Value | None:
    """What becomes [..., 1] for the Concat."""
    for op_type in ("Unsqueeze", "Reshape"):
        node = _made_by(value, op_type, 1)
        if node is not None and node.inputs[0] is not None and static_shape(node.inputs[0]) == shape[:-1]:
            return node.inputs[0]
    return None


def _product(value: ir.Value | None) -> tuple[ir.Value, ir.Value] | None:
    """(channels, constant table)."""
    node = _made_by(value, "Mul", 1)
    if node is None:
        return None
    left, right = node.inputs
    if left is None or right is None:
        return None
    if constant_array(left) is not None:
        left, right = right, left
    return (left, right) if constant_array(left) is None and constant_array(right) is not None else None


def _paired(value: ir.Value, index: int) -> ir.Value | None:
    """x where `value` is element `index` of each of its pairs."""
    node = _made_by(value, "Gather", 2)
    if node is None or node.inputs[0] is None:
        return None
    shape, taken = static_shape(node.inputs[0]), constant_array(node.inputs[1])
    if not shape or shape[-1] != 2 or node.attributes.get_int("axis", 0) % len(shape) != len(shape) - 1:
        return None
    if taken is None or taken.shape != () or int(taken) % 2 != index:
        return None
    pairs = _made_by(node.inputs[0], "Reshape", 2)
    return None if pairs is None else pairs.inputs[0]


def _fuse(graph: ir.Graph, stack: ir.Node, match: _Match, made: dict[tuple[object, ...], ir.Value]) -> None:
    old = stack.outputs[0]
    build = NodeBuilder(graph, stack.name or str(old.name), stack)
    *leading, tokens, channels = static_shape(match.source) or ()
    grouped = (1, int(np.prod(leading, dtype=np.int64)), tokens, channels)
    positions = once(made, (tokens,), lambda: build.constant("positions", np.arange(tokens, dtype=np.int64)[None]))
    source = _reshaped(build, match.source, match.source, grouped)
    turned = build.node("RotaryEmbedding", source, match.cosine, match.sine, positions, interleaved=1)
    turned.type, turned.shape = match.source.type, ir.Shape(grouped)
    for reader, _ in list(old.uses()):
        shape = static_shape(reader.outputs[0])
        if reader.op_type == "Reshape" and not reader.domain and shape is not None and reader.inputs[0] is old:
            replace_value(graph, reader.outputs[0], _reshaped(build, turned, match.source, shape))
            graph.remove(reader, safe=True)
    if old.uses() or old.is_graph_output():
        replace_value(graph, old, _reshaped(build, turned, match.source, static_shape(old) or ()))
    remove_unread(graph, stack)  # the projection in front has one reader again


def _reshaped(build: NodeBuilder, value: ir.Value, like: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    if static_shape(value) == shape:
        return value
    new = build.node("Reshape", value, build.integers("shape", *shape))
    new.type, new.shape = like.type, ir.Shape(shape)
    return new
