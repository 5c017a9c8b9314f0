"""The tiny recipe's model, built once a test process for each set of overrides. Tests do not change it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import cast

from samonnx.build_model import build_model
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.tracker import Tracker
from samonnx.recipe import Recipe, load_recipe

__all__ = ["ROOT", "TINY", "tiny_model", "tiny_recipe", "tiny_tracker"]

ROOT = Path(__file__).parents[1]
TINY = ROOT / "recipes" / "efficientsam3_tiny.yaml"


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe(TINY, overrides)


@lru_cache(maxsize=16)
def tiny_model(*overrides: str) -> EfficientSAM3:
    """Seeded weights; `overrides` as on the command line, for example "pins.tracker.multimask_max_points=2"."""
    return cast(EfficientSAM3, build_model(tiny_recipe(*overrides)).module)


def tiny_tracker(*overrides: str) -> Tracker:
    return tiny_model(*overrides).tracker
