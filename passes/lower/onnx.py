"""The pass `lower_onnx`: what the target `onnx` (standard domain, any engine) should not be left to run as it is."""

from __future__ import annotations

import math
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
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.lower.mask_rows import mask_rows
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["LowerOnnx"]


@dataclass(frozen=True)
class LowerOnnx(GraphPass):
    """Attention → MatMul, Softmax, MatMul, in blocks of queries so that the logits stay small.

        y = Attention(Q, K, V, mask)   →   y = Concat over blocks Qᵢ of Softmax((scale · Qᵢ) Kᵀ + mask) V

    Measured, milliseconds (median; 2 cores, 1 head, 5,184 queries, 256 channels, value channels in brackets):

                                       5,184 keys [256]   36,352 keys [256]   36,352 keys [64]
        ONNX Runtime 1.31, Attention   378                2571                –
        ONNX Runtime, this, 1 block    228                1312 (mask: 1395)   820
        OpenVINO 2026.4, Attention     160                1362                –
        OpenVINO, this, 1 block        169                1481                945

    By number of blocks, at 36,352 keys [64], best of 5 (3 in OpenVINO) on a busy machine, medians too noisy:
    ONNX Runtime 837 in 1 block, with a mask 830 in 8, 876 in 16, 917 in 32, 953 in 64 (flash kernel: 915 without
    mask); OpenVINO 872 in 1, with a mask 916 in 8, 1526 in 32.

    ONNX Runtime also refuses a mask [B, 1, 1, keys] on `Attention`, which the standard allows. At 36,352 keys the
    logits of one block with a mask take 1.5 GB, those of eight blocks 0.2 GB. The small attentions of a mask decoder
    (8 heads, 12 × 5,184) take the same 1 ms either way.

    Operands that an `Expand` repeats along the batch are read before it: products repeat them by themselves (32 prompts
    in SAM's mask decoder: 59 of 2,300 ms).

    Exact:    in real arithmetic; the blocks change nothing, the scale moves to the queries. A boolean mask adds
              MASKED_LOGIT where it is false: rows with no key left are finite, where `Attention` gives NaN.
    Declines: attention with packed heads, caches, causal masks, soft caps: left as `Attention`, which is standard too.
    Cost:     3 or 4 nodes a block, and a transpose of K.

    Attributes:
        block_bytes: the logits of one block stay below this; one query is the smallest block.
    """

    name: ClassVar[str] = "lower_onnx"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    block_bytes: int = 96 << 20

    def call(self, model: ir.Model) -> PassResult:
        """Raises nothing: what it cannot read it leaves."""
        modified = False
        for node in list(model.graph):
            if not is_attention(node):
                continue
            try:
                call = read_attention(node)
            except UnreadableAttentionError:
                continue
            _decompose(model.graph, call, self.block_bytes)
            modified = True
        if modified:
            infer_shapes(model)
        return PassResult(model, modified)


def _decompose(graph: ir.Graph, call: AttentionCall, block_bytes: int) -> None:
    """Puts MatMul, Softmax, MatMul in the place of an attention node."""
    build = NodeBuilder(graph, call.name, call.node)
    blocks = min(call.queries, math.ceil(call.pairs * call.dtype.itemsize / block_bytes))
    scale = build.constant("scale", np.array(call.scale, call.dtype.numpy()))
    data, keys, values = map(before_batch, (call.query, call.key, call.value))
    query = build.node("Mul", data, scale)
    key = build.node("Transpose", keys, perm=(0, 1, 3, 2))
    mask = _additive(build, call)
    starts = [call.queries * block // blocks for block in range(blocks + 1)]
    parts: list[ir.Value] = [query]
    if blocks > 1:
        sizes = build.integers("blocks", *np.diff(starts).tolist())
        first = build.node("Split", query, sizes, axis=2, outputs=blocks)
        producer = first.producer()
        assert producer is not None
        parts = list(producer.outputs)
    per_query = mask is not None and mask.shape is not None and len(mask.shape) > 1 and mask.shape[-2] != 1
    results = []
    for block, part in enumerate(parts):
        logits = build.node("MatMul", part, key)
        if mask is not None:
            piece = mask
            if per_query and blocks > 1:
                piece = mask_rows(build, mask, starts[block], starts[block + 1])
            logits = build.node("Add", logits, piece)
        results.append(build.node("MatMul", build.node("Softmax", logits, axis=-1), values))
    output = build.node("Concat", *results, axis=2) if blocks > 1 else results[0]
    if call.batch > 1 and all(_is_single(operand) for operand in (data, keys, values, mask)):
        output = build.node("Expand", output, build.integers("batch", call.batch, 1, 1, 1))
    output.type, output.shape = call.output.type, call.output.shape
    replace_value(graph, call.output, output)
    graph.remove(call.node, safe=True)


def _is_single(operand: ir.Value | None) -> bool:
    """Whether it is the same for the whole batch."""
    shape = static_shape(operand) or ()
    return len(shape) < 4 or shape[0] == 1


def _additive(build: NodeBuilder, call: AttentionCall) -> ir.Value | None:
    if call.mask is None or call.mask.dtype != ir.DataType.BOOL:
        return call.mask
    zero = build.constant("zero", np.zeros((), call.dtype.numpy()))
    masked = build.constant("masked", np.array(MASKED_LOGIT, call.dtype.numpy()))
    additive = build.node("Where", call.mask, zero, masked)
    additive.shape, additive.type = call.mask.shape, ir.TensorType(call.dtype)
    return additive
