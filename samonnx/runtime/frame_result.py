"""What the tracker says about one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.mask_boxes import mask_boxes
from samonnx.runtime.object_group import READ_OUTPUTS
from samonnx.runtime.preprocessing import resize_logits
from samonnx.runtime.seating import Seating

__all__ = ["FrameResult", "Search", "read_result"]


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


ABSENT_LOGIT = -1024.0
"""All logits of an object that the network judged absent."""


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
    """[O], logits: above 0 (SAMURAI: -1, the pin presence_threshold) the object is present."""
    ious: npt.NDArray[np.float32]
    """[O, 3], predicted IoU of each candidate, 0…1."""
    iou: npt.NDArray[np.float32]
    """[O], predicted IoU of the mask taken, 0…1; 1 for a mask that was given as a prompt."""
    mask_choice: npt.NDArray[np.int32]
    """[O], the candidate taken; -1 for the single-mask output."""
    boxes: npt.NDArray[np.int32]
    """[O, 4], x, y, width, height around each mask in pixels of the video (`mask_boxes`); zeros if it is empty."""
    prompted: tuple[int, ...]
    """The objects that had a prompt on this frame, or were found by one."""
    searches: tuple[Search, ...] = ()
    """What became of the frame's words and exemplars."""

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """[O], 0…1: `object_scores` as probabilities."""
        limited = np.clip(self.object_scores.astype(np.float64), -50, 50)
        return np.asarray(1 / (1 + np.exp(-limited)), dtype=np.float32)

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """[O]: whether the network judged the object present, by whatever score it takes for the limit."""
        found: npt.NDArray[np.bool_] = self.low_res_logits.max((1, 2)) > ABSENT_LOGIT
        return found

    def logits(self) -> npt.NDArray[np.float32]:
        """Mask logits at the size of the video, f32 [O, H, W] (computed anew)."""
        height, width = self.masks.shape[1:]
        return resize_logits(self.low_res_logits, width=width, height=height)


def read_result(
    manifest: Manifest,
    seating: Seating,
    *,
    frame_index: int,
    video_size: tuple[int, int],
    prompted: tuple[int, ...] = (),
    searches: tuple[Search, ...] = (),
) -> FrameResult:
    """What the last call of the graph says about all objects; `video_size` is width and height."""
    ports = manifest.program("track").outputs
    found = {port.name: seating.rows(port) for port in ports if port.name in READ_OUTPUTS}
    logits = found["low_res_masks"][:, 0].astype(np.float32)
    masks = resize_logits(logits, width=video_size[0], height=video_size[1]) > 0
    return FrameResult(
        frame_index=frame_index,
        objects=seating.numbers,
        masks=masks,
        low_res_logits=logits,
        object_scores=found["object_score"][:, 0].astype(np.float32),
        ious=found["ious"].astype(np.float32),
        iou=found["iou"][:, 0].astype(np.float32),
        mask_choice=found["mask_choice"].astype(np.int32),
        boxes=mask_boxes(masks),
        prompted=prompted,
        searches=searches,
    )
