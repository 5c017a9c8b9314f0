"""Group norm that keeps its precision on large maps in every engine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["GroupNorm"]


class GroupNorm(nn.Module):
    """Norm of f32 [B, C, H, W] over each of `groups` runs of channels: (x - mean) / sqrt(variance + eps) * weight +
    bias.

    Wu and He, "Group Normalization" (ECCV 2018). Written out because ONNX's `GroupNormalization` is defined through the
    mean of x² minus the square of the mean, which cancels: 7e-5 off where a group has millions of values. Here values
    are centred before they are squared, and each mean is taken axis by axis, so that no sum is longer than an axis.
    """

    def __init__(self, groups: int, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = groups
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        grouped = x.unflatten(1, (self.groups, -1))
        centred = grouped - _mean(grouped)
        scale = torch.rsqrt(_mean(centred * centred) + self.eps) * self.weight.reshape(1, self.groups, -1, 1, 1)
        normed: Tensor = (centred * scale).flatten(1, 2) + self.bias[:, None, None]
        return normed


def _mean(x: Tensor) -> Tensor:
    """f32 [B, groups, c, H, W] → [B, groups, 1, 1, 1]."""
    for axis in (4, 3, 2):
        x = x.mean(axis, keepdim=True)
    return x
