"""SAM against the transformers library's `SamModel` with our weights in it: written by others, from the same paper."""

from __future__ import annotations

import importlib
import re
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from samonnx.models.sam import TINY, Sam, build, corner_places
from samonnx.models.sam_vit import PATCH
from samonnx.weights import fill_seeded

SIZE, LOW, WIDTH, HIDDEN = 128, 32, 32, 64
_MATRIX = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
_RENAMED = (
    (r"^image_encoder\.", "vision_encoder."),
    (r"^vision_encoder\.blocks\.", "vision_encoder.layers."),
    (r"patch_embed\.proj\.", "patch_embed.projection."),
    (r"neck\.0\.", "neck.conv1."),
    (r"neck\.1\.", "neck.layer_norm1."),
    (r"neck\.2\.", "neck.conv2."),
    (r"neck\.3\.", "neck.layer_norm2."),
    (r"\.norm([1-4])\.", r".layer_norm\1."),
    (r"\.norm_final_attn\.", ".layer_norm_final_attn."),
    (r"point_embeddings\.", "point_embed."),
    (r"mask_downscaling\.0\.", "mask_embed.conv1."),
    (r"mask_downscaling\.1\.", "mask_embed.layer_norm1."),
    (r"mask_downscaling\.3\.", "mask_embed.conv2."),
    (r"mask_downscaling\.4\.", "mask_embed.layer_norm2."),
    (r"mask_downscaling\.6\.", "mask_embed.conv3."),
    (r"output_upscaling\.0\.", "upscale_conv1."),
    (r"output_upscaling\.1\.", "upscale_layer_norm."),
    (r"output_upscaling\.3\.", "upscale_conv2."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.0\.", r"\1.proj_in."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.2\.", r"\1.proj_out."),
    (r"(mlps\.\d|iou_prediction_head)\.layers\.1\.", r"\1.layers.0."),
)


def their_key(key: str) -> str:
    for pattern, replacement in _RENAMED:
        key = re.sub(pattern, replacement, key)
    return key


@cache
def ours() -> Sam:
    model = build("tiny", SIZE, WIDTH, HIDDEN).requires_grad_(False)
    fill_seeded(model)
    return model


@cache
def theirs() -> Any:
    pytest.importorskip("transformers")
    modeling = importlib.import_module("transformers.models.sam.modeling_sam")
    configuration = importlib.import_module("transformers.models.sam.configuration_sam")
    config = configuration.SamConfig(
        vision_config={
            "hidden_size": TINY.width,
            "output_channels": WIDTH,
            "num_hidden_layers": TINY.depth,
            "num_attention_heads": TINY.heads,
            "image_size": SIZE,
            "patch_size": PATCH,
            "window_size": TINY.window,
            "global_attn_indexes": list(TINY.global_blocks),
            "num_pos_feats": WIDTH // 2,
        },
        prompt_encoder_config={"hidden_size": WIDTH, "image_size": SIZE, "patch_size": PATCH},
        # The library's default for the decoder is 1e-6; the original normalises with 1e-5 there.
        mask_decoder_config={
            "hidden_size": WIDTH,
            "mlp_dim": HIDDEN,
            "iou_head_hidden_dim": WIDTH,
            "layer_norm_eps": 1e-5,
        },
    )
    model = modeling.SamModel(config).eval().requires_grad_(False)
    state = {their_key(key): value for key, value in ours().state_dict().items() if key != _MATRIX}
    for owner in ("shared_image_embedding", "prompt_encoder.shared_embedding"):
        state[f"{owner}.positional_embedding"] = ours().state_dict()[_MATRIX]
    model.load_state_dict(state)
    return model


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def relative(found: Tensor, expected: Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


IMAGE = noise(1, 3, SIZE, SIZE)
CLICK, CLICKS = ([[38.0, 51.0]], [1]), ([[38.0, 51.0], [90.0, 80.0]], [1, 0])
BOX = [20.0, 30.0, 70.0, 75.0]
Points = tuple[list[list[float]], list[int]]


def test_the_features_are_those_of_the_transformers_library() -> None:
    assert relative(ours().encode_image(IMAGE), theirs().get_image_embeddings(IMAGE)) < 1e-5


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize(
    ("points", "box", "masked"),
    [
        pytest.param(CLICK, None, False, id="click"),
        pytest.param(CLICKS, None, False, id="clicks"),
        pytest.param(None, BOX, False, id="box"),
        pytest.param(CLICKS, BOX, False, id="box and clicks"),
        pytest.param(CLICK, None, True, id="click and mask"),
        pytest.param(None, BOX, True, id="box and mask"),
        pytest.param(None, None, True, id="mask"),
    ],
)
def test_masks_and_ious_are_those_of_the_transformers_library(
    points: Points | None, box: list[float] | None, masked: bool, multimask: bool
) -> None:
    coords, labels = torch.full((1, 3, 2), 50.0), torch.full((1, 3), -1, dtype=torch.int32)
    given: dict[str, Tensor] = {}
    if points is not None:
        count = len(points[1])
        coords[0, :count], labels[0, :count] = torch.tensor(points[0]), torch.tensor(points[1], dtype=torch.int32)
        given |= {"input_points": torch.tensor([[points[0]]]), "input_labels": torch.tensor([[points[1]]])}
    corners = corner_places(torch.tensor([box or [0.0] * 4]), torch.tensor([box is not None]))
    if box is not None:
        given["input_boxes"] = torch.tensor([[box]])
    mask = 4 * noise(1, 1, LOW, LOW)
    if masked:
        given["input_masks"] = mask
    places = torch.cat((coords, corners[0]), dim=1), torch.cat((labels, corners[1]), dim=1)
    found = ours().predict(ours().encode_image(IMAGE), *places, mask, torch.tensor([masked])).of_mode(multimask)
    expected = theirs()(pixel_values=IMAGE, multimask_output=multimask, **given)
    assert relative(found.logits, expected.pred_masks[:, 0]) < 1e-5
    assert relative(found.ious, expected.iou_scores[:, 0]) < 1e-5
