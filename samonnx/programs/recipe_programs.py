"""From a recipe's `programs:` to the programs themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.programs.program import Program
from samonnx.programs.segment import encode_image_program, encode_text_program, ground_program, segment_program
from samonnx.programs.step import step_program
from samonnx.programs.track import track_program

if TYPE_CHECKING:
    from samonnx.recipe import Recipe

__all__ = ["recipe_programs"]


def recipe_programs(model: EfficientSAM3, recipe: Recipe) -> tuple[Program, ...]:
    """The programs that `recipe` asks for, in the order of this file. Raises SamonnxError for sizes that do not fit."""
    memory, detection, asked = recipe.memory, recipe.detection, recipe.programs
    makers: dict[str, Callable[[], Program]] = {
        "encode_text": lambda: encode_text_program(model),
        "encode_image": lambda: encode_image_program(model),
        "ground": lambda: ground_program(model, detection),
        "segment": lambda: segment_program(model, detection),
        "track": lambda: track_program(model, memory, asked["track"]),
        "step": lambda: step_program(model, memory, asked["track"], detection),
    }
    return tuple(make() for name, make in makers.items() if name in asked)
