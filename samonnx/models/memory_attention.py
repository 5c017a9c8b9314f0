"""Memory attention: the current frame attends itself and the memories and pointers of earlier frames.

Ravi et al., "SAM 2" (2024); upstream `modeling/memory_attention.py` (SAM 2), `model/decoder.py` (SAM 3's
`TransformerEncoderCrossAttention`) and `sam/transformer.py` (`RoPEAttention`), with the rotary embedding in real
numbers.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.layers import ProjectedAttention
from samonnx.models.position_encoding import axial_rotary_table, rotate_pairs, sine_map
from samonnx.pins import BranchPoint, declare

__all__ = ["MemoryAttention", "MemoryAttentionLayer"]

RotaryTable = tuple[Tensor, Tensor]


class RotaryAttention(ProjectedAttention):
    """One-head attention whose queries and spatial keys are turned by the grid's axial rotary table."""

    def __init__(self, width: int, key_width: int | None = None) -> None:
        super().__init__(width, heads=1, key_width=key_width)

    def over_itself(self, q: Tensor, v: Tensor, rotary: RotaryTable) -> Tensor:
        """Self-attention of a frame: q (also the keys) and v f32 [B, cells, width]."""
        query, key = rotate_pairs(self.q_proj(q), *rotary), rotate_pairs(self.k_proj(q), *rotary)
        return self.attend(query[:, None], key[:, None], self.v_proj(v)[:, None])

    def over_memory(
        self, q: Tensor, memory_key: Tensor, memory: Tensor, pointer_key: Tensor, pointer: Tensor, rotary: RotaryTable
    ) -> Tensor:
        """q f32 [1 or O, cells, width]; memory_key, memory f32 [O, n, cells, C]; pointer_key, pointer f32 [O, p, C].

        The same table turns every memory map; pointer tokens are not turned.
        """
        objects = memory.shape[0]
        query = rotate_pairs(self.q_proj(q), *rotary).expand(objects, -1, -1)
        turned = rotate_pairs(self.k_proj(memory_key), *rotary).flatten(1, 2)
        key = torch.cat((turned, self.k_proj(pointer_key)), dim=1)
        value = torch.cat((self.v_proj(memory).flatten(1, 2), self.v_proj(pointer)), dim=1)
        return self.attend(query[:, None], key[:, None], value[:, None])


class MemoryAttentionLayer(nn.Module):
    """Self-attention, attention to the memory, ReLU feed-forward; norms before (pre-norm) or after each."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("pre_norm", (True, False), "norms before each part; false: after the residual sum"),
        BranchPoint(
            "position_at_self_attention", (True, False), "sine position added to queries and keys of self-attention"
        ),
        BranchPoint(
            "position_at_cross_attention_queries", (True, False), "sine position added to the queries to the memory"
        ),
        BranchPoint("position_at_cross_attention_keys", (True, False), "memory positions added to the memory's keys"),
    )

    def __init__(self, width: int, memory_width: int, hidden: int) -> None:
        super().__init__()
        declare(self)
        self.self_attn = RotaryAttention(width)
        self.cross_attn_image = RotaryAttention(width, key_width=memory_width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        memory: Tensor,
        memory_position: Tensor,
        pointer: Tensor,
        pointer_position: Tensor,
        rotary: RotaryTable,
    ) -> Tensor:
        memory_key, pointer_key = memory, pointer
        if self.position_at_cross_attention_keys:
            memory_key, pointer_key = memory + memory_position, pointer + pointer_position

        def attend_self(y: Tensor) -> Tensor:
            q = y + position if self.position_at_self_attention else y
            return self.self_attn.over_itself(q, y, rotary)

        def attend_memory(y: Tensor) -> Tensor:
            q = y + position if self.position_at_cross_attention_queries else y
            return self.cross_attn_image.over_memory(q, memory_key, memory, pointer_key, pointer, rotary)

        def feed_forward(y: Tensor) -> Tensor:
            out: Tensor = self.linear2(F.relu(self.linear1(y)))
            return out

        for norm, part in ((self.norm1, attend_self), (self.norm2, attend_memory), (self.norm3, feed_forward)):
            x = x + part(norm(x)) if self.pre_norm else norm(x + part(x))
        return x


class MemoryAttention(nn.Module):
    """features f32 [1, D, h, w], memory and its positions f32 [O, n, h·w, C], pointer tokens and theirs f32 [O, p, C]
    → conditioned features f32 [O, D, h, w]. n and p may be symbolic; the features are shared by the objects."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "position_at_input", (True, False), "0.1 x sine position added to the frame's features at the input"
        ),
    )

    position: Tensor
    cosine: Tensor
    sine: Tensor

    def __init__(self, width: int, memory_width: int, hidden: int, grid: int, depth: int = 4) -> None:
        super().__init__()
        declare(self)
        self.layers = nn.ModuleList(MemoryAttentionLayer(width, memory_width, hidden) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.grid = grid
        # Tables that depend on sizes only: not in checkpoints, and one copy for all layers.
        cosine, sine = axial_rotary_table(width, grid, grid)
        self.register_buffer("position", sine_map(width, grid, grid).flatten(1).T[None].contiguous(), persistent=False)
        self.register_buffer("cosine", cosine, persistent=False)
        self.register_buffer("sine", sine, persistent=False)

    def forward(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointer: Tensor, pointer_position: Tensor
    ) -> Tensor:
        x = features.flatten(2).transpose(1, 2)
        if self.position_at_input:
            x = x + 0.1 * self.position
        for layer in self.layers:
            x = layer(x, self.position, memory, memory_position, pointer, pointer_position, (self.cosine, self.sine))
        x = self.norm(x)
        conditioned: Tensor = x.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        return conditioned
