"""The text encoders of SAM 3 and EfficientSAM3, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from torch import nn

from samonnx.errors import SamonnxError
from samonnx.models.clip_text import CLIP_TEXT_SIZES, ClipTextEncoder
from samonnx.models.mobileclip import MOBILECLIP_SIZES, MobileCLIPLanguageBackbone

__all__ = ["TEXT_ENCODERS", "LanguageBackboneBuilder", "build_language_backbone"]

LanguageBackboneBuilder = Callable[[int, int, int], nn.Module]
"""(context_length, hidden_dim, positions) → a module as `build_language_backbone` returns it; the three are checked."""

TEXT_ENCODERS: Mapping[str, LanguageBackboneBuilder] = MappingProxyType(
    {
        **{name: partial(MobileCLIPLanguageBackbone, size) for name, size in MOBILECLIP_SIZES.items()},
        **{name: partial(ClipTextEncoder, size) for name, size in CLIP_TEXT_SIZES.items()},
    }
)
"""Every name that `build_language_backbone` knows, and what builds it; those that end in `_tiny` are scaled down for
tests, with the whole vocabulary."""


def build_language_backbone(name: str, context_length: int, hidden_dim: int, positions: int = 77) -> nn.Module:
    """The encoder `name` (one of `TEXT_ENCODERS`) with its projection to `hidden_dim`:

        token_ids i64 [B, L], zero padded → text_features f32 [B, L, hidden_dim], text_valid bool [B, L]

    where L is `context_length`. `positions`: rows of the checkpoint's position table, of which the first L are used.
    Its branch points are still to be pinned. Raises SamonnxError for an unknown name, a table without rows, and a
    context length that the table does not hold.
    """
    if name not in TEXT_ENCODERS:
        raise SamonnxError(f"model.args.text_encoder: unknown text encoder {name!r}; known: {', '.join(TEXT_ENCODERS)}")
    if positions < 1:
        raise SamonnxError(f"model.args.text_positions: {positions} found, at least 1 expected")
    if not 1 <= context_length <= positions:
        raise SamonnxError(
            f"model.args.context_length: {context_length} found, 1…{positions} expected: the position table has "
            f"{positions} rows (model.args.text_positions) and is not interpolated"
        )
    return TEXT_ENCODERS[name](context_length, hidden_dim, positions)
