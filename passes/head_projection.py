"""A projection of rows that is cut into attention heads, read as what it computes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from samonnx.passes.attention_call import before_batch
from samonnx.passes.graph_values import static_shape
from samonnx.passes.interface import Array
from samonnx.passes.linear_call import is_read_once, read_linear

__all__ = ["SWAP_HEADS_AND_ROWS", "HeadProjection", "read_head_projection"]

SWAP_HEADS_AND_ROWS = (0, 2, 1, 3)


@dataclass(frozen=True)
class HeadProjection:
    """value[b, h, s] = data[b, s] · weight[h] + bias[h]: `data` [B, S, D], `weight` [H, D, d], `bias` [H, 1, d] or
    None. B is 1 where `value` is the same for all of a larger batch. `saved`: nobody else reads what is projected."""

    data: ir.Value
    weight: Array
    bias: Array | None
    saved: bool

    @property
    def batch(self) -> int:
        return (static_shape(self.data) or (0,))[0]

    @property
    def width(self) -> int:
        """D."""
        return int(self.weight.shape[1])

    @property
    def multiply_adds(self) -> int:
        """Of the projection itself; 0 where it stays for others to read."""
        batch, rows, width = static_shape(self.data) or (0, 0, 0)
        return batch * rows * width * self.weight.shape[0] * self.weight.shape[2] if self.saved else 0


def read_head_projection(value: ir.Value) -> HeadProjection | None:
    """How `value` [B, H, S, d] is made, where that is

        data ── X W + b ── Reshape [B,S,H,d] ── Transpose [B,H,S,d] (── Expand along the batch) ── value

    with constant W and b and static shapes; else None."""
    saved = is_read_once(value)
    if (inner := before_batch(value)) is not value:
        saved, value = saved and is_read_once(inner), inner
    transpose = _made_by(value, "Transpose")
    if transpose is None or tuple(transpose.attributes.get_ints("perm", ())) != SWAP_HEADS_AND_ROWS:
        return None
    cut = transpose.inputs[0]
    reshape = _made_by(cut, "Reshape")
    if cut is None or reshape is None or reshape.inputs[0] is None:
        return None
    whole, heads = static_shape(reshape.inputs[0]), static_shape(cut)
    linear = read_linear(reshape.inputs[0])
    if linear is None or whole is None or heads is None or len(whole) != 3 or heads[:2] != whole[:2]:
        return None
    width, count, channels = linear.weight.shape[0], heads[2], heads[3]
    if static_shape(linear.data) != (*whole[:2], width):
        return None
    saved = saved and is_read_once(cut) and is_read_once(reshape.inputs[0])
    weight = np.ascontiguousarray(linear.weight.reshape(width, count, channels).transpose(1, 0, 2))
    bias = None if linear.bias is None else linear.bias.reshape(count, 1, channels)
    return HeadProjection(linear.data, weight, bias, saved)


def _made_by(value: ir.Value | None, op_type: str) -> ir.Node | None:
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type and not node.domain else None
