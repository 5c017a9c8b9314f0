"""A recipe and its module, as processes that measure memory load them: from plain arguments."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from samonnx.build_model import build_model
from samonnx.models.tracker import TrackedModel
from samonnx.recipe import Recipe, load_recipe

__all__ = ["load_model"]


def load_model(recipe: str, threads: str, checkpoint: str = "") -> tuple[Recipe, TrackedModel]:
    """The recipe file and its module; `threads` are PyTorch's from now on. Empty `checkpoint`: seeded weights."""
    torch.set_num_threads(int(threads))
    loaded = load_recipe(Path(recipe))
    return loaded, cast(TrackedModel, build_model(loaded, Path(checkpoint) if checkpoint else None).module)
