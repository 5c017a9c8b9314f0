"""What the tracker says about one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.preprocessing import resize_logits

__all__ = ["FrameResult", "Search"]


@dataclass(frozen=True)
class Search:
    """What became of words or exemplars on a frame."""

    number: int
    """The object number that they were given under."""
    objects: tuple[int, ...]
    """Numbers of the new objects, best score first."""
    scores: tuple[float, ...]
    """Their scores, 0…1."""
    known: int
    """Instances that were left out because an object that is tracked already covers them."""
    empty: int
    """Instances that were left out because no pixel of their mask is above 0."""
    best_score: float
    """The highest score of all that the detector proposed, above the threshold or not."""


@dataclass(frozen=True, eq=False)
class FrameResult:
    """What was found on one frame; the first axis of every array is the object, in the order of `objects`."""

    frame_index: int
    objects: tuple[int, ...]
    masks: npt.NDArray[np.bool_]
    """[O, H, W], at the size of the video."""
    low_res_logits: npt.NDArray[np.float32]
    """[O, 4h, 4w]; above 0 is the object, -1024 everywhere when it is absent."""
    object_scores: npt.NDArray[np.float32]
    """[O], logits: above 0 the object is present."""
    ious: npt.NDArray[np.float32]
    """[O, 3], predicted IoU of each candidate, 0…1."""
    mask_choice: npt.NDArray[np.int32]
    """[O], the candidate taken; -1 for the single-mask output."""
    prompted: tuple[int, ...]
    """The objects that had a prompt on this frame, or were found by one."""
    searches: tuple[Search, ...] = ()
    """What became of the frame's words and exemplars."""

    def logits(self) -> npt.NDArray[np.float32]:
        """Mask logits at the size of the video, f32 [O, H, W] (computed anew)."""
        height, width = self.masks.shape[1:]
        return resize_logits(self.low_res_logits, width=width, height=height)
