"""Decoder of the detector: queries and a presence token attend one another, the prompt and the image, and each query
refines a box layer by layer.

Carion et al., "SAM 3: Segment Anything with Concepts" (2025), after DAB-DETR and Plain-DETR; upstream
`model/decoder.py` (`TransformerDecoder`).
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.box_position_bias import box_position_bias
from samonnx.models.layers import MLP
from samonnx.models.packed_attention import PackedAttention
from samonnx.models.position_encoding import sine_map
from samonnx.models.reference_boxes import box_sine, refined_boxes
from samonnx.pins import BranchPoint, declare

__all__ = ["CERTAIN_LOGIT", "DecodedQueries", "DetectorDecoder", "DetectorDecoderLayer"]

CERTAIN_LOGIT = 100.0
"""Presence logit of a decoder without presence token: its sigmoid is exactly 1 in float32."""


class DecodedQueries(NamedTuple):
    """Boxes are centre x, centre y, width, height, 0…1."""

    queries: Tensor
    """f32 [layers, B, Q, D]: after each layer, normed."""
    boxes: Tensor
    """f32 [B, Q, 4]: refined by the last layer."""
    reference_boxes: Tensor
    """f32 [layers, B, Q, 4]: as they enter each layer."""
    presence_logits: Tensor
    """f32 [layers, B, 1]: that the concept is in the image at all."""
    presence_token: Tensor
    """f32 [B, 1, D]: after the last layer, not normed."""


class DetectorDecoderLayer(nn.Module):
    """Self-attention, attention to the prompt, attention to the image, ReLU feed-forward; a norm after each."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("prompt_cross_attention", (True, False), "queries attend the prompt; false: that part is left out"),
    )

    def __init__(self, width: int, hidden: int, heads: int) -> None:
        super().__init__()
        declare(self)
        self.cross_attn = PackedAttention(width, heads)
        self.norm1 = nn.LayerNorm(width)
        self.ca_text = PackedAttention(width, heads)
        self.catext_norm = nn.LayerNorm(width)
        self.self_attn = PackedAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        position: Tensor,
        prompt: Tensor,
        prompt_valid: Tensor,
        memory_key: Tensor,
        memory: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """x and its position f32 [B, tokens, width], prompt f32 [B, T, width], prompt_valid bool [B, T], memory and its
        keys f32 [B, cells, width], bias f32 [B, heads, tokens, cells] → f32 [B, tokens, width].

        Positions are added to queries, and to the keys of self-attention, never to values.
        """
        q = x + position
        x = self.norm2(x + self.self_attn(q, q, x))
        if self.prompt_cross_attention:
            x = self.catext_norm(x + self.ca_text(x + position, prompt, prompt, key_valid=prompt_valid))
        x = self.norm1(x + self.cross_attn(x + position, memory_key, memory, bias=bias))
        out: Tensor = self.norm3(x + self.linear2(F.relu(self.linear1(x))))
        return out


class DetectorDecoder(nn.Module):
    """memory f32 [B, g·g, D], prompt f32 [B, T, D], prompt_valid bool [B, T] (true: a real token; at least one a row) →
    `DecodedQueries`."""

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint(
            "box_bias",
            ("log", "linear", "none"),
            "what boxes add to the attention to the image, of their distances to each cell: of the distances' "
            "logarithm, of the distances, or nothing",
        ),
        BranchPoint(
            "with_presence_token",
            (True, False),
            "a presence token goes through the layers with the queries; false: it does not, and presence is certain",
        ),
        BranchPoint(
            "box_head_on_normed_queries",
            (True, False),
            "boxes that go to the next layer are refined from normed queries; false: from queries before the norm (the "
            "last boxes always from normed ones)",
        ),
    )
    position: Tensor

    def __init__(self, hidden_dim: int, ffn_dim: int, heads: int, layers: int, queries: int, grid: int) -> None:
        super().__init__()
        declare(self)
        self.grid = grid
        self.layers = nn.ModuleList(DetectorDecoderLayer(hidden_dim, ffn_dim, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden_dim)
        self.bbox_embed = MLP(hidden_dim, hidden_dim, 4, 3)
        self.query_embed = nn.Embedding(queries, hidden_dim)
        self.reference_points = nn.Embedding(queries, 4)
        self.boxRPB_embed_x = MLP(2, hidden_dim, heads, 2)
        self.boxRPB_embed_y = MLP(2, hidden_dim, heads, 2)
        self.presence_token = nn.Embedding(1, hidden_dim)
        self.presence_token_head = MLP(hidden_dim, hidden_dim, 1, 3)
        self.presence_token_out_norm = nn.LayerNorm(hidden_dim)
        self.ref_point_head = MLP(2 * hidden_dim, hidden_dim, hidden_dim, 2)
        # Depends on sizes only: not in checkpoints.
        position = sine_map(hidden_dim, grid, grid).flatten(1).T[None].contiguous()
        self.register_buffer("position", position, persistent=False)

    def forward(self, memory: Tensor, prompt: Tensor, prompt_valid: Tensor) -> DecodedQueries:
        batch = memory.shape[0]
        memory_key = memory + self.position
        presence = self.presence_token.weight.expand(batch, -1, -1)
        queries = self.query_embed.weight.expand(batch, -1, -1)
        boxes = self.reference_points.weight.sigmoid().expand(batch, -1, -1)
        # The presence token goes in front of the queries; it has no position and no box.
        front = 1 if self.with_presence_token else 0
        x = torch.cat((presence, queries), dim=1) if self.with_presence_token else queries
        all_queries, all_boxes, all_presence_logits = [], [], []
        for index, layer in enumerate(self.layers):
            position = self.ref_point_head(box_sine(boxes, self.position.shape[-1] // 2))
            bias = self._bias(boxes)
            if self.with_presence_token:
                position = F.pad(position, (0, 0, front, 0))
                bias = None if bias is None else F.pad(bias, (0, 0, front, 0))
            x = layer(x, position, prompt, prompt_valid, memory_key, memory, bias)
            queries = x[:, front:]
            normed = self.norm(queries)
            all_boxes.append(boxes)
            last = index == len(self.layers) - 1
            read = normed if last or self.box_head_on_normed_queries else queries
            boxes = refined_boxes(boxes, self.bbox_embed(read))
            all_queries.append(normed)
            presence = x[:, :1] if self.with_presence_token else presence
            all_presence_logits.append(self._presence_logit(presence))
        return DecodedQueries(
            torch.stack(all_queries), boxes, torch.stack(all_boxes), torch.stack(all_presence_logits), presence
        )

    def _bias(self, boxes: Tensor) -> Tensor | None:
        if self.box_bias == "none":
            return None
        logarithmic = self.box_bias == "log"
        return box_position_bias(boxes, self.grid, self.boxRPB_embed_x, self.boxRPB_embed_y, logarithmic=logarithmic)

    def _presence_logit(self, presence: Tensor) -> Tensor:
        """f32 [B, 1, D] → [B, 1]."""
        if not self.with_presence_token:
            return torch.full(presence.shape[:2], CERTAIN_LOGIT)
        logit: Tensor = self.presence_token_head(self.presence_token_out_norm(presence)).squeeze(-1)
        return logit
