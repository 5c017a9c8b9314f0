"""The pass `mask_as_channel`: a mask per key becomes one more channel of queries and keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import (
    MASKED_LOGIT,
    AttentionCall,
    UnreadableAttentionError,
    is_attention,
    read_attention,
)
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder
from samonnx.passes.shape_inference import infer_shapes

__all__ = ["MaskAsChannel"]


@dataclass(frozen=True)
class MaskAsChannel(GraphPass):
    """A mask [B, 1, 1, keys] of an attention → one more channel of Q (a constant) and of K (the mask).

        Attention(Q, K, V, mask; s)   →   Attention([Q, 1/s], [K, maskᵀ], V; s)

    since s · (q·k + (1/s) · m) = s · q·k + m. An engine's flash kernel works without a mask only (ONNX Runtime on
    CPUs: 2010 ms with a key mask, 1466 ms without, 1538 ms with the channel; 5,184 × 36,352, 256 channels).

    Exact:    in real arithmetic. In float32 a filled key (mask 0) adds an exact 0 to each logit; an empty one (−1e30)
              rounds to about −1e30, whose exponential is 0. Boolean masks become 0 and MASKED_LOGIT.
    Declines: masks that differ by query, fewer than `least_pairs` logits a head (there a sum is cheaper than a copy of
              K), masks with −∞ cannot be seen here: 0 · ∞ would be NaN, so whoever makes masks uses MASKED_LOGIT.
    Cost:     one copy of Q and one of K; 1/channels more multiply-adds for the logits.

    Attributes:
        least_pairs: smallest number of logits of one head that is worth it.
    """

    name: ClassVar[str] = "mask_as_channel"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    least_pairs: int = 1 << 20

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
            shape = _mask_per_key(call)
            if shape is not None and call.queries * call.keys >= self.least_pairs:
                _rewrite(model.graph, call, shape)
                modified = True
        if modified:
            infer_shapes(model)
        return PassResult(model, modified)


def _mask_per_key(call: AttentionCall) -> tuple[int, int] | None:
    """(batch or 1, heads or 1) of a mask that does not differ by query; None for others and for no mask."""
    shape = static_shape(call.mask)
    if shape is None:
        return None
    batch, heads, queries, keys = (1,) * (4 - len(shape)) + shape
    if (queries != 1 and call.queries != 1) or keys != call.keys:
        return None
    return batch, heads


def _rewrite(graph: ir.Graph, call: AttentionCall, mask_shape: tuple[int, int]) -> None:
    build = NodeBuilder(graph, f"{call.name}/masked", call.node)
    dtype = call.dtype.numpy()
    mask = call.mask
    if mask is not None and mask.dtype == ir.DataType.BOOL:
        zero, masked = build.constant("zero", np.zeros((), dtype)), build.constant("off", np.array(MASKED_LOGIT, dtype))
        mask = build.node("Where", mask, zero, masked)
    column = build.node("Reshape", mask, build.integers("column", *mask_shape, call.keys, 1))
    if mask_shape != (call.batch, call.heads):
        column = build.node("Expand", column, build.integers("all", call.batch, call.heads, call.keys, 1))
    scale = float(np.float32(call.scale))  # what the attribute can hold
    one = build.constant("weight", np.full((1, 1, 1, 1), 1 / scale, dtype))
    weight = build.node("Expand", one, build.integers("queries", call.batch, call.heads, call.queries, 1))
    query = build.node("Concat", call.query, weight, axis=3)
    key = build.node("Concat", call.key, column, axis=3)
    output = build.node("Attention", query, key, call.value, scale=scale)
    output.type, output.shape = call.output.type, call.output.shape
    replace_value(graph, call.output, output)
    graph.remove(call.node, safe=True)
