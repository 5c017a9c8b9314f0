"""A scaled-down XMem for tests: every part of the released network, a few channels wide."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from samonnx.models.xmem import IMAGE_MEAN, IMAGE_STD, XMem, build
from samonnx.seeded import seeded_frame
from samonnx.weights import fill_seeded


@lru_cache(maxsize=8)
def tiny(dtype: torch.dtype = torch.float64, sensory: int = 3) -> XMem:
    """Seeded weights. In float64 rounding decides no top-k, so that two ways of computing agree to 1e-9."""
    model = build(4, 16, sensory, trunk_dim=2, key_blocks=(1, 2, 1), value_blocks=(1, 1, 2)).requires_grad_(False)
    fill_seeded(model, components=model.components)
    return model.to(dtype)


def frame(index: int, height: int, width: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[3, height, width], normalised; every frame has a background of its own."""
    image = torch.from_numpy(seeded_frame(index, max(height, width), seed=index))[:, :height, :width]
    mean, std = (torch.tensor(of_rgb)[:, None, None] for of_rgb in (IMAGE_MEAN, IMAGE_STD))
    return ((image - mean) / std).to(dtype)


def box(height: int, width: int, top: int, left: int, side: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """[height, width] of 0 and 1."""
    mask = torch.zeros(height, width, dtype=dtype)
    mask[top : top + side, left : left + side] = 1
    return mask
