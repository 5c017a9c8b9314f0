"""ResNet stages against a plain recomputation from their weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samonnx.models.xmem_resnet import BasicBlock, Bottleneck, Stem, stage
from samonnx.weights import fill_seeded


def normalised(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    mean, variance, scale, shift = (
        weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + 1e-5) * scale + shift


def seeded(module: nn.Module) -> dict[str, Tensor]:
    fill_seeded(module)
    module.double().eval().requires_grad_(False)
    return module.state_dict()


@pytest.mark.parametrize("stride", [1, 2])
def test_a_bottleneck_has_its_stride_on_the_3x3_convolution(stride: int) -> None:
    block = Bottleneck(6, 3, stride)
    w = seeded(block)
    x = torch.randn(1, 6, 9, 9, dtype=torch.float64)
    y = F.relu(normalised(F.conv2d(x, w["conv1.weight"]), w, "bn1"))
    y = F.relu(normalised(F.conv2d(y, w["conv2.weight"], stride=stride, padding=1), w, "bn2"))
    y = normalised(F.conv2d(y, w["conv3.weight"]), w, "bn3")
    shortcut = normalised(F.conv2d(x, w["downsample.0.weight"], stride=stride), w, "downsample.1")
    torch.testing.assert_close(block(x), F.relu(y + shortcut))


def test_a_basic_block_of_one_width_adds_its_input() -> None:
    block = BasicBlock(4, 4, 1)
    w = seeded(block)
    assert not any(name.startswith("downsample") for name in w)
    x = torch.randn(1, 4, 5, 5, dtype=torch.float64)
    y = F.relu(normalised(F.conv2d(x, w["conv1.weight"], padding=1), w, "bn1"))
    y = normalised(F.conv2d(y, w["conv2.weight"], padding=1), w, "bn2")
    torch.testing.assert_close(block(x), F.relu(x + y))


@pytest.mark.parametrize("block", [BasicBlock, Bottleneck])
def test_the_stages_lie_at_strides_4_8_16_and_double_their_width(block: type[BasicBlock | Bottleneck]) -> None:
    stem = Stem(3, 4).eval()
    x = stem.stem(torch.zeros(1, 3, 64, 32))
    assert x.shape == (1, 4, 16, 8)
    for number, count in enumerate((1, 2, 3)):
        layers = stage(block, 4, number, count).eval()
        x = layers(x)
        assert len(layers) == count
        assert x.shape == (1, 4 * 2**number * block.expansion, 16 // 2**number, 8 // 2**number)
