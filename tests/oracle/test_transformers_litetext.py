"""MobileCLIP's text encoders against the transformers library's (SAM3-LiteText), with the same weights.

The library enlarges or shrinks the position table where the original cuts it, and can hide padding where the original
does not. Here the table has the length of the text, and no mask is given.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from samonnx.models.mobileclip import MOBILECLIP_SIZES, VOCABULARY, MobileCLIPTextEncoder
from samonnx.pins import apply_pins
from samonnx.weights import fill_seeded

LENGTH = 16
WORDS = torch.tensor([[49406, 320, 1929, 49407, *[0] * 12], [49406, *range(700, 714), 49407]])

RENAMED = (
    ("embedding_layer.", "embeddings.token_embedding."),
    ("positional_embedding.pos_embed.pos_embed", "embeddings.position_embedding.position_embedding"),
    ("projection_layer", "projection.weight"),
    ("transformer.", "layers."),
    (".pre_norm_mha.0.", ".layer_norm1."),
    (".pre_norm_mha.1.", ".self_attn."),
    (".pre_norm_ffn.0.", ".layer_norm2."),
    (".pre_norm_ffn.1.", ".mlp.fc1."),
    (".pre_norm_ffn.4.", ".mlp.fc2."),
    (".norm.rbr_skip.", ".reference_batchnorm."),
    (".mixer.rbr_skip.", ".mixer.batchnorm_skip."),
    (".mixer.rbr_conv.0.conv.", ".mixer.conv."),
    (".mixer.rbr_conv.0.bn.", ".mixer.batchnorm_conv."),
    (".convffn.conv.conv.", ".conv_feed_forward.depthwise_conv."),
    (".convffn.conv.bn.", ".conv_feed_forward.depthwise_batchnorm."),
    (".convffn.fc", ".conv_feed_forward.mlp.fc"),
)


def library_state(ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    theirs = {}
    for key, value in ours.items():
        name = key
        for old, new in RENAMED:
            name = name.replace(old, new)
        if ".qkv_proj." in name:
            for part, tensor in zip("qkv", value.chunk(3), strict=True):
                theirs[name.replace(".qkv_proj.", f".{part}_proj.")] = tensor
        else:
            theirs[name] = value.T if key == "projection_layer" else value
    return theirs


def library_encoder(name: str, ours: MobileCLIPTextEncoder) -> Any:
    size = MOBILECLIP_SIZES[name]
    configuration = importlib.import_module("transformers.models.sam3_lite_text.configuration_sam3_lite_text")
    modeling = importlib.import_module("transformers.models.sam3_lite_text.modeling_sam3_lite_text")
    figures = configuration.Sam3LiteTextTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=size.width,
        intermediate_size=4 * size.width,
        projection_dim=size.width,
        num_hidden_layers=size.layers + (2 if size.repmixer else 0),
        num_attention_heads=size.heads,
        max_position_embeddings=LENGTH,
        use_repmixer_blocks=size.repmixer,
    )
    theirs = modeling.Sam3LiteTextTextModel(figures).eval().requires_grad_(False)
    theirs.load_state_dict(library_state(ours.state_dict()))
    return theirs


@pytest.mark.parametrize("name", ["mobileclip_s0_tiny", "mobileclip_s1_tiny", "mobileclip2_l_tiny"])
def test_every_token_has_the_librarys_features(name: str) -> None:
    ours = MobileCLIPTextEncoder(MOBILECLIP_SIZES[name], LENGTH).eval().requires_grad_(False)
    fill_seeded(ours)
    apply_pins(ours, {"causal_masking": False, "attend_padding": True})
    found, expected = ours(WORDS), library_encoder(name, ours)(WORDS).last_hidden_state
    assert found.shape == expected.shape
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
