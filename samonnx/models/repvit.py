"""RepViT: a convolutional trunk.

Architecture: Wang et al., "RepViT: Revisiting Mobile CNN From ViT Perspective" (CVPR 2024); the figures of each size
are those of upstream's `backbones/repvit.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["REPVIT_SIZES", "RepViT", "RepViTSize"]


@dataclass(frozen=True)
class RepViTSize:
    """Widths of the four stages and, per stage, one character a block: "1" with squeeze-excite, "0" without.

    The first block of every stage but the first has stride 2.
    """

    widths: tuple[int, int, int, int]
    squeeze_excite: tuple[str, str, str, str]


REPVIT_SIZES: Mapping[str, RepViTSize] = MappingProxyType(
    {
        "repvit_m0_9": RepViTSize((48, 96, 192, 384), ("100", "0100", "01" * 7 + "00", "010")),
        "repvit_m1_1": RepViTSize((64, 128, 256, 512), ("100", "0100", "01" * 6 + "00", "010")),
        "repvit_m2_3": RepViTSize((80, 160, 320, 640), ("1010100", "01010100", "0" + "10" * 17 + "0", "010")),
        "repvit_tiny": RepViTSize((8, 16, 24, 32), ("10", "01", "01", "010")),
    }
)


def squeeze_width(channels: int) -> int:
    """Hidden width of squeeze-excite: a quarter of `channels`, to the nearest multiple of 8, at least 8."""
    return max(8, int(channels * 0.25 + 4) // 8 * 8)


class ConvBatchNorm(nn.Sequential):
    """Convolution without bias (`c`), then batch norm (`bn`)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.add_module("c", nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False))
        self.add_module("bn", nn.BatchNorm2d(outputs))


class SqueezeExcite(nn.Module):
    """Channel gate: sigmoid(fc2(relu(fc1(mean over H and W)))) times the input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, squeeze_width(channels), 1)
        self.fc2 = nn.Conv2d(squeeze_width(channels), channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True))))
        return x * gate.sigmoid()


class ParallelDepthwise(nn.Module):
    """bn((3x3 depthwise conv + bn)(x) + (1x1 depthwise conv with bias)(x) + x)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = ConvBatchNorm(channels, channels, 3, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.bn(self.conv(x) + self.conv1(x) + x)
        return mixed


class Residual(nn.Module):
    """x + m(x)."""

    def __init__(self, m: nn.Module) -> None:
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)  # type: ignore[no-any-return]  # nn.Module calls are untyped


class RepViTBlock(nn.Module):
    """Token mixer (depthwise, optional squeeze-excite), then a residual channel mixer of ratio 2 with GELU."""

    def __init__(self, inputs: int, outputs: int, stride: int, squeeze_excite: bool) -> None:
        super().__init__()
        gate = SqueezeExcite(inputs) if squeeze_excite else nn.Identity()
        if stride == 2:
            reduce = ConvBatchNorm(inputs, inputs, 3, stride=2, groups=inputs)
            self.token_mixer = nn.Sequential(reduce, gate, ConvBatchNorm(inputs, outputs))
        else:
            self.token_mixer = nn.Sequential(ParallelDepthwise(inputs), gate)
        mixer = nn.Sequential(ConvBatchNorm(outputs, 2 * outputs), nn.GELU(), ConvBatchNorm(2 * outputs, outputs))
        self.channel_mixer = Residual(mixer)

    def forward(self, x: Tensor) -> Tensor:
        mixed: Tensor = self.channel_mixer(self.token_mixer(x))
        return mixed


class RepViT(nn.Module):
    """f32 [B, 3, S, S] → f32 [B, widths[3], ceil(S/32), ceil(S/32)]: stem of stride 4, four stages, no classifier."""

    def __init__(self, size: RepViTSize) -> None:
        super().__init__()
        width = size.widths[0]
        stem = nn.Sequential(ConvBatchNorm(3, width // 2, 3, 2), nn.GELU(), ConvBatchNorm(width // 2, width, 3, 2))
        blocks: list[nn.Module] = [stem]
        for stage, (outputs, gates) in enumerate(zip(size.widths, size.squeeze_excite, strict=True)):
            for index, gate in enumerate(gates):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(RepViTBlock(width, outputs, stride, gate == "1"))
                width = outputs
        self.features = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.features:
            x = block(x)
        return x
