"""RepViT: published block counts, sizes of its maps, the formulas of its blocks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.models.repvit import (
    REPVIT_SIZES,
    ConvBatchNorm,
    ParallelDepthwise,
    RepViT,
    RepViTBlock,
    SqueezeExcite,
    squeeze_width,
)
from samonnx.weights import fill_seeded

TINY = REPVIT_SIZES["repvit_tiny"]


def seeded(module: nn.Module) -> None:
    fill_seeded(module.eval().requires_grad_(False))


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def batch_norm(x: Tensor, bn: nn.Module) -> Tensor:
    """The formula, in eval mode."""
    state = bn.state_dict()
    mean, variance, weight, bias = (state[n][:, None, None] for n in ("running_mean", "running_var", "weight", "bias"))
    scaled: Tensor = (x - mean) / torch.sqrt(variance + 1e-5) * weight + bias
    return scaled


@pytest.mark.parametrize(("name", "blocks"), [("repvit_m0_9", 26), ("repvit_m1_1", 24), ("repvit_m2_3", 54)])
def test_the_sizes_have_the_published_number_of_blocks(name: str, blocks: int) -> None:
    size = REPVIT_SIZES[name]
    assert sum(map(len, size.squeeze_excite)) == blocks
    with torch.device("meta"):
        assert len(RepViT(size).features) == blocks + 1  # the stem


@given(st.integers(1, 4096))
def test_the_squeezed_width_is_a_quarter_to_the_nearest_multiple_of_eight(channels: int) -> None:
    width = squeeze_width(channels)
    assert width >= 8
    assert width % 8 == 0
    assert width == 8 or abs(width - channels / 4) <= 4


@pytest.mark.parametrize("side", [32, 33, 63, 64, 65, 112])
def test_the_map_is_a_thirty_second_of_the_image_rounded_up(side: int) -> None:
    model = RepViT(TINY)
    seeded(model)
    assert model(noise(1, 3, side, side)).shape == (1, 32, -(-side // 32), -(-side // 32))


def test_a_block_of_stride_one_mixes_cells_by_the_reparameterised_sum() -> None:
    mixer = ParallelDepthwise(6)
    seeded(mixer)
    x = noise(1, 6, 5, 5)
    three = batch_norm(F.conv2d(x, mixer.conv.get_parameter("c.weight"), padding=1, groups=6), mixer.conv[1])
    one = x * mixer.conv1.weight[:, 0] + mixer.conv1.get_parameter("bias")[:, None, None]
    assert torch.allclose(mixer(x), batch_norm(three + one + x, mixer.bn), atol=1e-6)


def test_squeeze_excite_gates_each_channel_by_the_mean_over_the_map() -> None:
    gate = SqueezeExcite(16)
    seeded(gate)
    x = noise(2, 16, 3, 4)
    mean = x.mean((2, 3))
    state = gate.state_dict()
    hidden = torch.relu(mean @ state["fc1.weight"][:, :, 0, 0].T + state["fc1.bias"])
    weight = torch.sigmoid(hidden @ state["fc2.weight"][:, :, 0, 0].T + state["fc2.bias"])
    assert torch.allclose(gate(x), x * weight[:, :, None, None], atol=1e-6)


def test_only_the_channel_mixer_of_a_block_is_residual() -> None:
    for stride in (1, 2):
        block = RepViTBlock(8, 8, stride, squeeze_excite=True)
        seeded(block)
        x = noise(1, 8, 4, 4)
        mixed = block.token_mixer(x)
        assert torch.equal(block(x), mixed + block.channel_mixer.m(mixed))


def test_a_convolution_with_batch_norm_has_no_bias_and_keeps_the_cells_of_odd_kernels() -> None:
    layer = ConvBatchNorm(4, 6, 3)
    seeded(layer)
    assert "c.bias" not in layer.state_dict()
    assert layer(noise(1, 4, 7, 7)).shape == (1, 6, 7, 7)
