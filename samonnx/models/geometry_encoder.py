"""Geometry encoder of SAM 3: points, boxes and masks, in any mixture → prompt tokens for the detector.

    points ─► projection + pooled feature + position ─┐
    boxes  ─► projection + pooled features + position ─┼─► + label ─► layers over tokens and image ─┐
    CLS    ────────────────────────────────────────────┘                                            ├─► tokens
    masks  ─► convolutions, fused with the features ─────────────────────────────────► + label ─────┘

Carion et al., "SAM 3: Segment Anything with Concepts" (2025); upstream `SequenceGeometryEncoder` in
`model/geometry_encoders.py`.

Upstream moves the valid tokens of each kind to the front and pads on the right. Here every place keeps its own token,
and empty places are masked instead. That is the same: no token has a position, all layers but self-attention act on
each token alone, and self-attention is a weighted sum over the set of attended keys, in which a masked key has weight
zero. So a valid token depends on the set of valid tokens, never on their places. What lies in an empty place is
replaced by zeros first (a box of one cell to pool, a blank mask), so that no finite value there can overflow.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.geometry_layers import GeometryLayer, sine_of_coordinate
from samonnx.models.mask_prompt_encoder import MaskPromptEncoder
from samonnx.models.position_encoding import sine_map
from samonnx.models.roi_align_operator import pooled_boxes
from samonnx.pins import BranchPoint, declare

__all__ = ["GeometryEncoder"]

ROI_SIZE = 7
"""Bins a side that a box is pooled to."""

CORNER_LABEL_ROWS = 6
"""Rows of the label table, negative before positive, for points, upper left corners, lower right corners."""


class GeometryEncoder(nn.Module):
    """What was pointed at → tokens f32 [B, T, D], valid bool [B, T], in the order points, boxes, CLS, masks.

    T = K + N + 1 + M · grid² for K places for points, N for boxes, M for masks (`token_count`). Labels: 1 positive, 0
    negative, -1 empty place, whose token is not valid and whose content changes nothing, whatever finite value lies
    there. With nothing but empty places the CLS token alone is valid. Masks pass by the layers, and a prompt of masks
    alone has no valid CLS token (both as in upstream).

    `mask_prompts` adds `mask_encoder` and `mask_label_embed` (upstream's options `mask_encoder`, `add_mask_label`).
    `label_rows` is 6 for weights trained with boxes as pairs of corner points, else 2.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("project_points", (True, False), "coordinates of points are projected"),
        BranchPoint("pool_points", (True, False), "the image feature at each point is added"),
        BranchPoint("encode_point_positions", (True, False), "the sine encoding of points is added"),
        BranchPoint("boxes_as_points", (True, False), "a box is two points, its corners; false: one token of its own"),
        BranchPoint("project_boxes", (True, False), "centre and size of boxes are projected"),
        BranchPoint("pool_boxes", (True, False), "the image features inside each box (ROI pooling) are added"),
        BranchPoint("encode_box_positions", (True, False), "the sine encoding of box centres, and the size, are added"),
        BranchPoint("cls_token", (True, False), "a token that is always there; needed by the layers"),
        BranchPoint("final_projection", (True, False), "tokens are projected and normed in front of the layers"),
    )

    position: Tensor

    def __init__(
        self,
        hidden_dim: int,
        ffn_dim: int,
        heads: int,
        layers: int,
        grid: int,
        mask_prompts: bool = False,
        label_rows: int = 2,
    ) -> None:
        super().__init__()
        declare(self)
        self.grid = grid
        self.label_embed = nn.Embedding(label_rows, hidden_dim)
        self.cls_embed = nn.Embedding(1, hidden_dim)
        self.points_direct_project = nn.Linear(2, hidden_dim)
        self.points_pool_project = nn.Linear(hidden_dim, hidden_dim)
        self.points_pos_enc_project = nn.Linear(hidden_dim, hidden_dim)
        self.boxes_direct_project = nn.Linear(4, hidden_dim)
        self.boxes_pool_project = nn.Conv2d(hidden_dim, hidden_dim, ROI_SIZE)
        self.boxes_pos_enc_project = nn.Linear(hidden_dim + 2, hidden_dim)
        self.final_proj = nn.Linear(hidden_dim, hidden_dim)
        self.norm = nn.LayerNorm(hidden_dim)
        self.img_pre_norm = nn.LayerNorm(hidden_dim)
        self.encode = nn.ModuleList(GeometryLayer(hidden_dim, ffn_dim, heads) for _ in range(layers))
        self.encode_norm = nn.LayerNorm(hidden_dim) if layers else nn.Identity()
        self.mask_encoder = MaskPromptEncoder(hidden_dim, grid) if mask_prompts else None
        self.mask_label_embed = nn.Embedding(2, hidden_dim) if mask_prompts else None
        position = sine_map(hidden_dim, grid, grid).flatten(1).T[None].contiguous()
        self.register_buffer("position", position, persistent=False)

    def token_count(self, boxes: int, points: int, masks: int = 0) -> int:
        """T for this many places."""
        return points + boxes * (2 if self.boxes_as_points else 1) + (1 if self.cls_token else 0) + masks * self.grid**2

    def forward(
        self,
        features: Tensor,
        boxes: Tensor,
        box_labels: Tensor,
        points: Tensor,
        point_labels: Tensor,
        masks: Tensor | None = None,
        mask_labels: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """features f32 [B, D, grid, grid]; boxes f32 [B, N, 4] (centre x, centre y, width, height) and points f32
        [B, K, 2] (x, y), shares of the image; masks f32 [B, M, 4 grid, 4 grid] (0…1); labels i32 [B, N], [B, K],
        [B, M]. N and K may be 0.

        Raises SamonnxError where the pins leave no way to encode what is given.
        """
        self._check(boxes.shape[1], points.shape[1], masks is not None)
        cells = features.flatten(2).transpose(1, 2)
        pooled_from = features
        if self.pool_points or (self.pool_boxes and not self.boxes_as_points):
            normed: Tensor = self.img_pre_norm(cells)
            pooled_from = normed.transpose(1, 2).unflatten(2, (self.grid, self.grid))
        boxes, points = _blank(boxes, box_labels), _blank(points, point_labels)
        if self.boxes_as_points:
            half = boxes[..., 2:] * 0.5
            points = torch.cat((points, boxes[..., :2] - half, boxes[..., :2] + half), dim=1)
            point_labels = torch.cat((point_labels, _shifted(box_labels, 2), _shifted(box_labels, 4)), dim=1)

        groups: list[tuple[Tensor, Tensor]] = []
        if points.shape[1]:
            groups.append((self._encode_points(points, point_labels, pooled_from), point_labels >= 0))
        if boxes.shape[1] and not self.boxes_as_points:
            groups.append((self._encode_boxes(boxes, box_labels, pooled_from), box_labels >= 0))
        if self.cls_token:
            cls = self.cls_embed.weight[None].expand(features.shape[0], -1, -1)
            groups.append((cls, torch.ones(cls.shape[:2], dtype=torch.bool)))
        tokens, valid = (torch.cat(group, dim=1) for group in zip(*groups, strict=True))

        if self.final_projection:
            tokens = self.norm(self.final_proj(tokens))
        for layer in self.encode:
            tokens = layer(tokens, valid, cells, self.position)
        tokens = self.encode_norm(tokens)
        if masks is None or mask_labels is None:
            return tokens, valid
        mask_tokens, mask_valid = self._encode_masks(masks, mask_labels, pooled_from)
        # The layers need one attended token, so CLS is taken out of a prompt of masks alone only now.
        nothing_else = valid.sum(1, keepdim=True) == (1 if self.cls_token else 0)
        valid = valid & ~(nothing_else & mask_valid.any(1, keepdim=True))
        return torch.cat((tokens, mask_tokens), dim=1), torch.cat((valid, mask_valid), dim=1)

    def _check(self, boxes: int, points: int, masks: bool) -> None:
        name = "geometry encoder"
        if not (self.project_points or self.pool_points or self.encode_point_positions):
            raise SamonnxError(
                f"{name}: no way to encode points; pin one of project_points, pool_points, encode_point_positions true"
            )
        if self.boxes_as_points and self.label_embed.num_embeddings < CORNER_LABEL_ROWS:
            raise SamonnxError(
                f"{name}: boxes_as_points is pinned true, but label_embed has {self.label_embed.num_embeddings} rows "
                f"where corners need {CORNER_LABEL_ROWS}; pin it false, or build with label_rows={CORNER_LABEL_ROWS}"
            )
        if not (self.boxes_as_points or self.project_boxes or self.pool_boxes or self.encode_box_positions):
            raise SamonnxError(
                f"{name}: no way to encode boxes; pin one of boxes_as_points, project_boxes, pool_boxes, "
                "encode_box_positions true"
            )
        if not self.cls_token and (len(self.encode) or not boxes + points):
            raise SamonnxError(
                f"{name}: cls_token is pinned false, but with {len(self.encode)} layers and {boxes + points} places an "
                "empty prompt would leave nothing to attend; pin it true, or build without layers and with places"
            )
        if masks and self.mask_encoder is None:
            raise SamonnxError(
                f"{name}: masks are given, but the model has no encoder for masks, as in every released checkpoint; "
                "leave them out, or build with mask_prompts=True"
            )

    def _embed(self, labels: Tensor) -> Tensor:
        embedded: Tensor = self.label_embed(labels.clamp(min=0))
        return embedded

    def _encode_points(self, points: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """f32 [B, K, D]; the encoding has x before y."""
        parts: list[Tensor] = []
        if self.project_points:
            parts.append(self.points_direct_project(points))
        if self.pool_points:
            sampled = F.grid_sample(features, 2 * points[:, :, None] - 1, align_corners=False)
            parts.append(self.points_pool_project(sampled[..., 0].transpose(1, 2)))
        if self.encode_point_positions:
            encoded = sine_of_coordinate(points, features.shape[1] // 2).flatten(2)
            parts.append(self.points_pos_enc_project(encoded))
        return self._embed(labels) + _sum(parts)

    def _encode_boxes(self, boxes: Tensor, labels: Tensor, features: Tensor) -> Tensor:
        """f32 [B, N, D]; the encoding has y before x and height before width."""
        parts: list[Tensor] = []
        if self.project_boxes:
            parts.append(self.boxes_direct_project(boxes))
        if self.pool_boxes:
            half = boxes[..., 2:] * 0.5
            corners = torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), dim=-1) * self.grid
            bins = pooled_boxes(features, corners, ROI_SIZE)
            parts.append(self.boxes_pool_project(bins.flatten(0, 1)).flatten(1).unflatten(0, boxes.shape[:2]))
        if self.encode_box_positions:
            x, y, width, height = boxes.split(1, dim=-1)
            encoded = sine_of_coordinate(torch.cat((y, x), dim=-1), features.shape[1] // 2).flatten(2)
            parts.append(self.boxes_pos_enc_project(torch.cat((encoded, height, width), dim=-1)))
        return self._embed(labels) + _sum(parts)

    def _encode_masks(self, masks: Tensor, labels: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """f32 [B, M · grid², D] and which are valid; a mask has a token in each cell."""
        assert self.mask_encoder is not None
        assert self.mask_label_embed is not None
        tokens = self.mask_encoder(features, _blank(masks, labels))
        tokens = tokens + self.mask_label_embed(labels.clamp(min=0))[:, :, None]
        valid = (labels >= 0)[:, :, None].expand(-1, -1, self.grid**2)
        return tokens.flatten(1, 2), valid.flatten(1)


def _blank(places: Tensor, labels: Tensor) -> Tensor:
    """Zeros in empty places."""
    return torch.where((labels >= 0).reshape(labels.shape + (1,) * (places.ndim - labels.ndim)), places, 0.0)


def _shifted(labels: Tensor, rows: int) -> Tensor:
    """Labels further down the table; those of empty places stay."""
    return torch.where(labels >= 0, labels + rows, labels)


def _sum(parts: list[Tensor]) -> Tensor:
    total, *rest = parts
    for part in rest:
        total = total + part
    return total
