"""One object's prompts on one frame as a row of the `track` graph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.object_group import RowInputs
from samonnx.runtime.prompts import (
    MaskPrompt,
    PromptError,
    Prompts,
    check_for_tracking,
    check_on_frame,
    point_places,
    prompt_mask,
)

__all__ = ["PREVIOUS_LOGITS_LIMIT", "check_prompts", "row_inputs", "takes_masks"]

PREVIOUS_LOGITS_LIMIT = 32.0
"""The original clamps earlier logits to ±32 before it shows them to the decoder again."""


def takes_masks(manifest: Manifest) -> bool:
    """Whether `track` has an input for mask prompts."""
    return "mask_prompt" in {port.name for port in manifest.program("track").inputs}


def check_prompts(number: int, prompts: Prompts, *, width: int, height: int) -> None:
    """Raise PromptError, with the object's number, for what could not be tracked in any artifact."""
    try:
        check_for_tracking(prompts)
        check_on_frame(prompts, width=width, height=height)
    except PromptError as error:
        raise PromptError(f"object {number}: {error}") from error


def row_inputs(
    manifest: Manifest,
    number: int,
    prompts: Prompts,
    *,
    width: int,
    height: int,
    earlier: npt.NDArray[np.float32] | None = None,
) -> RowInputs:
    """The row for prompts that show one object on a frame of that size.

    `earlier` is f32 [1, 4h, 4w], the frame's low-resolution logits before a correction. Raises PromptError, with the
    object's number.
    """
    check_prompts(number, prompts, width=width, height=height)
    size = manifest.seeing().size
    try:
        if prompts.mask is not None:
            if not takes_masks(manifest):
                raise PromptError(
                    f"recipe {manifest.recipe!r} was compiled without mask prompts; give points or a box, "
                    f"or compile with --set programs.track.mask_prompt=true"
                )
            return RowInputs(mask=_mask(manifest, prompts.mask, width, height))
        places = manifest.tracking().points
        coordinates, labels = point_places(prompts, width=width, height=height, size=size, places=places)
    except PromptError as error:
        raise PromptError(f"object {number}: {error}") from error
    limit = PREVIOUS_LOGITS_LIMIT
    clamped = None if earlier is None else np.clip(earlier, -limit, limit)
    corrects = earlier is not None and manifest.tracking().corrections_attend_memory
    return RowInputs(coordinates, labels, None, clamped, attend_memory=prompts.use_memory or corrects)


def _mask(manifest: Manifest, prompt: MaskPrompt, width: int, height: int) -> npt.NDArray[np.float32]:
    resized = prompt_mask(prompt, width=width, height=height, size=manifest.seeing().size)
    return (resized >= 0.5).astype(np.float32) if manifest.seeing().binary_mask_prompts else resized
