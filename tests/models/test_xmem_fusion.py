"""Residual blocks and CBAM against a plain recomputation, objects apart."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from samonnx.models.xmem_fusion import FeatureFusion, ResidualBlock
from samonnx.weights import fill_seeded


def residual(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    def conv(x: Tensor, layer: str) -> Tensor:
        return F.conv2d(x, w[f"{name}{layer}.weight"], w[f"{name}{layer}.bias"], padding=1)

    y: Tensor = conv(F.relu(conv(F.relu(x), "conv1")), "conv2")
    shortcut: Tensor = conv(x, "downsample") if f"{name}downsample.weight" in w else x
    return y + shortcut


def test_a_residual_block_takes_its_shortcut_before_the_activation() -> None:
    for outputs in (3, 5):
        block = ResidualBlock(3, outputs)
        fill_seeded(block)
        block.double().requires_grad_(False)
        x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
        torch.testing.assert_close(block(x), residual(x, block.state_dict(), ""))


def fusion() -> FeatureFusion:
    module = FeatureFusion(5, 3, 32, 4)
    fill_seeded(module)
    return module.double().requires_grad_(False)


def test_fusion_is_attended_by_channels_then_by_positions() -> None:
    module = fusion()
    w = module.state_dict()
    image, objects = torch.randn(1, 5, 4, 6, dtype=torch.float64), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    g = residual(torch.cat([image.expand(2, -1, -1, -1), objects], 1), w, "block1.")

    def mlp(x: Tensor) -> Tensor:
        gate = "attention.ChannelGate.mlp."
        hidden = F.relu(x @ w[gate + "1.weight"].T + w[gate + "1.bias"])
        gates: Tensor = hidden @ w[gate + "3.weight"].T + w[gate + "3.bias"]
        return gates

    gate = (mlp(g.flatten(2).mean(2)) + mlp(g.flatten(2).amax(2))).sigmoid()
    x = g * gate[:, :, None, None]
    spatial = "attention.SpatialGate.spatial.conv."
    pooled = torch.stack([x.amax(1), x.mean(1)], 1)
    x = x * F.conv2d(pooled, w[spatial + "weight"], w[spatial + "bias"], padding=3).sigmoid()
    torch.testing.assert_close(module(image, objects), residual(g + x, w, "block2."))


def test_objects_are_fused_apart() -> None:
    module = fusion()
    image, objects = torch.randn(1, 5, 4, 6, dtype=torch.float64), torch.randn(3, 3, 4, 6, dtype=torch.float64)
    together = module(image, objects)
    for o in range(3):
        torch.testing.assert_close(together[o : o + 1], module(image, objects[o : o + 1]))
