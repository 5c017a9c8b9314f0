"""Mask prompts: one token a cell, of the mask and of the image feature that lies there."""

from __future__ import annotations

import torch
from torch import Tensor

from samonnx.models.mask_prompt_encoder import MaskPromptEncoder
from samonnx.models.position_encoding import sine_map
from samonnx.pins import apply_pins
from samonnx.weights import fill_seeded

WIDTH, GRID = 16, 3
CELLS, SIDE = GRID * GRID, 4 * GRID


def encoder(depth: int = 2) -> MaskPromptEncoder:
    module = MaskPromptEncoder(WIDTH, GRID, depth).eval().requires_grad_(False)
    fill_seeded(module)
    apply_pins(module, {"mask_downsampler.resize_to_16x_grid": True})
    return module


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def masks(*shape: int) -> Tensor:
    return (noise(*shape, SIDE, SIDE, seed=1) > 0).float()


def test_a_token_is_the_fused_sum_of_mask_and_feature_and_the_position_of_its_cell() -> None:
    module = encoder()
    features, mask = noise(1, WIDTH, GRID, GRID), masks(1, 1)
    summed = module.mask_downsampler(mask) + module.pix_feat_proj(features)
    for block in module.fuser.layers:
        summed = block(summed)
    expected = summed[0] + sine_map(WIDTH, GRID, GRID)
    found = module(features, mask)
    assert found.shape == (1, 1, CELLS, WIDTH)
    for row in range(GRID):
        for column in range(GRID):
            assert torch.allclose(found[0, 0, row * GRID + column], expected[:, row, column], atol=1e-6)


def test_without_fusing_blocks_mask_and_features_are_merely_added() -> None:
    module = encoder(depth=0)
    features, mask = noise(1, WIDTH, GRID, GRID), masks(1, 1)
    expected = module.mask_downsampler(mask) + module.pix_feat_proj(features) + sine_map(WIDTH, GRID, GRID)
    assert torch.allclose(module(features, mask)[0, 0].T, expected[0].flatten(1), atol=1e-6)


def test_each_mask_of_each_image_is_encoded_as_if_alone() -> None:
    module = encoder()
    features, several = noise(2, WIDTH, GRID, GRID), masks(2, 3)
    together = module(features, several)
    assert together.shape == (2, 3, CELLS, WIDTH)
    for image in range(2):
        for mask in range(3):
            alone = module(features[image : image + 1], several[image : image + 1, mask : mask + 1])
            assert torch.allclose(together[image, mask], alone[0, 0], atol=1e-5)


def test_the_names_of_the_parameters_are_upstreams() -> None:
    convolutions = [f"mask_downsampler.encoder.{i}" for i in (0, 1, 3, 4, 6, 7, 9, 10, 12)]
    blocks = [f"fuser.layers.{i}.{part}" for i in range(2) for part in ("dwconv", "norm", "pwconv1", "pwconv2")]
    parts = [*convolutions, *blocks, "pix_feat_proj"]
    expected = {f"{part}.{kind}" for part in parts for kind in ("weight", "bias")}
    assert set(encoder().state_dict()) == expected | {"fuser.layers.0.gamma", "fuser.layers.1.gamma"}
