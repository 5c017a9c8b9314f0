"""SAMURAI's choice among the three candidate masks: by predicted IoU, and by where a Kalman filter expects the object.

Upstream `sam2/modeling/sam2_base.py` (`_forward_sam_heads`, `samurai_mode`). Per object, and per call of the mask
decoder that gives candidates ("multimask": any tracked frame, a single click):

1. start, while `stable_frames` is 0 (an empty bank, or after a lapse): the candidate of the highest predicted IoU; the
   filter starts from its box, whatever its IoU is; stable_frames becomes 1.
2. warm-up, below `stable_frames_threshold`: predict; the candidate of the highest IoU; if that is **above**
   `stable_ious_threshold`, update with its box and count one more stable frame, else stable_frames becomes 0.
3. stable: predict; the candidate of the highest w · motion IoU + (1 − w) · predicted IoU, the motion IoU being that of
   its box with the predicted one; if its predicted IoU is **below** the threshold, stable_frames becomes 0, else
   update with its box. stable_frames stays as it is.

At the threshold itself warm-up starts anew and the stable phase does not. After a lapse the prediction is kept as the
state, though the next start replaces it. An empty mask is measured as the box 0, 0, 0, 0 like any other.

All of it is computed for every object and chosen by `torch.where`, so that it traces. Deliberate differences: the
original looks at one object only, here every row is one; it keeps the state on the model from video to video, here it
is part of the bank, and an empty bank starts anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from samonnx.models.kalman_filter import initiate, predict, update
from samonnx.models.mask_box import box_iou, corners_of_state, mask_box, state_of_corners

__all__ = ["STABLE", "START", "UNTOUCHED", "WARM_UP", "MotionChoice", "MotionSpec", "MotionState", "choose_by_motion"]

UNTOUCHED, START, WARM_UP, STABLE = range(4)


@dataclass(frozen=True)
class MotionSpec:
    """Constants, by upstream's names (`configs/samurai/*.yaml`); `kf_score_weight` is 0.15 for the size `l`."""

    stable_frames_threshold: int = 15
    stable_ious_threshold: float = 0.3
    kf_score_weight: float = 0.25


class MotionState(NamedTuple):
    """`mean` f32 [O, 8], `covariance` f32 [O, 8, 8], `stable_frames` i32 [O]; all zeros before the first frame."""

    mean: Tensor
    covariance: Tensor
    stable_frames: Tensor


class MotionChoice(NamedTuple):
    """`choice` i32 [O] (-1 where the call is not multimask); `phase` i32 [O]: 0 untouched, 1 start, 2 warm-up, 3
    stable; `motion_score` f32 [O] in 0…1, the chosen candidate's motion IoU, and `motion_score_valid` bool [O]: in the
    stable phase alone (the original has None elsewhere, here 0)."""

    choice: Tensor
    phase: Tensor
    motion_score: Tensor
    motion_score_valid: Tensor
    state: MotionState


def choose_by_motion(
    masks: Tensor, ious: Tensor, state: MotionState, multimask: Tensor, spec: MotionSpec
) -> MotionChoice:
    """masks f32 [O, 3, S, S], candidate logits at full size, those of absent objects already at -1024; ious f32
    [O, 3]; multimask bool [O]: rows where it is false keep their state to the bit."""
    start = multimask & (state.stable_frames == 0)
    going = multimask & ~start
    stable = going & (state.stable_frames >= spec.stable_frames_threshold)
    warm_up = going & ~stable

    boxes = mask_box(masks)
    mean, covariance = predict(state.mean, state.covariance)
    motion = box_iou(corners_of_state(mean[:, None, :4]), boxes)
    motion = torch.where(stable[:, None], motion, 0.0)
    part = torch.where(stable[:, None], (1 - spec.kf_score_weight) * ious, ious)
    choice = _best(spec.kf_score_weight * motion, part)

    iou = ious.gather(1, choice[:, None])[:, 0]
    measured = state_of_corners(boxes.gather(1, choice[:, None, None].expand(-1, 1, 4))[:, 0])
    threshold = spec.stable_ious_threshold
    corrects = (warm_up & (iou > threshold)) | (stable & (iou >= threshold))

    old = (state.mean, state.covariance)
    started, corrected = initiate(measured), update(mean, covariance, measured)
    new = [
        torch.where(_row(start, a), a, torch.where(_row(corrects, b), b, torch.where(_row(going, c), c, d)))
        for a, b, c, d in zip(started, corrected, (mean, covariance), old, strict=True)
    ]
    counted = torch.where(start | (warm_up & corrects), state.stable_frames + 1, state.stable_frames)
    return MotionChoice(
        torch.where(multimask, choice, -1).to(torch.int32),
        START * start.to(torch.int32) + WARM_UP * warm_up.to(torch.int32) + STABLE * stable.to(torch.int32),
        motion.gather(1, choice[:, None])[:, 0],
        stable,
        MotionState(new[0], new[1], torch.where(going & ~corrects, 0, counted)),
    )


def _best(motion: Tensor, ious: Tensor) -> Tensor:
    """i64 [O]: the first candidate with the largest motion + iou, both weighted, f32 [O, 3].

    The original rounds (1 − w) · iou to float32 and adds w · motion in float64. Here candidates are compared in pairs,
    by the difference of one part plus the difference of the other: where two have the same box, as all empty masks
    do, that has the sign of the original's difference exactly, which float32 sums have not.
    """
    ahead = (motion[:, None, :] - motion[:, :, None]) + (ious[:, None, :] - ious[:, :, None])
    return (ahead > 0).to(torch.int32).sum(2, dtype=torch.int32).argmin(1)


def _row(flag: Tensor, like: Tensor) -> Tensor:
    """bool [O] → bool [O, 1, …] with as many axes as `like`."""
    return flag.reshape(-1, *(1,) * (like.ndim - 1))
