"""What the detector says about one image: the queries that score above a threshold, at the size of the image.

As in the original's image model (sam3/model/sam3_image_processor.py): scores > threshold; boxes times the image's width
and height, neither rounded nor clipped; mask logits resized bilinearly (half-pixel centres, no antialias), then cut.
It cuts sigmoid(logit) at 0.5; here the logit is cut at 0, which differs only for logits below 1e-7, whose sigmoid
rounds to 0.5.

Suppression of doubles (`nms`) is the original's video model's (sam3/perflib/nms.py; there with 0.1, in the image model
not at all): on the low-resolution masks, cut at 0, of the detections above the threshold. In the order of their scores
each takes those with it whose mask IoU with it is above `nms`.

The original leaves detections in the order of the queries; here the best comes first, of equal ones the earlier query,
and `indices` has the query.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from samonnx.errors import SamonnxError
from samonnx.runtime.preprocessing import resize_logits

__all__ = ["DetectionError", "Detections", "check_limits", "detect"]

Floats = npt.NDArray[np.float32]
Masks = npt.NDArray[np.bool_]

OUTPUTS = ("boxes", "presence", "scores", "masks", "semantic_mask")


class DetectionError(SamonnxError):
    """A threshold that is none, or outputs that are not the detector's."""


@dataclass(frozen=True, eq=False)
class Detections:
    """n detections in an image of width W and height H, best score first; low-resolution masks are h x w."""

    width: int
    height: int
    boxes: Floats
    """[n, 4]: x0, y0, x1, y1 in pixels of the image; may reach a little out of it."""
    scores: Floats
    """[n], 0…1: joint probability that the concept is there and that this is an instance of it."""
    masks: Masks
    """[n, H, W]."""
    mask_logits: Floats
    """[n, h, w], at low resolution; above 0 is the instance."""
    indices: npt.NDArray[np.int64]
    """[n]: the query that each comes from."""
    presence: float
    """0…1: probability that the concept is in the image."""
    semantic_mask: Masks
    """[H, W]: all that belongs to the concept, whichever instance, whatever the scores."""
    best_score: float
    """The highest score of all queries, above the threshold or not; 0…1."""
    suppressed: int
    """How many above the threshold were left out as doubles of better ones."""

    def __len__(self) -> int:
        return len(self.scores)


def detect(
    outputs: Mapping[str, npt.NDArray[np.generic]],
    *,
    width: int,
    height: int,
    threshold: float,
    nms: float | None = None,
) -> Detections:
    """Read the outputs of `segment` or `ground`, by port name, for an image of that size.

    `nms` is the mask IoU, 0…1, above which the lesser of two detections is left out; None keeps all. Raises
    DetectionError for a threshold outside 0…1 and for outputs that are missing.
    """
    check_limits(threshold, nms)
    missing = [name for name in OUTPUTS if name not in outputs]
    if missing:
        raise DetectionError(
            f"outputs without {', '.join(missing)}: expected those of `segment` or `ground` "
            f"({', '.join(OUTPUTS)}), got {', '.join(outputs) or 'none'}"
        )
    boxes, presence, all_scores, logits, semantic = (np.asarray(outputs[name], np.float32) for name in OUTPUTS)
    all_scores = all_scores[0]
    found = np.argsort(-all_scores, kind="stable")
    found = found[all_scores[found] > np.float32(threshold)]
    kept = found if nms is None else found[_distinct(logits[0, found] > 0, nms)]
    pixels = np.array([width, height, width, height], dtype=np.float32)
    return Detections(
        width=width,
        height=height,
        boxes=boxes[0, kept] * pixels,
        scores=all_scores[kept],
        masks=_cut(logits[0, kept], width, height),
        mask_logits=logits[0, kept],
        indices=kept.astype(np.int64),
        presence=_sigmoid(float(presence[0])),
        semantic_mask=_cut(semantic[0], width, height)[0],
        best_score=float(all_scores.max(initial=0)),
        suppressed=len(found) - len(kept),
    )


def check_limits(threshold: float | None, nms: float | None) -> None:
    """Raise DetectionError for a threshold or a mask IoU outside 0…1; None is none."""
    for name, value in (("threshold", threshold), ("nms", nms)):
        if value is not None and not 0 <= value <= 1:
            raise DetectionError(f"{name} is {value:g}; expected a number from 0 to 1")


def _distinct(masks: Masks, limit: float) -> npt.NDArray[np.intp]:
    """Places, in order, of the masks [n, h, w] whose IoU with every earlier one of them is at most `limit`."""
    flat = masks.reshape(len(masks), masks.shape[1] * masks.shape[2])
    alike = np.zeros(len(masks), dtype=bool)
    kept = []
    for place, mask in enumerate(flat):
        if alike[place]:
            continue
        kept.append(place)
        shared = (flat & mask).sum(axis=1).astype(np.float32)
        either = (flat | mask).sum(axis=1).astype(np.float32)
        alike |= shared / np.maximum(either, 1) > np.float32(limit)
    return np.array(kept, dtype=np.intp)


def _sigmoid(logit: float) -> float:
    return 0.5 * (1 + math.tanh(0.5 * logit))


def _cut(logits: Floats, width: int, height: int) -> Masks:
    """Logits [n, h, w] to masks [n, H, W]; one after the other, as full-size logits take 8 MB each in full HD."""
    masks = np.empty((len(logits), height, width), dtype=np.bool_)
    for mask, low in zip(masks, logits, strict=True):
        mask[...] = resize_logits(low[None], width=width, height=height)[0] > 0
    return masks
