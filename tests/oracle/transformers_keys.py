"""Weights under SAM 3's checkpoint names → the names of the transformers library's `Sam3Model`.

The library keeps q, k and v apart, has no row for the class token in the position table, holds CLIP's projection the
other way round, and knows no points as prompts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from torch import Tensor

__all__ = ["transformers_state"]


class Section(NamedTuple):
    """Where a part of the model lies here and there, and which pieces of its dotted names change (in this order)."""

    ours: str
    theirs: str
    renamed: tuple[tuple[str, str], ...] = ()


_LAYER = (
    (".cross_attn_image.", ".cross_attn."),
    (".out_proj.", ".o_proj."),
    (".linear1.", ".mlp.fc1."),
    (".linear2.", ".mlp.fc2."),
)
_NORMS = tuple((f".norm{i}.", f".layer_norm{i}.") for i in (1, 2, 3))
_MLPS = tuple((f".layers.{i}.", f".layer{i + 1}.") for i in range(3))

SECTIONS = (
    Section(
        "backbone.vision_backbone.trunk.",
        "vision_encoder.backbone.",
        (
            (".pos_embed", ".embeddings.position_embeddings"),
            (".patch_embed.proj.", ".embeddings.patch_embeddings.projection."),
            (".ln_pre.", ".layer_norm."),
            (".blocks.", ".layers."),
            *_NORMS,
            (".attn.proj.", ".attention.o_proj."),
            (".attn.", ".attention."),
        ),
    ),
    Section(
        "backbone.vision_backbone.convs.",
        "vision_encoder.neck.fpn_layers.",
        (
            (".dconv_2x2_0.", ".scale_layers.0."),
            (".dconv_2x2_1.", ".scale_layers.2."),
            (".dconv_2x2.", ".scale_layers.0."),
            (".conv_1x1.", ".proj1."),
            (".conv_3x3.", ".proj2."),
        ),
    ),
    Section("backbone.language_backbone.resizer.", "text_projection."),
    Section("backbone.language_backbone.encoder.text_projection", "text_encoder.text_projection.weight"),
    Section(
        "backbone.language_backbone.encoder.",
        "text_encoder.text_model.",
        (
            (".token_embedding.", ".embeddings.token_embedding."),
            (".positional_embedding", ".embeddings.position_embedding.weight"),
            (".ln_final.", ".final_layer_norm."),
            (".transformer.resblocks.", ".encoder.layers."),
            (".attn.", ".self_attn."),
            (".ln_1.", ".layer_norm1."),
            (".ln_2.", ".layer_norm2."),
            (".mlp.c_fc.", ".mlp.fc1."),
            (".mlp.c_proj.", ".mlp.fc2."),
        ),
    ),
    Section(
        "geometry_encoder.",
        "geometry_encoder.",
        (
            *_NORMS,
            *_LAYER,
            (".img_pre_norm.", ".vision_layer_norm."),
            (".encode_norm.", ".output_layer_norm."),
            (".norm.", ".prompt_layer_norm."),
            (".encode.", ".layers."),
        ),
    ),
    Section("transformer.encoder.", "detr_encoder.", (*_NORMS, *_LAYER)),
    Section(
        "transformer.decoder.layers.",
        "detr_decoder.layers.",
        (
            (".cross_attn.", ".vision_cross_attn."),
            (".ca_text.", ".text_cross_attn."),
            *_LAYER,
            (".norm1.", ".vision_cross_attn_layer_norm."),
            (".norm2.", ".self_attn_layer_norm."),
            (".norm3.", ".mlp_layer_norm."),
            (".catext_norm.", ".text_cross_attn_layer_norm."),
        ),
    ),
    Section(
        "transformer.decoder.",
        "detr_decoder.",
        (
            (".norm.", ".output_layer_norm."),
            (".bbox_embed.", ".box_head."),
            (".presence_token_head.", ".presence_head."),
            (".presence_token_out_norm.", ".presence_layer_norm."),
            (".boxRPB_embed_x.", ".box_rpb_embed_x."),
            (".boxRPB_embed_y.", ".box_rpb_embed_y."),
            *_MLPS,
        ),
    ),
    Section(
        "segmentation_head.",
        "mask_decoder.",
        (
            (".mask_predictor.mask_embed.", ".mask_embedder."),
            (".instance_seg_head.", ".instance_projection."),
            (".semantic_seg_head.", ".semantic_projection."),
            (".cross_attend_prompt.", ".prompt_cross_attn."),
            (".cross_attn_norm.", ".prompt_cross_attn_norm."),
            (".out_proj.", ".o_proj."),
        ),
    ),
    Section(
        "dot_prod_scoring.",
        "dot_product_scoring.",
        (
            (".prompt_mlp.out_norm.", ".text_mlp_out_norm."),
            (".prompt_mlp.", ".text_mlp."),
            (".prompt_proj.", ".text_proj."),
            (".hs_proj.", ".query_proj."),
            *_MLPS,
        ),
    ),
)

_UNKNOWN_THERE = (
    "tracker.",
    "detector.backbone.vision_backbone.sam2_convs.",
    "detector.geometry_encoder.points_",
)

_PACKED = {"in_proj_weight": "weight", "in_proj_bias": "bias", "qkv.weight": "weight", "qkv.bias": "bias"}


def transformers_state(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `Sam3Model` from one of the whole model (`detector.*`, `tracker.*`).

    Raises KeyError for a name that lies in no section.
    """
    theirs: dict[str, Tensor] = {}
    for key, value in ours.items():
        if key.startswith(_UNKNOWN_THERE):
            continue
        name = _renamed(key)
        packed = next((end for end in _PACKED if name.endswith(f".{end}")), None)
        if packed is not None:
            stem = name.removesuffix(packed)
            parts = zip("qkv", value.chunk(3), strict=True)
            theirs.update({f"{stem}{part}_proj.{_PACKED[packed]}": tensor for part, tensor in parts})
        elif key.endswith(".trunk.pos_embed"):
            theirs[name] = value[:, 1:]
        elif key.endswith(".encoder.text_projection"):
            theirs[name] = value.T
        else:
            theirs[name] = value
    return theirs


def _renamed(key: str) -> str:
    name = key.removeprefix("detector.")
    section = next((section for section in SECTIONS if name.startswith(section.ours)), None)
    if section is None:
        raise KeyError(f"{key} lies in no section of the library's model")
    rest = f".{name.removeprefix(section.ours)}"
    for old, new in section.renamed:
        rest = rest.replace(old, new)
    return section.theirs + rest.removeprefix(".")
