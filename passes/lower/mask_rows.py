"""Rows of an attention mask, without the mask as a whole."""

from __future__ import annotations

import onnx_ir as ir

from samonnx.passes.graph_values import static_shape
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["mask_rows"]


def mask_rows(build: NodeBuilder, mask: ir.Value, start: int, stop: int) -> ir.Value:
    """mask[..., start:stop, :] of a mask [..., queries, keys].

    A mask that is a sum of two broadcast terms, such as those of decomposed relative positions,

        down [..,Q,a,1] + right [..,Q,1,b] ── Reshape ── mask [..,Q,a·b],

    is cut before the sum, so that Q · a · b numbers never stand in memory together: elementwise operators and the
    Reshape of what comes after an axis commute with a cut along it. 12 heads, 4096 queries and keys, ONNX Runtime 1.31:
    the whole mask is 805 MB, and cutting it (`Split`) took 130 of the attention's some 900 ms.
    """
    terms = _terms(mask)
    if terms is None:
        return _cut(build, mask, -2, start, stop)
    shape = static_shape(mask) or ()
    pieces = [_cut(build, term, -3, start, stop) for term in terms]
    flat = build.integers(f"rows_{stop - start}", *shape[:-2], stop - start, shape[-1])
    return build.node("Reshape", build.node("Add", *pieces), flat)


def _terms(mask: ir.Value) -> tuple[ir.Value, ir.Value] | None:
    """The terms whose sum is reshaped to `mask`, with the queries as their third last axis; both of equal rank."""
    reshape = mask.producer()
    if reshape is None or reshape.op_type != "Reshape" or reshape.domain or reshape.inputs[0] is None:
        return None
    add = reshape.inputs[0].producer()
    if add is None or add.op_type != "Add" or add.domain:
        return None
    whole, summed = static_shape(mask), static_shape(add.outputs[0])
    if whole is None or summed is None or len(whole) < 2 or summed[:-2] != whole[:-1]:
        return None
    first, second = add.inputs
    if first is None or second is None:
        return None
    for term in (first, second):
        shape = static_shape(term)
        if shape is None or len(shape) != len(summed) or shape[-3] != whole[-2]:
            return None
    return first, second


def _cut(build: NodeBuilder, value: ir.Value, axis: int, start: int, stop: int) -> ir.Value:
    places = build.integers("from", start), build.integers("to", stop), build.integers("queries", axis)
    return build.node("Slice", value, *places)
