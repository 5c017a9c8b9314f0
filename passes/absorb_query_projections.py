"""The pass `absorb_query_projections`: where many queries attend few keys, the projections of queries and output go
into the keys and values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import (
    MASKED_LOGIT,
    AttentionCall,
    UnreadableAttentionError,
    before_batch,
    is_attention,
    read_attention,
)
from samonnx.passes.graph_values import constant_array, replace_value, static_shape
from samonnx.passes.head_projection import SWAP_HEADS_AND_ROWS, HeadProjection, read_head_projection
from samonnx.passes.interface import Array, Exactness, GraphPass, PassResult
from samonnx.passes.linear_call import is_read_once
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["AbsorbQueryProjections"]


@dataclass(frozen=True)
class AbsorbQueryProjections(GraphPass):
    """Σ over heads of softmax(s · (X W + b) kᵀ) v Z  →  softmax(X (s W kᵀ) + s b kᵀ) (v Z), the heads side by side.

        X ── W, b ── Q [B,H,S,d] ──┐
        k, v [B,H,T,..] ────────── Attention ── Transpose ── Reshape [B,S,H·e] ── MatMul(Z) ── y [B,S,C]

        M = s W kᵀ [B,D,H·T],  m = s b kᵀ (+ mask) [B,1,H·T],  N = v Z [B,H·T,C]
        X ── MatMul(M) ── Add(m) ── Reshape [B,S,H,T] ── Softmax ── Reshape [B,S,H·T] ── MatMul(N) ── y

    SAM's mask decoder has 4096 cells attend 7 to 12 tokens with 8 heads of 16 channels: 56 to 96 products with 256
    channels take the place of 128 for each cell, before and after the softmax, and nothing is moved by heads. Where X
    is the same for the whole batch, its projection is done once, so that often the part behind the softmax alone is
    absorbed.

    Exact:    in real arithmetic: matrix products associate, and the sum over the merged channels is one over heads. A
              boolean mask adds MASKED_LOGIT where it is false, see `lower_onnx`.
    Declines: masks that differ by query, one head, other operators between attention and output projection, weights
              that are not constant, other readers on the way, and whatever does not lower the number of multiply-adds.
    Cost:     behind the softmax B·S·H·(e·C + T·e) multiply-adds become B·H·T·(S + e)·C; before it B·S·D·H·d (once for a
              shared X) + B·S·H·T·d become B·H·T·(S + d)·D.
    """

    name: ClassVar[str] = "absorb_query_projections"
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
            output = _read_output(call)
            if output is None or call.heads == 1 or (call.mask is not None and _mask_of_keys(call.mask) is None):
                continue
            if _saves_behind(call, output):
                _absorb(model.graph, call, output)
                modified = True
        if modified:
            infer_shapes(model)
        return PassResult(model, modified)


@dataclass(frozen=True)
class _Output:
    """What merges the heads and projects them: `product` is the merged heads times `weight` [H, e, C]."""

    nodes: tuple[ir.Node, ...]
    """From the attention to the product; only they read each other."""
    weight: Array

    @property
    def product(self) -> ir.Value:
        return self.nodes[-1].outputs[0]


def _read_output(call: AttentionCall) -> _Output | None:
    transpose = _only_reader(call.output, "Transpose")
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != SWAP_HEADS_AND_ROWS:
        return None
    reshape = _only_reader(transpose.outputs[0], "Reshape")
    merged = (call.batch, call.queries, call.heads * call.value_channels)
    if reshape is None or static_shape(reshape.outputs[0]) != merged:
        return None
    product = _only_reader(reshape.outputs[0], "MatMul")
    weight = None if product is None else constant_array(product.inputs[1])
    if product is None or weight is None or weight.ndim != 2:
        return None
    return _Output((call.node, transpose, reshape, product), weight.reshape(call.heads, call.value_channels, -1))


def _only_reader(value: ir.Value, op_type: str) -> ir.Node | None:
    if not is_read_once(value):
        return None
    ((node, _),) = value.uses()
    return node if node.op_type == op_type and not node.domain else None


def _mask_of_keys(mask: ir.Value) -> ir.Value | None:
    """The mask as [B or 1, H or 1, 1, T], where it is the same for all queries; else None."""
    producer, shape = mask.producer(), static_shape(mask)
    if producer is not None and producer.op_type == "Expand" and not producer.domain and producer.inputs[0] is not None:
        shape = static_shape(producer.inputs[0])
        mask = producer.inputs[0]
    return mask if shape is not None and len(shape) == 4 and shape[2] == 1 else None


def _saves_behind(call: AttentionCall, output: _Output) -> bool:
    channels, rows = int(output.weight.shape[2]), call.batch * call.heads * call.keys
    before = call.batch * call.queries * call.heads * call.value_channels * (channels + call.keys)
    return rows * (call.queries + call.value_channels) * channels < before


def _saves_before(call: AttentionCall, queries: HeadProjection) -> bool:
    before = queries.multiply_adds + call.pairs * call.channels
    rows = call.batch * call.heads * call.keys
    bias = 0 if queries.bias is None else rows * call.channels
    return rows * (call.queries + call.channels) * queries.width + bias < before


def _absorb(graph: ir.Graph, call: AttentionCall, output: _Output) -> None:
    build = NodeBuilder(graph, f"{call.name}/absorbed", call.node)
    batch, heads, keys = call.batch, call.heads, call.keys
    keys_transposed = build.node("Transpose", call.key, perm=(0, 1, 3, 2))
    mask = _additive(build, call)
    queries = read_head_projection(call.query)
    if queries is not None and _saves_before(call, queries):
        logits = _logits_by_rows(build, call, queries, keys_transposed, mask)
        weights = build.node("Softmax", logits, axis=-1)
    else:
        scale = build.constant("scale", np.array(call.scale, call.dtype.numpy()))
        logits = build.node("MatMul", build.node("Mul", before_batch(call.query), scale), keys_transposed)
        if mask is not None:
            logits = build.node("Add", logits, mask)
        weights = build.node("Transpose", build.node("Softmax", logits, axis=-1), perm=SWAP_HEADS_AND_ROWS)
    side_by_side = build.node("Reshape", weights, build.integers("weights", batch, call.queries, heads * keys))
    projected = build.node("MatMul", call.value, build.constant("output_weight", output.weight))
    shape = build.integers("values", batch, heads * keys, output.weight.shape[2])
    product = build.node("MatMul", side_by_side, build.node("Reshape", projected, shape))
    product.type, product.shape = output.product.type, output.product.shape
    replace_value(graph, output.product, product)
    graph.remove(output.nodes, safe=True)


def _logits_by_rows(
    build: NodeBuilder,
    call: AttentionCall,
    queries: HeadProjection,
    keys_transposed: ir.Value,
    mask: ir.Value | None,
) -> ir.Value:
    """[B, S, H, T], without the queries."""
    batch, heads, keys = call.batch, call.heads, call.keys
    scale = np.array(call.scale, queries.weight.dtype)
    mapped = build.node("MatMul", build.constant("query_weight", queries.weight * scale), keys_transposed)
    columns = build.integers("keys", batch, queries.width, heads * keys)
    matrix = build.node("Reshape", build.node("Transpose", mapped, perm=SWAP_HEADS_AND_ROWS), columns)
    logits = build.node("MatMul", queries.data, matrix)
    shift = mask
    if queries.bias is not None:
        shift = build.node("MatMul", build.constant("query_bias", queries.bias * scale), keys_transposed)
        shift = shift if mask is None else build.node("Add", shift, mask)
    elif mask is not None:
        full = build.constant("all_heads", np.zeros((1, heads, 1, 1), queries.weight.dtype))
        shift = build.node("Add", mask, full)
    logits = build.node("Reshape", logits, build.integers("logits", batch, call.queries, heads, keys))
    if shift is None:
        return logits
    return build.node("Add", logits, build.node("Transpose", shift, perm=SWAP_HEADS_AND_ROWS))


def _additive(build: NodeBuilder, call: AttentionCall) -> ir.Value | None:
    """[B or 1, H or 1, 1, T], what is added to the logits."""
    mask = None if call.mask is None else _mask_of_keys(call.mask)
    if mask is None or mask.dtype != ir.DataType.BOOL:
        return mask
    zero = build.constant("zero", np.zeros((), call.dtype.numpy()))
    masked = build.constant("masked", np.array(MASKED_LOGIT, call.dtype.numpy()))
    return build.node("Where", mask, zero, masked)
