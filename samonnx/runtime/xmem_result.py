"""What the XMem tracker says about one frame.

Probabilities are resized to the video's size bilinearly (half-pixel centres, no antialias), and a pixel belongs to the
most probable of background and objects, as in the original's `eval.py`; of equal ones the background has it, then the
lower row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from samonnx.runtime.frame_result import Search
from samonnx.runtime.mask_boxes import mask_boxes
from samonnx.runtime.separable_resize import bilinear

__all__ = ["XMemResult", "read_probabilities"]


@dataclass(frozen=True, eq=False)
class XMemResult:
    """What was found on one frame; the first axis of every array but `probabilities` is the object, in the order of
    `objects`."""

    frame_index: int
    objects: tuple[int, ...]
    masks: npt.NDArray[np.bool_]
    """[O, H, W], at the size of the video; no pixel belongs to two objects."""
    probabilities: npt.NDArray[np.float32]
    """[1 + O, h, w], at the size of the network's frame, background first; they sum to 1."""
    scores: npt.NDArray[np.float32]
    """[O], 0…1: mean probability over the object's pixels in the network's frame, 0 if it has none."""
    boxes: npt.NDArray[np.int32]
    """[O, 4], x, y, width, height around each mask in pixels of the video (`mask_boxes`); zeros if it is empty."""
    prompted: tuple[int, ...]
    """The objects that had a prompt on this frame."""
    prompt_ious: Mapping[int, float] = field(default_factory=lambda: MappingProxyType({}))
    """The IoU that SAM predicted for the mask of a click or box, 0…1, by object number."""
    searches: tuple[Search, ...] = ()
    """Empty: there is no detector."""

    @property
    def present(self) -> npt.NDArray[np.bool_]:
        """[O]: whether the object has a pixel."""
        found: npt.NDArray[np.bool_] = np.asarray(self.masks.any(axis=(1, 2)))
        return found


def read_probabilities(
    probabilities: npt.NDArray[np.float32],
    rows: Sequence[int],
    objects: tuple[int, ...],
    *,
    frame_index: int,
    video_size: tuple[int, int],
    prompted: tuple[int, ...] = (),
    prompt_ious: Mapping[int, float] = MappingProxyType({}),
) -> XMemResult:
    """probabilities f32 [1 + R, h, w] of all rows of the graph, those of `objects` in `rows`; `video_size` is width and
    height."""
    taken = np.ascontiguousarray(probabilities[[0, *(1 + row for row in rows)]])
    width, height = video_size
    masks = _most_probable(_resized(taken, height, width))
    return XMemResult(
        frame_index=frame_index,
        objects=objects,
        masks=masks,
        probabilities=taken,
        scores=_scores(taken, _most_probable(taken)),
        boxes=mask_boxes(masks),
        prompted=prompted,
        prompt_ious=MappingProxyType(dict(prompt_ious)),
    )


def _resized(probabilities: npt.NDArray[np.float32], height: int, width: int) -> npt.NDArray[np.float32]:
    """[1 + O, h, w] → [1 + O, height, width]."""
    if probabilities.shape[1:] == (height, width):
        return probabilities
    rows, columns = (bilinear(old, new) for old, new in zip(probabilities.shape[1:], (height, width), strict=True))
    resized = np.empty((len(probabilities), height, width), dtype=np.float32)
    for plane, one in zip(resized, probabilities, strict=True):
        plane[...] = rows.apply(columns.apply(one.T).T)
    return resized


def _most_probable(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """[1 + O, h, w] → bool [O, h, w]. One after the other: argmax along the first axis takes ten times as long."""
    best, masks = probabilities[0].copy(), np.zeros((len(probabilities) - 1, *probabilities.shape[1:]), dtype=np.bool_)
    for row, own in enumerate(probabilities[1:]):
        masks[row] = own > best
        masks[:row] &= ~masks[row]
        np.maximum(best, own, out=best)
    return masks


def _scores(probabilities: npt.NDArray[np.float32], masks: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    means = [
        float(own[mask].mean(dtype=np.float64)) if mask.any() else 0.0
        for own, mask in zip(probabilities[1:], masks, strict=True)
    ]
    return np.array(means, dtype=np.float32)
