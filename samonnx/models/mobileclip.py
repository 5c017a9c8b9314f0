"""MobileCLIP's text transformer with EfficientSAM3's projector: tokens → one feature vector a token.

    token ids ─► embedding + position ─► (RepMixer block) ─► attention layers ─► (RepMixer block) ─► norm ─► projector

Vasu et al., "MobileCLIP" (CVPR 2024); upstream `backbones/mobile_clip.py` (`MobileCLIPTextTransformer`) and
`model/text_encoder_student.py`; the figures of each size are those of `_create_student_text_encoder` in
`model_builder.py`. Embeddings are not scaled: upstream computes a scale and never applies it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.mobileclip_repmixer import RepMixerBlock
from samonnx.pins import BranchPoint, declare

__all__ = [
    "MOBILECLIP_SIZES",
    "VOCABULARY",
    "MobileCLIPLanguageBackbone",
    "MobileCLIPSize",
    "MobileCLIPTextEncoder",
    "TextLayer",
]

VOCABULARY = 49408
"""Entries of CLIP's byte-pair vocabulary; 49406 starts a text, 49407 ends it, 0 pads it."""


@dataclass(frozen=True)
class MobileCLIPSize:
    """`layers`: attention layers; `repmixer`: one RepMixer block before them and one behind."""

    width: int
    heads: int
    layers: int
    repmixer: bool = False


MOBILECLIP_SIZES: Mapping[str, MobileCLIPSize] = MappingProxyType(
    {
        "mobileclip_s0": MobileCLIPSize(512, 8, 4, repmixer=True),
        "mobileclip_s1": MobileCLIPSize(512, 8, 12),
        "mobileclip2_l": MobileCLIPSize(768, 12, 12),
        "mobileclip_s0_tiny": MobileCLIPSize(16, 2, 2, repmixer=True),
        "mobileclip_s1_tiny": MobileCLIPSize(16, 2, 2),
        "mobileclip2_l_tiny": MobileCLIPSize(16, 4, 2),
    }
)


class SelfAttention(nn.Module):
    """softmax(q kᵀ / sqrt(width / heads)) v of all heads, projected; `qkv_proj` has rows in the order q, k, v."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv_proj(x).chunk(3, dim=-1))
        merged = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
        attended: Tensor = self.out_proj(merged)
        return attended


class TextLayer(nn.Module):
    """x f32 [B, L, width] → the same: residual self-attention, then residual GELU feed-forward, norms before each.

    `mask`: bool [B or 1, 1, L, L], query before key, true where attended (None: everywhere).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.pre_norm_mha = nn.ModuleList([nn.LayerNorm(width), SelfAttention(width, heads)])
        # The place of a dropout: the checkpoint counts it.
        dropout = nn.Identity()
        self.pre_norm_ffn = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), dropout, nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        norm, attention = self.pre_norm_mha
        x = x + attention(norm(x), mask)
        mixed: Tensor = x + self.pre_norm_ffn(x)
        return mixed


class _PositionTable(nn.Module):
    """The level `positional_embedding.pos_embed` in the checkpoint's names."""

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1, positions, width))


class _PositionalEmbedding(nn.Module):
    """The level `positional_embedding` in the checkpoint's names: the table's first `length` rows, [1, length, width].

    Upstream cuts the table to the context length after loading; its resize of a table of another length never runs.
    """

    def __init__(self, positions: int, width: int) -> None:
        super().__init__()
        self.pos_embed = _PositionTable(positions, width)

    def forward(self, length: int) -> Tensor:
        return self.pos_embed.pos_embed[0, :, :length]


class MobileCLIPTextEncoder(nn.Module):
    """token_ids i64 [B, L], 0…`VOCABULARY` - 1 → f32 [B, L, width], every token after the last norm.

    L is at most `positions`. `projection_layer`, which takes CLIP's pooled token to its image space, is never read; it
    is kept so that a file loads whole.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("causal_masking", (True, False), "a token attends to itself and those before; false: to all"),
        BranchPoint(
            "attend_padding",
            (True, False),
            "padding is attended like other tokens; false: not at all, unless causal masking, which replaces that mask",
        ),
    )

    def __init__(self, size: MobileCLIPSize, positions: int) -> None:
        super().__init__()
        declare(self)
        width = size.width
        self.embedding_layer = nn.Embedding(VOCABULARY, width)
        self.positional_embedding = _PositionalEmbedding(positions, width)
        layers: list[nn.Module] = [TextLayer(width, size.heads) for _ in range(size.layers)]
        if size.repmixer:
            layers = [RepMixerBlock(width), *layers, RepMixerBlock(width)]
        self.transformer = nn.ModuleList(layers)
        self.final_layer_norm = nn.LayerNorm(width)
        self.projection_layer = nn.Parameter(torch.zeros(width, width))

    def forward(self, token_ids: Tensor) -> Tensor:
        x: Tensor = self.embedding_layer(token_ids) + self.positional_embedding(token_ids.shape[1])
        mask = self._mask(token_ids)
        for layer in self.transformer:
            x = layer(x, mask) if isinstance(layer, TextLayer) else layer(x)
        x = self.final_layer_norm(x)
        return x

    def _mask(self, token_ids: Tensor) -> Tensor | None:
        length = token_ids.shape[1]
        if self.causal_masking:
            place = torch.arange(length)
            return (place[:, None] >= place)[None, None]
        if not self.attend_padding:
            # ONNX Runtime's Attention takes a mask for every query and broadcasts only its batch and heads.
            return (token_ids != 0)[:, None, None].expand(-1, -1, length, -1)
        return None


class MobileCLIPLanguageBackbone(nn.Module):
    """token_ids i64 [B, context_length], zero padded → text_features f32 [B, context_length, hidden_dim] and text_valid
    bool [B, context_length], true where the id is not 0.

    As upstream has it, id 0 is padding wherever it stands, although it is also a "!" that does not end a word. With
    `attend_padding: false` each text needs a token that is not 0. Raises SamonnxError for another number of tokens.
    """

    def __init__(self, size: MobileCLIPSize, context_length: int, hidden_dim: int, positions: int) -> None:
        super().__init__()
        self.context_length = context_length
        self.encoder = MobileCLIPTextEncoder(size, positions)
        self.projector = nn.Linear(size.width, hidden_dim)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        if token_ids.shape[1] != self.context_length:
            raise SamonnxError(
                f"token_ids: {token_ids.shape[1]} tokens a text found, {self.context_length} expected: cut or zero-pad "
                "the texts, or change model.args.context_length"
            )
        return self.projector(self.encoder(token_ids)), token_ids != 0
