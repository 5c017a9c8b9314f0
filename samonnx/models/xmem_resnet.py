"""The first stages of a ResNet, under torchvision's parameter names: what XMem's two encoders are made of.

He et al., "Deep Residual Learning for Image Recognition" (2015); upstream XMem `model/resnet.py`. A bottleneck has its
stride on the 3x3 convolution ("v1.5"). Stage n (0, 1, 2) is at stride 4, 8, 16.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["BasicBlock", "Bottleneck", "Stem", "stage"]


class Stem(nn.Module):
    """f32 [B, inputs, H, W] → [B, width, H/4, W/4]: 7x7 convolution of stride 2, batch norm, ReLU, 3x3 max pool of
    stride 2. A base class, because the parameters lie directly in the encoder: `conv1`, `bn1`."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)

    def stem(self, x: Tensor) -> Tensor:
        return F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)


class BasicBlock(nn.Module):
    """ReLU(shortcut + two 3x3 convolutions), each convolution with batch norm."""

    expansion = 1

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(inputs, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """ReLU(shortcut + 1x1, 3x3, 1x1 convolutions), each with batch norm; 4 x `width` channels go out."""

    expansion = 4

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.downsample = _shortcut(inputs, 4 * width, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x))))))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


def stage(block: type[BasicBlock | Bottleneck], trunk: int, number: int, blocks: int) -> nn.Sequential:
    """Stage `number` (0, 1, 2) of a ResNet whose stem is `trunk` wide: its blocks are `trunk` · 2^number wide, and the
    first of them halves the resolution, but not in stage 0."""
    width = trunk * 2**number
    inputs = trunk if number == 0 else width // 2 * block.expansion
    first = block(inputs, width, 1 if number == 0 else 2)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(blocks - 1)))
