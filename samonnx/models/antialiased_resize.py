"""Bilinear resize with antialiasing, as two constant matrices: exact, and made of operators that every engine has.

The filter is PyTorch's `interpolate(mode="bilinear", antialias=True, align_corners=False)` (after Pillow's): a
triangle as wide as the scale, cut at the border and normalised. Enlarging, it is the plain bilinear resize.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["antialiased_resize", "resize_matrix"]

MATRIX_SIZE = 512
"""Maps up to this side are enlarged by matrices too: cheap there, and free of the 1e-5 cells by which engines place
samples that they compute in float32."""


@lru_cache(maxsize=64)
def _weights(inputs: int, outputs: int) -> tuple[tuple[float, ...], ...]:
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
    return torch.tensor(_weights(inputs, outputs), dtype=torch.float64).to(torch.float32)


def antialiased_resize(x: Tensor, size: int) -> Tensor:
    """Square maps f32 [B, C, n, n] → f32 [B, C, size, size]."""
    if x.shape[-1] <= size and size > MATRIX_SIZE:
        return F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
    matrix = resize_matrix(int(x.shape[-1]), size)
    return matrix @ x @ matrix.T
