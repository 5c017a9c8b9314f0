"""The pass `lower_ort_cpu`: large attentions for ONNX Runtime's flash kernel on CPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from samonnx.passes.attention_call import AttentionCall, UnreadableAttentionError, is_attention, read_attention
from samonnx.passes.graph_values import replace_value, static_shape
from samonnx.passes.interface import Exactness, GraphPass, PassResult
from samonnx.passes.node_builder import NodeBuilder

__all__ = ["LowerOrtCpu"]

_DOMAIN = "com.microsoft"
_SWAP_HEADS_AND_TOKENS = (0, 2, 1, 3)


@dataclass(frozen=True)
class LowerOrtCpu(GraphPass):
    """Attention without a mask → com.microsoft.MultiHeadAttention, where it is large.

        Q, K, V [B, H, S, D] ── Attention ── y   →   Q, K, V [B, S, H·D] ── MultiHeadAttention ── Transpose ── y

    A `Transpose` from [B, S, H, D] that feeds or follows the node is undone instead of repeated; with one head there
    is none. Measured, milliseconds (median; ONNX Runtime 1.31, 2 cores; 5,184 queries, 256 channels, 1 head):

        keys, value channels        5,184, 256   5,184, 64   36,352, 256   36,352, 64   memory at 36,352
        this, no mask               202          147         1466          866          0.1 GB
        this, mask as channel       208          157         1538          872          0.1 GB
        this, key mask input        306          –           2010          –            0.9 GB
        MatMul–Softmax–MatMul       228          136         1312          820          0.8 GB (8 blocks: 0.2)
        `Attention` (standard)      378          230         2571          –            0.8 GB

    and for 8 heads of 16 channels, 12 × 5,184: this 13 ms (2 at best), MatMul–Softmax–MatMul 1 ms. So only large
    single calls come here, for memory more than for speed; `lower_onnx` takes the rest.

    Exact:    in real arithmetic (the same sums in another order).
    Declines: masks (see `mask_as_channel`: with any mask input the flash kernel is lost), fewer than `least_pairs`
              logits, fewer than `least_channels` channels, dtypes other than float32, what `read_attention` refuses.
    Cost:     no logits in memory; one node and up to four reshapes.

    Attributes:
        least_pairs: smallest number of logits of one head that is worth it.
        least_channels: smallest number of Q and K channels a head.
    """

    name: ClassVar[str] = "lower_ort_cpu"
    exactness: ClassVar[Exactness] = Exactness.REAL_EXACT
    tolerance: ClassVar[float] = 1e-5

    least_pairs: int = 1 << 20
    least_channels: int = 32

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
            if call.mask is None and self._is_worth_it(call):
                _lower(model.graph, call)
                modified = True
        if modified:
            model.graph.opset_imports.setdefault(_DOMAIN, 1)
        return PassResult(model, modified)

    def _is_worth_it(self, call: AttentionCall) -> bool:
        large = call.queries * call.keys >= self.least_pairs and call.channels >= self.least_channels
        return large and call.dtype == ir.DataType.FLOAT


def _lower(graph: ir.Graph, call: AttentionCall) -> None:
    build = NodeBuilder(graph, call.name, call.node)
    operands = [_packed(build, value) for value in (call.query, call.key, call.value)]
    packed = build.node("MultiHeadAttention", *operands, domain=_DOMAIN, num_heads=call.heads, scale=call.scale)
    packed.shape = ir.Shape([call.batch, call.queries, call.heads * call.value_channels])
    packed.type = call.output.type
    split = (call.batch, call.queries, call.heads, call.value_channels)
    for consumer, _ in list(call.output.uses()):
        if _swaps(consumer) and call.heads > 1:  # the consumer wants what MultiHeadAttention gives
            replace_value(graph, consumer.outputs[0], _reshaped(build, packed, split))
            graph.remove(consumer, safe=True)
    if call.output.uses() or call.output.is_graph_output():
        replace_value(graph, call.output, _unpacked(build, packed, call, split))
    graph.remove(call.node, safe=True)


def _swaps(node: ir.Node | None) -> bool:
    if node is None or node.op_type != "Transpose" or node.domain:
        return False
    return tuple(node.attributes.get_ints("perm", ())) == _SWAP_HEADS_AND_TOKENS


def _packed(build: NodeBuilder, value: ir.Value) -> ir.Value:
    """[B, H, S, D] → [B, S, H·D]."""
    batch, heads, tokens, channels = static_shape(value) or ()
    producer = value.producer()
    if heads > 1:
        if _swaps(producer) and producer is not None and producer.inputs[0] is not None:
            value = producer.inputs[0]
        else:
            swapped = build.node("Transpose", value, perm=_SWAP_HEADS_AND_TOKENS)
            swapped.type, swapped.shape = value.type, ir.Shape([batch, tokens, heads, channels])
            value = swapped
    return _reshaped(build, value, (batch, tokens, heads * channels))


def _unpacked(build: NodeBuilder, packed: ir.Value, call: AttentionCall, split: tuple[int, ...]) -> ir.Value:
    """[B, S, H·D] → [B, H, S, D]."""
    if call.heads == 1:
        return _reshaped(build, packed, (call.batch, 1, call.queries, call.value_channels))
    output = build.node("Transpose", _reshaped(build, packed, split), perm=_SWAP_HEADS_AND_TOKENS)
    output.type, output.shape = call.output.type, call.output.shape
    return output


def _reshaped(build: NodeBuilder, value: ir.Value, shape: tuple[int, ...]) -> ir.Value:
    new = build.node("Reshape", value, build.integers("shape", *shape))
    new.type, new.shape = value.type, ir.Shape(shape)
    return new
