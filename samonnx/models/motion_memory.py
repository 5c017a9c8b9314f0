"""Which frames of the bank a tracking step attends, and which slot a new frame takes, where frames must earn it: the
policies `samurai` (SAMURAI) and `selection` (SAM 3's `use_memory_selection`).

A frame is accepted or not by its own scores, whoever looks back (`accepted_by_motion`, `accepted_by_score`).
Conditioning frames are attended as in `memory_policy`. Of the others, frame t attends

    rank 0         frame t − 1, accepted or not; a conditioning frame takes the rank and is not attended a second time
    rank 1, 2, …   the newest accepted frames of earliest … t − 2, in order, without gaps

up to rank `window` − 1. Upstream's temporal position is `window` − rank (6 is the newest), its row in the table of
temporal encodings the rank itself. `distance` in `SlotSelection` is rank + 1 here, where `recent` has frames back.
Upstream: `_prepare_memory_conditioned_features` (SAMURAI `sam2/modeling/sam2_base.py`; facebookresearch/sam3
`model/sam3_tracker_base.py`, with `frame_filter`).

**These are the frames of the original's walk.** It collects accepted frames from t − 1 down to `earliest` (2 in
SAMURAI, so that frame 1 is attended by frame 2 alone; 1 in SAM 3), stops after 15, appends t − 1 as the newest if it is
not among them, and takes the last six. Whether t − 1 was collected or appended, it is the newest, and the collected
frames before t − 1 follow it; the stop is beyond the six.

**`limit` + `window` slots suffice, and no fewer do.** Frame t attends `window` − 1 accepted frames before t − 1, and
t − 1: so many can be attended at once. Say that before t the bank holds t − 1 and the `window` − 1 newest accepted
frames before it. What t + 1 attends is t and the `window` − 1 newest accepted frames up to t − 1, all of them in the
bank; of the `window` slots that are not a conditioning frame's, one is therefore free for t: that of t − 1 if it was
not accepted, else that of the oldest. A frame that is neither accepted nor the previous one can never be attended
again, and an accepted one that `window` − 1 newer ones push out neither. The closest conditioning frames are kept as
in `memory_policy`.

Deliberate differences from SAMURAI: a frame that is missing or is a conditioning frame is passed over, as SAM 3 does,
where SAMURAI raises KeyError; and each object has its own scores, where SAM 3 takes the mean over objects.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from samonnx.models.memory_policy import SlotSelection, closeness_rank

__all__ = [
    "MotionMemorySpec",
    "accepted_by_motion",
    "accepted_by_score",
    "accepted_slot_to_write",
    "select_accepted_pointers",
    "select_accepted_slots",
]

FAR = 2**30


@dataclass(frozen=True)
class MotionMemorySpec:
    """SAMURAI's constants, by upstream's names (`configs/samurai/*.yaml`)."""

    memory_bank_iou_threshold: float = 0.5
    memory_bank_obj_score_threshold: float = 0.0
    memory_bank_kf_score_threshold: float = 0.0


def accepted_by_motion(
    iou: Tensor, object_score: Tensor, motion_score: Tensor, motion_score_valid: Tensor, spec: MotionMemorySpec
) -> Tensor:
    """SAMURAI: bool, of the shape of the inputs; all three strictly above their thresholds.

    `iou` is the taken mask's predicted IoU, not the weighted one; `motion_score` does not count where it is not
    valid (outside the stable phase).
    """
    moves = ~motion_score_valid | (motion_score > spec.memory_bank_kf_score_threshold)
    present = object_score > spec.memory_bank_obj_score_threshold
    return (iou > spec.memory_bank_iou_threshold) & present & moves


def accepted_by_score(best_iou: Tensor, object_score: Tensor, threshold: float) -> Tensor:
    """SAM 3 (`cal_mem_score`, `mf_threshold` 0.01): bool; (2 sigmoid(score) − 1) · IoU above the threshold, 0 for a
    negative score. `best_iou` is the largest predicted IoU of the masks that the decoder gave."""
    presence = torch.where(object_score > 0, object_score.sigmoid() * 2 - 1, 0.0)
    return presence * best_iou > threshold


def _accepted_before(bound: Tensor, frames: Tensor, conditioning: Tensor, accepted: Tensor, earliest: int) -> Tensor:
    """bool [O, N]: accepted frames of `earliest` … `bound` − 1."""
    return accepted & ~conditioning & (frames >= earliest) & (frames < bound)


def _newer(frames: Tensor, counted: Tensor) -> Tensor:
    """i32 [O, N]: how many of the `counted` frames are newer than the slot's."""
    newer = counted[:, None, :] & (frames[:, None, :] > frames[:, :, None])
    return newer.to(torch.int32).sum(2, dtype=torch.int32)


def select_accepted_slots(
    frame_index: Tensor,
    frames: Tensor,
    conditioning: Tensor,
    accepted: Tensor,
    limit: int,
    window: int,
    earliest: int,
) -> SlotSelection:
    """frame_index i32 []; frames i32 [O, N]; conditioning, accepted bool [O, N]; `limit` conditioning frames, `window`
    others; `earliest` frame that can be accepted (2 in SAMURAI, 1 in SAM 3)."""
    filled = frames >= 0
    conditioning = conditioning & filled
    closest = conditioning & (closeness_rank(frame_index, frames, conditioning) < limit)
    previous = filled & ~closest & (frames == frame_index - 1)
    earlier = _accepted_before(frame_index - 1, frames, conditioning, accepted, earliest)
    distance = torch.where(previous, 1, 2 + _newer(frames, earlier))
    recent = (previous | earlier) & (distance <= window)
    distance = torch.where(recent, distance, torch.where(closest, frame_index - frames, 0))
    return SlotSelection(closest, recent, distance)


def select_accepted_pointers(
    frame_index: Tensor,
    frames: Tensor,
    conditioning: Tensor,
    accepted: Tensor,
    limit: int,
    window: Tensor | int,
    earliest: int,
) -> SlotSelection:
    """SAM 3's object pointers under the policy `selection`: as the slots, with two quirks of the original.

    The walk stops after `window` accepted frames (number of pointers − 1, i32 [] or 15), and the oldest frame that it
    collected is left out. With A accepted frames before t − 1, that leaves the ranks up to min(A − 1, window − 1), one
    fewer at the upper end where t − 1 itself is accepted. Whether there are `window` of them has to be seen: the bank
    needs `limit` + `window` + 1 places, written with that window. (SAMURAI's pointers follow the policy `recent`.)
    """
    chosen = select_accepted_slots(frame_index, frames, conditioning, accepted, limit, FAR, earliest)
    earlier = _accepted_before(frame_index - 1, frames, conditioning, accepted, earliest)
    newest = _accepted_before(frame_index, frames, conditioning, accepted, earliest) & (frames == frame_index - 1)
    count = earlier.to(torch.int32).sum(1, keepdim=True, dtype=torch.int32)
    stop = window - newest.to(torch.int32).sum(1, keepdim=True, dtype=torch.int32)
    recent = chosen.recent & (chosen.distance <= count) & (chosen.distance <= stop)
    distance = torch.where(recent | chosen.conditioning, chosen.distance, 0)
    return SlotSelection(chosen.conditioning, recent, distance)


def accepted_slot_to_write(
    frame_index: Tensor,
    frames: Tensor,
    conditioning: Tensor,
    accepted: Tensor,
    is_conditioning: Tensor,
    limit: int,
    window: int,
    earliest: int,
) -> Tensor:
    """bool [O, N], one true a row: the slot that this frame takes; whether it is itself accepted does not matter.

    In this order: the slot of the same frame (a correction replaces it), an empty slot, the slot farthest from this
    frame (a later one first) that holds neither one of the closest conditioning frames (`limit`, this frame counted if
    it `is_conditioning`, bool [O]) nor one of the `window` − 1 newest accepted frames. There is one if N is at least
    `limit` + `window`.
    """
    same = frames == frame_index
    filled = frames >= 0
    others = conditioning & filled & ~same
    kept = others & (closeness_rank(frame_index, frames, others) < limit - is_conditioning[:, None].to(torch.int32))
    earlier = _accepted_before(frame_index, frames, conditioning, accepted, earliest)
    kept = kept | (earlier & (_newer(frames, earlier) < window - 1))
    distance = frame_index - frames
    badness = torch.where(distance < 0, FAR // 2 - distance, distance)
    badness = torch.where(kept, -1, badness)
    badness = torch.where(filled, badness, FAR)
    badness = torch.where(same, FAR + 1, badness)
    return torch.arange(frames.shape[1])[None] == badness.argmax(1)[:, None]
