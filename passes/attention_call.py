"""One standard `Attention` node, read as what it computes."""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from samonnx.passes.graph_values import static_shape

__all__ = [
    "MASKED_LOGIT",
    "AttentionCall",
    "UnreadableAttentionError",
    "before_batch",
    "is_attention",
    "read_attention",
]

MASKED_LOGIT = -1e30
"""What is added to the logit of a key that is not attended. exp(MASKED_LOGIT − maximum) is 0 in float32 as soon as one
key is attended, and a row with none stays finite: −∞ would make it NaN, and float32's lowest number, with a negative
logit added, could overflow to −∞. float16 cannot hold it."""


class UnreadableAttentionError(Exception):
    """Why an attention node is beyond the form that the passes work on."""


@dataclass(frozen=True)
class AttentionCall:
    """softmax(scale · Q Kᵀ + mask) V.

    Q is [B, H, queries, channels], K [B, H, keys, channels], V [B, H, keys, value_channels].

    `mask` is None, a float that is added, or a bool (false: not attended), and broadcasts to [B, H, queries, keys].
    """

    node: ir.Node
    query: ir.Value
    key: ir.Value
    value: ir.Value
    mask: ir.Value | None
    scale: float
    batch: int
    heads: int
    queries: int
    keys: int
    channels: int
    value_channels: int

    @property
    def output(self) -> ir.Value:
        """[B, H, queries, value_channels]."""
        return self.node.outputs[0]

    @property
    def dtype(self) -> ir.DataType:
        """Of query, key, value and output."""
        return self.query.dtype or ir.DataType.FLOAT

    @property
    def pairs(self) -> int:
        """Number of logits."""
        return self.batch * self.heads * self.queries * self.keys

    @property
    def name(self) -> str:
        """Prefix for what replaces the node."""
        return self.node.name or str(self.output.name)


def is_attention(node: ir.Node) -> bool:
    """Whether `node` is the standard operator."""
    return node.op_type == "Attention" and not node.domain


def read_attention(node: ir.Node) -> AttentionCall:
    """Raises `UnreadableAttentionError`: packed or grouped heads, symbolic shapes, caches, causal masks, soft caps,
    half precision."""
    operands = [*node.inputs, *[None] * (7 - len(node.inputs))]
    query, key, value, mask = operands[:4]
    if query is None or key is None or value is None:
        raise UnreadableAttentionError("an operand is missing")
    if any(operand is not None for operand in operands[4:]) or any(output.name for output in node.outputs[1:]):
        raise UnreadableAttentionError("it has a cache or further outputs")
    if node.attributes.get_int("is_causal", 0) or (
        "softcap" in node.attributes and node.attributes["softcap"].as_float()
    ):
        raise UnreadableAttentionError("it is causal or has a soft cap")
    if node.attributes.get_int("softmax_precision", int(query.dtype or 1)) != int(query.dtype or 1):
        raise UnreadableAttentionError("its softmax has another precision")
    if query.dtype not in (None, ir.DataType.FLOAT, ir.DataType.DOUBLE):
        raise UnreadableAttentionError(f"its dtype is {query.dtype}: rearranging it would round elsewhere")
    shapes = [static_shape(operand) for operand in (query, key, value)]
    if any(shape is None or len(shape) != 4 for shape in shapes):
        raise UnreadableAttentionError(f"shapes {query.shape}, {key.shape}, {value.shape}; expected rank 4 and static")
    (batch, heads, queries, channels), keys, values = (shape or () for shape in shapes)
    if keys[:2] != (batch, heads) or values[:2] != (batch, heads):
        raise UnreadableAttentionError("keys or values have other heads than the queries (grouped heads)")
    scale = node.attributes.get("scale")
    return AttentionCall(
        node, query, key, value, mask, float(channels) ** -0.5 if scale is None else scale.as_float(),
        batch, heads, queries, keys[2], channels, values[3],
    )  # fmt: skip


def before_batch(operand: ir.Value) -> ir.Value:
    """[1, ...] whose `Expand` along the batch alone `operand` [B, ...] is, since products repeat it by themselves;
    else `operand` itself."""
    node = operand.producer()
    if node is None or node.op_type != "Expand" or node.domain or node.inputs[0] is None:
        return operand
    before, after = static_shape(node.inputs[0]), static_shape(operand)
    same = before and after and len(before) == len(after) and before[0] == 1 and before[1:] == after[1:]
    return node.inputs[0] if same else operand
