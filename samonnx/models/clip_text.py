"""SAM 3's text encoder: CLIP's transformer over byte-pair tokens, and a linear map to the detector's width.

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021); upstream
`model/text_encoder_ve.py` (`VETextEncoder`) and the figures of `model_builder.py`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
from torch import Tensor, nn

from samonnx.errors import SamonnxError
from samonnx.models.mobileclip import VOCABULARY
from samonnx.models.packed_attention import PackedAttention
from samonnx.pins import BranchPoint, declare

__all__ = ["CLIP_TEXT_SIZES", "ClipTextEncoder", "ClipTextSize"]


@dataclass(frozen=True)
class ClipTextSize:
    """`projection`: columns of the matrix that nothing here reads, CLIP's own way to its joint space."""

    width: int
    depth: int
    heads: int
    projection: int


CLIP_TEXT_SIZES: Mapping[str, ClipTextSize] = MappingProxyType(
    {"sam3_text": ClipTextSize(1024, 24, 16, 512), "sam3_text_tiny": ClipTextSize(16, 2, 4, 8)}
)


class _ResidualBlock(nn.Module):
    """x + attention(ln_1(x)), then + feed-forward(ln_2) of ratio 4 with the exact GELU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = PackedAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.ln_2 = nn.LayerNorm(width)
        layers = {"c_fc": nn.Linear(width, 4 * width), "gelu": nn.GELU(), "c_proj": nn.Linear(4 * width, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, bias=bias)
        fed: Tensor = x + self.mlp(self.ln_2(x))
        return fed


class _Transformer(nn.Module):
    """The level `transformer.resblocks` in the checkpoint's names."""

    def __init__(self, size: ClipTextSize) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(_ResidualBlock(size.width, size.heads) for _ in range(size.depth))


class ClipTextTransformer(nn.Module):
    """Token ids i64 [B, L] → features of every token f32 [B, L, width]. Padding is a token like any other; it comes
    last, so the causal mask hides it from the rest.

    `text_projection` leads from a pooled token to CLIP's joint space; the detector reads the tokens, and it is a
    parameter only so that a released file loads whole.
    """

    branch_points: ClassVar[tuple[BranchPoint, ...]] = (
        BranchPoint("causal_masking", (True, False), "a token attends to itself and those before; false: to all"),
    )

    def __init__(self, size: ClipTextSize, positions: int) -> None:
        super().__init__()
        declare(self)
        self.token_embedding = nn.Embedding(VOCABULARY, size.width)
        self.positional_embedding = nn.Parameter(torch.zeros(positions, size.width))
        self.transformer = _Transformer(size)
        self.ln_final = nn.LayerNorm(size.width)
        self.text_projection = nn.Parameter(torch.zeros(size.width, size.projection))

    def forward(self, token_ids: Tensor) -> Tensor:
        length = token_ids.shape[1]
        bias = torch.full((1, 1, length, length), -torch.inf).triu(1) if self.causal_masking else None
        x = self.token_embedding(token_ids) + self.positional_embedding[:length]
        for block in self.transformer.resblocks:
            x = block(x, bias)
        normed: Tensor = self.ln_final(x)
        return normed


class ClipTextEncoder(nn.Module):
    """Token ids i64 [B, context_length], zero padded → text_features f32 [B, context_length, hidden_dim] and text_valid
    bool [B, context_length], true where the id is not 0.

    Id 0 is also a "!" that does not end a word; as upstream has it, that is not valid either. `positions`: rows of the
    checkpoint's position table, of which the first `context_length` are read. Raises SamonnxError for another number
    of tokens.
    """

    def __init__(self, size: ClipTextSize, context_length: int, hidden_dim: int, positions: int) -> None:
        super().__init__()
        self.context_length = context_length
        self.encoder = ClipTextTransformer(size, positions)
        self.resizer = nn.Linear(size.width, hidden_dim)

    def forward(self, token_ids: Tensor) -> tuple[Tensor, Tensor]:
        if token_ids.shape[1] != self.context_length:
            raise SamonnxError(
                f"token_ids: {token_ids.shape[1]} tokens a text found, {self.context_length} expected: cut or zero-pad "
                "the texts, or change model.args.context_length"
            )
        return self.resizer(self.encoder(token_ids)), token_ids != 0
