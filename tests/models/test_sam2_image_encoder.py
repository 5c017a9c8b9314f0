"""SAM 2's image encoder: the released names and shapes, its graph, the transformers library as a second source."""

from __future__ import annotations

import hashlib
import importlib
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from samonnx.errors import SamonnxError
from samonnx.graph_session import GraphSession
from samonnx.models.hiera import HIERA_SIZES, HieraSizes
from samonnx.models.sam2_image_encoder import ImageEncoder
from samonnx.programs.program import Component
from samonnx.trace import trace
from samonnx.weights import fill_seeded

# Maps of 32, 16, 8 and 4 cells a side; windows that are pooled twice, reach over the edge, and global ones.
TINY = HieraSizes(16, 1, (1, 1, 3, 1), (8, 4, 6, 3), (3,), 3)
CHANNELS, IMAGE_SIZE = 32, 128
LEVELS = ("level_0", "level_1", "level_2")


def tiny_encoder() -> ImageEncoder:
    encoder = ImageEncoder(TINY, IMAGE_SIZE, CHANNELS).eval().requires_grad_(False)
    fill_seeded(encoder)
    return encoder


def image() -> Tensor:
    return torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize(
    ("name", "count", "digest"),
    [
        ("t", 162, "3c7936d833a8bea9e02d7c08ed96bcd9"),
        ("s", 210, "db88dd11ff6c7a6d2591e493be4c0d6e"),
        ("b+", 306, "6c6c7f54bc6a036959a1936d5b8c55e6"),
        ("l", 594, "7a10e3e711553fc46c5c604781d21fa3"),
    ],
)
def test_the_state_dict_has_the_released_names_and_shapes(name: str, count: int, digest: str) -> None:
    """`digest`: SHA-256 of the sorted lines "<name> <shape>" of the released checkpoint's image encoder."""
    with torch.device("meta"):
        state = ImageEncoder(HIERA_SIZES[name]).state_dict()
    lines = sorted(f"image_encoder.{key} {','.join(map(str, value.shape))}" for key, value in state.items())
    assert len(lines) == count
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest().startswith(digest)
    width = HIERA_SIZES[name].embed_dim
    assert state["trunk.patch_embed.proj.weight"].shape == (width, 3, 7, 7)
    assert state["trunk.pos_embed_window"].shape == (1, width, 8, 8)
    assert state["neck.convs.0.conv.weight"].shape == (256, 8 * width, 1, 1)


def test_the_levels_are_the_necks_of_the_trunks_maps() -> None:
    encoder = tiny_encoder()
    levels = encoder(image())
    assert [tuple(level.shape) for level in levels] == [(1, 32, 32, 32), (1, 32, 16, 16), (1, 32, 8, 8)]
    assert all(torch.equal(a, b) for a, b in zip(levels, encoder.neck(encoder.trunk(image())), strict=True))


def test_onnx_runtime_gives_the_same_levels() -> None:
    encoder = tiny_encoder()
    traced = trace(Component("image_encoder", encoder, {"image": image()}, LEVELS))
    found = GraphSession(traced.model, threads=1).run({"image": image().numpy()})
    for name, expected in zip(LEVELS, encoder(image()), strict=True):
        assert relative(torch.from_numpy(found[name]), expected) < 3e-6


def test_an_image_size_that_hiera_does_not_take_is_refused() -> None:
    with pytest.raises(SamonnxError, match=r"model\.args\.image_size: 1000 pixels"):
        ImageEncoder(HIERA_SIZES["t"], 1000)


_THEIRS = (
    (r"^trunk\.", "backbone."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"\.conv\.", "."),
)


def their_key(key: str) -> str:
    for pattern, replacement in _THEIRS:
        key = re.sub(pattern, replacement, key)
    return key


def transformers_encoder(ours: ImageEncoder) -> Any:
    """The library's own implementation of the same figures, with our weights."""
    modeling = importlib.import_module("transformers.models.sam2.modeling_sam2")
    configuration = importlib.import_module("transformers.models.sam2.configuration_sam2")
    auto_model = importlib.import_module("transformers").AutoModel
    auto_model.register(configuration.Sam2HieraDetConfig, modeling.Sam2HieraDetModel, exist_ok=True)
    widths = list(TINY.widths)
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": TINY.embed_dim,
        "num_attention_heads": TINY.heads,
        "image_size": [IMAGE_SIZE, IMAGE_SIZE],
        "window_positional_embedding_background_size": [TINY.position_size] * 2,
        "blocks_per_stage": list(TINY.stages),
        "embed_dim_per_stage": widths,
        "num_attention_heads_per_stage": [TINY.heads << stage for stage in range(4)],
        "window_size_per_stage": list(TINY.windows),
        "global_attention_blocks": list(TINY.global_blocks),
    }
    figures = {"backbone_config": backbone, "backbone_channel_list": widths[::-1], "fpn_hidden_size": CHANNELS}
    sides = [[IMAGE_SIZE // 4 >> level] * 2 for level in range(3)]
    config = configuration.Sam2VisionConfig(**figures, backbone_feature_sizes=sides)
    theirs = modeling.Sam2VisionModel(config).eval().requires_grad_(False)
    theirs.load_state_dict({their_key(key): value for key, value in ours.state_dict().items()})
    return theirs


def test_the_levels_are_those_of_the_transformers_library() -> None:
    pytest.importorskip("transformers")
    ours = tiny_encoder()
    theirs = transformers_encoder(ours)(image())
    for found, expected in zip(ours(image()), theirs.fpn_hidden_states, strict=True):
        assert relative(found, expected) < 1e-5
