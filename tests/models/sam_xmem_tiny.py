"""A scaled-down SAM in front of a scaled-down XMem, with seeded weights, and pictures for it."""

from __future__ import annotations

from functools import lru_cache
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from samonnx.build_model import build_model
from samonnx.models.sam_xmem import SamXMem
from samonnx.programs.xmem import xmem_sizes
from samonnx.programs.xmem_ports import XMemSizes
from samonnx.recipe import Recipe, load_recipe
from samonnx.seeded import seeded_frame
from tests.compiled_artifact import TINY

RECIPE = TINY.with_name("sam_xmem_tiny.yaml")
FRAME = (44, 70)


@lru_cache(maxsize=1)
def tiny_recipe() -> Recipe:
    return load_recipe(RECIPE)


@lru_cache(maxsize=1)
def tiny_sam_xmem() -> SamXMem:
    return cast(SamXMem, build_model(tiny_recipe()).module)


def tiny_sizes() -> XMemSizes:
    return xmem_sizes(tiny_sam_xmem().xmem, tiny_recipe())


def prompts(*rows: tuple[tuple[float, float, int], ...], garbage: float = 0.0) -> tuple[Tensor, Tensor]:
    """A row of (x, y, label) for each object → point_coords f32 [O, 4, 2], point_labels i32 [O, 4]; empty places hold
    `garbage`."""
    coords, labels = torch.full((len(rows), 4, 2), garbage), torch.full((len(rows), 4), -1, dtype=torch.int32)
    for row, points in enumerate(rows):
        for place, (x, y, label) in enumerate(points):
            coords[row, place] = torch.tensor([x, y])
            labels[row, place] = label
    return coords, labels


def video_frame(index: int, height: int = 90, width: int = 143) -> npt.NDArray[np.uint8]:
    """uint8 [height, width, 3]; every frame has a background of its own."""
    image = seeded_frame(index, max(height, width), seed=index)[:, :height, :width]
    return np.ascontiguousarray((255 * image).astype(np.uint8).transpose(1, 2, 0))
