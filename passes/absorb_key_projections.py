"""The pass `absorb_key_projections`: where few queries attend many keys, the queries are mapped to the keys' source
instead of the keys to the queries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import AttentionCall, UnreadableAttentionError, is_attention, read_attention
from samonnx.passes.graph_values import replace_value
from samonnx.passes.head_projection import HeadProjection, read_head_projection
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["AbsorbKeyProjections"]


@dataclass(frozen=True)
class AbsorbKeyProjections(GraphPass):
    """softmax(s · q (X W + b)ᵀ)(Y U + c) → (softmax((q · s Wᵀ) Xᵀ) Y) U + c, for each head.

        X ── W, b ── K [B,H,S,d] ──┐
        Y ── U, c ── V [B,H,S,e] ──┤
                     q [B,H,T,d] ── Attention ── y [B,H,T,e]

        q ── MatMul(s Wᵀ) ── Reshape [B,1,H·T,D] ──┐
                              X, Y [B,1,S,D] ── Attention ── Reshape [B,H,T,D] ── MatMul(U) ── Add(c) ── y

    The heads become queries of one head. SAM's mask decoder lets 7 to 12 tokens attend 4096 cells with 8 heads of 16
    channels: 56 to 96 products with 256 channels take the place of 2 · 128 for each cell.

    Exact:    in real arithmetic: matrix products associate; q bᵀ is the same for all keys of a query, which a softmax
              does not see; and its rows sum to one, so that c passes through.
    Declines: masks, other operators between the projections and the attention, one head (`sink_value_projection`),
              sources of different batches, and whatever does not lower the number of multiply-adds, counting a
              projection that others read as not saved.
    Cost:     before B·S·(D + D')·H·d + B·H·T·S·(d + e), after B·H·T·(S + d)·(D + D') multiply-adds, with D and D' the
              channels of X and Y.
    """

    name: ClassVar[str] = "absorb_key_projections"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what does not fit is left as it is."""
        modified = False
        for node in list(model.graph):
            if not is_attention(node):
                continue
            try:
                call = read_attention(node)
            except UnreadableAttentionError:
                continue
            if call.mask is not None or call.heads == 1:
                continue
            keys, values = read_head_projection(call.key), read_head_projection(call.value)
            if keys is None or values is None or keys.batch != values.batch:
                continue
            if _saves_work(call, keys, values):
                _absorb(model.graph, call, keys, values)
                modified = True
        if modified:
            infer_shapes(model)
        return PassResult(model, modified)


def _saves_work(call: AttentionCall, keys: HeadProjection, values: HeadProjection) -> bool:
    before = keys.multiply_adds + values.multiply_adds + call.pairs * (call.channels + call.value_channels)
    rows = call.batch * call.heads * call.queries
    mapped = rows * (call.channels * keys.width + call.value_channels * values.width)
    return call.pairs * (keys.width + values.width) + mapped < before


def _absorb(graph: ir.Graph, call: AttentionCall, keys: HeadProjection, values: HeadProjection) -> None:
    build = NodeBuilder(graph, f"{call.name}/absorbed", call.node)
    heads, queries, batch = call.heads, call.queries, call.batch
    # Keys that are the same for the whole batch are attended by the queries of all of it.
    groups, rows = (batch, heads * queries) if keys.batch == batch else (1, batch * heads * queries)
    # The scale goes into the weight: as an attribute it would be rounded to float32.
    weight = keys.weight.transpose(0, 2, 1) * np.array(call.scale, keys.weight.dtype)
    mapped = build.node("MatMul", call.query, build.constant("key_weight", weight))
    query = build.node("Reshape", mapped, build.integers("queries", groups, 1, rows, keys.width))
    query.type, query.shape = call.query.type, ir.Shape([groups, 1, rows, keys.width])
    sources = []
    for what, projection in (("keys", keys), ("values", values)):
        shape = (groups, 1, call.keys, projection.width)
        source = build.node("Reshape", projection.data, build.integers(what, *shape))
        source.type, source.shape = projection.data.type, ir.Shape(shape)
        sources.append(source)
    attended = build.node("Attention", query, *sources, scale=1.0)
    attended.type, attended.shape = call.output.type, ir.Shape([groups, 1, rows, values.width])
    split = build.node("Reshape", attended, build.integers("heads", batch, heads, queries, values.width))
    output = build.node("MatMul", split, build.constant("value_weight", values.weight))
    if values.bias is not None:
        output = build.node("Add", output, build.constant("value_bias", np.ascontiguousarray(values.bias)))
    output.type, output.shape = call.output.type, call.output.shape
    replace_value(graph, call.output, output)
    graph.remove(call.node, safe=True)
