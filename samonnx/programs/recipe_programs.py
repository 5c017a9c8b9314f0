"""From a recipe's `programs:` to the programs themselves."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from torch import nn

from samonnx.errors import SamonnxError
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.sam import Sam
from samonnx.models.sam_xmem import SamXMem, xmem_of
from samonnx.models.tracker import TrackedModel, Tracker
from samonnx.programs import xmem
from samonnx.programs.predict import encode_frame_program, predict_program
from samonnx.programs.program import Program
from samonnx.programs.sam import encode_sam_image_program, predict_sam_program, segment_prompt_program
from samonnx.programs.sam_xmem import start_program
from samonnx.programs.segment import encode_image_program, encode_text_program, ground_program, segment_program
from samonnx.programs.step import step_program
from samonnx.programs.track import track_program
from samonnx.recipe_memory import MemorySpec

if TYPE_CHECKING:
    from samonnx.recipe import Recipe

__all__ = ["recipe_programs", "tracked_model"]


def tracked_model(model: object) -> TrackedModel | None:
    """`model` if it is one of samonnx's own, with a tracker; None for a foreign one."""
    return cast(TrackedModel, model) if isinstance(getattr(model, "tracker", None), Tracker) else None


def recipe_programs(model: nn.Module | TrackedModel, recipe: Recipe) -> tuple[Program, ...]:
    """The programs of samonnx's own models that `recipe` asks for, in the order of this file; for `calls` see
    `samonnx.programs.call`.

    Raises SamonnxError for sizes that do not fit, and for programs that the model has not.
    """
    memory, asked = recipe.memory, recipe.programs
    if tracked_model(model) is not None and not isinstance(memory, MemorySpec):
        raise SamonnxError(
            f"memory: found the sizes of XMem's memory ({', '.join(type(memory).model_fields)}), but the model of "
            f"{recipe.model.factory!r} has a bank of slots: {', '.join(MemorySpec.model_fields)}"
        )
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
    elif (tracked := tracked_model(model)) is not None:
        makers = {  # the encoder first: it runs, which takes longest, while the others are traced
            "encode_image": lambda: encode_frame_program(tracked),
            "track": lambda: track_program(tracked, memory, asked["track"]),
            "predict": lambda: predict_program(tracked, asked["predict"]),
        }
    elif isinstance(model, Sam):
        makers = {
            "encode_image": lambda: encode_sam_image_program(model),
            "predict": lambda: predict_sam_program(model, asked["predict"]),
            "segment_prompt": lambda: segment_prompt_program(model, asked["predict"]),
        }
    elif (followed := xmem_of(model)) is not None:
        with_sam = model
        if isinstance(with_sam, SamXMem):  # first, for SAM's encoder
            makers["start"] = lambda: start_program(with_sam, xmem.xmem_sizes(followed, recipe), asked["start"])
        makers |= {
            "track": lambda: xmem.track_program(followed, xmem.xmem_sizes(followed, recipe)),
            "consolidate": lambda: xmem.consolidate_program(xmem.xmem_sizes(followed, recipe)),
            "track_and_consolidate": lambda: xmem.track_and_consolidate_program(
                followed, xmem.xmem_sizes(followed, recipe)
            ),
        }
    for name in asked:
        if not makers:
            raise SamonnxError(
                f"programs.{name}: {recipe.model.factory!r} gives a {type(model).__name__}, which is no model of "
                "samonnx's own; say what to call under `calls:` (a method, its inputs and outputs)"
            )
        if name not in makers:
            raise SamonnxError(
                f"programs.{name}: the model of {recipe.model.factory!r} has no such program; it has: "
                f"{', '.join(makers)}"
            )
    return tuple(make() for name, make in makers.items() if name in asked)
