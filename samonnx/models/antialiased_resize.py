"""Bilinear resize of square maps, exact to the last float, and made of operators that every engine has.

Engines compute the place of a sample in float32, each in its own way, and are off by up to 1e-4 cells at a side of
1,000; behind a steep mask edge that is more than all other rounding together. Here the weights are constants,
computed once in float64.

- Shrinking follows PyTorch's `interpolate(mode="bilinear", antialias=True, align_corners=False)` (after Pillow's): a
  triangle as wide
  as the scale, cut at the border and normalised; two constant matrices.
- Enlarging by p / q (half-pixel centres; antialiasing changes nothing): the p outputs of each block of q inputs
  always take the same
  weights, so it is a convolution of stride q over the edge-padded map with p x p output channels, which are then laid
  out as pixels.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["antialiased_resize", "phase_weights", "resize_matrix"]


@lru_cache(maxsize=64)
def _matrix(inputs: int, outputs: int) -> tuple[tuple[float, ...], ...]:
    scale = max(inputs / outputs, 1.0)
    rows = []
    for i in range(outputs):
        centre = inputs / outputs * (i + 0.5)
        first = max(int(centre - scale + 0.5), 0)
        last = min(int(centre + scale + 0.5), inputs)
        row = [0.0] * inputs
        for j in range(first, last):
            row[j] = max(0.0, 1.0 - abs((j - centre + 0.5) / scale))
        total = sum(row)
        rows.append(tuple(w / total for w in row))
    return tuple(rows)


def resize_matrix(inputs: int, outputs: int) -> Tensor:
    """f32 [outputs, inputs]: row i holds the weights of output i; each row sums to one."""
    return torch.tensor(_matrix(inputs, outputs), dtype=torch.float64).to(torch.float32)


def phase_weights(p: int, q: int) -> Tensor:
    """f32 [p, q + 2]: weights of the p outputs of a block of q inputs, over those inputs and one neighbour on each
    side."""
    weights = torch.zeros(p, q + 2, dtype=torch.float64)
    for j in range(p):
        place = (j + 0.5) * q / p - 0.5
        left = math.floor(place)
        weights[j, left + 1] += 1 - (place - left)
        weights[j, left + 2] += place - left
    return weights.to(torch.float32)


def antialiased_resize(x: Tensor, size: int) -> Tensor:
    """Square maps f32 [B, 1, n, n] → f32 [B, 1, size, size]."""
    inputs = int(x.shape[-1])
    if inputs == size:
        return x
    if inputs > size:
        matrix = resize_matrix(inputs, size)
        return matrix @ x @ matrix.T
    divisor = math.gcd(size, inputs)
    p, q = size // divisor, inputs // divisor
    one_axis = phase_weights(p, q)
    kernel = (one_axis[:, None, :, None] * one_axis[None, :, None, :]).reshape(p * p, 1, q + 2, q + 2)
    phases = F.conv2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), kernel, stride=q)
    return F.pixel_shuffle(phases, p)
