"""From a recipe's `programs:` to the programs themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.tracker import TrackedModel
from samonnx.programs.predict import encode_frame_program, predict_program
from samonnx.programs.program import Program
from samonnx.programs.segment import encode_image_program, encode_text_program, ground_program, segment_program
from samonnx.programs.step import step_program
from samonnx.programs.track import track_program

if TYPE_CHECKING:
    from samonnx.recipe import Recipe

__all__ = ["recipe_programs"]


def recipe_programs(model: TrackedModel, recipe: Recipe) -> tuple[Program, ...]:
    """The programs that `recipe` asks for, in the order of this file.

    Raises SamonnxError for sizes that do not fit, and for programs that the model has not.
    """
    memory, asked = recipe.memory, recipe.programs
    makers: dict[str, Callable[[], Program]] = {}
    if isinstance(model, EfficientSAM3):
        detection = recipe.detection
        makers = {
            "encode_text": lambda: encode_text_program(model),
            "encode_image": lambda: encode_image_program(model),
            "ground": lambda: ground_program(model, detection),
            "segment": lambda: segment_program(model, detection),
            "track": lambda: track_program(model, memory, asked["track"]),
            "step": lambda: step_program(model, memory, asked["track"], detection),
        }
    else:
        makers = {  # `track` first: it is verified, which takes longest, while the others are traced
            "track": lambda: track_program(model, memory, asked["track"]),
            "encode_image": lambda: encode_frame_program(model),
            "predict": lambda: predict_program(model, asked["predict"]),
        }
    for name in asked:
        if name not in makers:
            raise SamonnxError(
                f"programs.{name}: the model of {recipe.model.factory!r} has no such program; it has: "
                f"{', '.join(makers)}"
            )
    return tuple(make() for name, make in makers.items() if name in asked)
