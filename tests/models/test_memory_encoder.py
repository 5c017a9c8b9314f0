"""Memory encoder: mask downsampling, the fuser, one map an object."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.memory_encoder import ConvNeXtBlock, MaskDownsampler, MemoryEncoder
from samonnx.pins import apply_pins
from samonnx.weights import fill_seeded

WIDTH, MEMORY, GRID = 64, 4, 2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def seeded(module: nn.Module) -> None:
    fill_seeded(module.eval().requires_grad_(False))


def encoder() -> MemoryEncoder:
    module = MemoryEncoder(WIDTH, MEMORY, GRID)
    seeded(module)
    apply_pins(module, {"mask_downsampler.resize_to_16x_grid": True})
    return module


def downsampler(resize: bool) -> MaskDownsampler:
    module = MaskDownsampler(WIDTH, GRID, final_width=WIDTH)
    seeded(module)
    apply_pins(module, {"resize_to_16x_grid": resize})
    return module


def test_the_mask_is_brought_to_sixteen_times_the_grid_first() -> None:
    mask = noise(2, 1, 28, 28)
    found = downsampler(True)(mask)
    assert found.shape == (2, WIDTH, GRID, GRID)
    assert torch.equal(found, downsampler(False)(antialiased_resize(mask, 16 * GRID)))


def test_a_mask_that_has_the_size_already_needs_no_resize() -> None:
    mask = noise(1, 1, 16 * GRID, 16 * GRID)
    assert torch.allclose(downsampler(True)(mask), downsampler(False)(mask), atol=1e-6)


def test_a_full_size_mask_passes_widths_4_16_64_256_and_a_smaller_one_the_same_shares() -> None:
    def widths(final: int) -> list[int]:
        layers = MaskDownsampler(8, GRID, final_width=final).encoder
        return [layer.out_channels for layer in layers if isinstance(layer, nn.Conv2d)]

    assert widths(256) == [4, 16, 64, 256, 8]
    assert widths(64) == [4, 4, 16, 64, 8]


def test_a_convnext_block_is_its_formula() -> None:
    block = ConvNeXtBlock(6)
    seeded(block)
    x = noise(2, 6, 5, 4)
    state = block.state_dict()
    y = F.conv2d(x, state["dwconv.weight"], state["dwconv.bias"], padding=3, groups=6).permute(0, 2, 3, 1)
    y = F.layer_norm(y, (6,), state["norm.weight"], state["norm.bias"], eps=1e-6)
    y = F.gelu(y @ state["pwconv1.weight"].T + state["pwconv1.bias"])
    y = state["gamma"] * (y @ state["pwconv2.weight"].T + state["pwconv2.bias"])
    assert torch.allclose(block(x), x + y.permute(0, 3, 1, 2), atol=1e-5)


def test_features_and_mask_are_summed_after_their_own_projections_and_fused() -> None:
    module = encoder()
    features, mask = noise(1, WIDTH, GRID, GRID), noise(1, 1, 28, 28, seed=1)
    summed = module.pix_feat_proj(features) + module.mask_downsampler(mask)
    for layer in module.fuser.layers:
        summed = layer(summed)
    assert torch.equal(module(features, mask), module.out_proj(summed))


@pytest.mark.parametrize("objects", [1, 3])
def test_each_object_gets_a_map_from_the_shared_features_and_its_own_mask(objects: int) -> None:
    module = encoder()
    features, masks = noise(1, WIDTH, GRID, GRID), noise(objects, 1, 28, 28, seed=1)
    together = module(features, masks)
    assert together.shape == (objects, MEMORY, GRID, GRID)
    for row in range(objects):
        assert torch.allclose(together[row], module(features, masks[row : row + 1])[0], atol=1e-5)
