"""Which frames of the bank a tracking step attends, and which slot a new frame takes: the policy `recent` of SAM 2
and SAM 3.

Everything is decided by frame indices and by the flag "conditioning frame", never by the place of a slot, and without
branches, so that it traces. Tensors are per object: rows O, slots N; a slot with frame -1 is empty. Upstream:
`select_closest_cond_frames` (`model/sam3_tracker_utils.py`) and `_prepare_memory_conditioned_features`
(`model/sam3_tracker_base.py`).

- Conditioning frames (frames with a prompt): of those in the bank the `limit` closest count: first the nearest before
  this frame,
  then the nearest at or after it, then by distance (the earlier first on ties).
- Recent frames: those 1 to `window` frames back, prompted frames that were left out of the closest included.

A bounded bank selects what the unbounded dictionaries of the original select as long as frames are visited in order:
the `limit` last conditioning frames and the `window` last frames are all that can be selected later, together at most
`limit + window` slots.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["SlotSelection", "select_slots", "slot_to_write"]

FAR = 2**30


@dataclass(frozen=True)
class SlotSelection:
    """`conditioning`, `recent`: bool [O, N], disjoint; `distance`: i32 [O, N], frames back (0 where not selected)."""

    conditioning: Tensor
    recent: Tensor
    distance: Tensor

    @property
    def valid(self) -> Tensor:
        """bool [O, N]: slots that are attended."""
        return self.conditioning | self.recent


def closeness_rank(frame_index: Tensor, frames: Tensor, conditioning: Tensor) -> Tensor:
    """i32 [O, N]: 0 for the closest conditioning frame, 1 for the next, …; meaningless where `conditioning` is
    false."""
    before = conditioning & (frames < frame_index)
    after = conditioning & (frames >= frame_index)
    nearest_before = torch.where(before, frames, -FAR).amax(1, keepdim=True)
    nearest_after = torch.where(after, frames, FAR).amin(1, keepdim=True)
    key = (frame_index - frames).abs()
    key = torch.where(after & (frames == nearest_after), -1, key)
    key = torch.where(before & (frames == nearest_before), -2, key)
    key = torch.where(conditioning, key, FAR)
    ahead = key[:, None, :] < key[:, :, None]
    ahead = ahead | ((key[:, None, :] == key[:, :, None]) & (frames[:, None, :] < frames[:, :, None]))
    return ahead.to(torch.int32).sum(2, dtype=torch.int32)


def select_slots(
    frame_index: Tensor, frames: Tensor, conditioning: Tensor, limit: int, window: Tensor | int
) -> SlotSelection:
    """frame_index i32 []; frames i32 [O, N]; conditioning bool [O, N]; `limit` conditioning frames; `window` frames
    back, i32 []."""
    filled = frames >= 0
    conditioning = conditioning & filled
    closest = conditioning & (closeness_rank(frame_index, frames, conditioning) < limit)
    distance = frame_index - frames
    recent = filled & ~closest & (distance >= 1) & (distance <= window)
    return SlotSelection(closest, recent, torch.where(closest | recent, distance, torch.zeros_like(distance)))


def slot_to_write(
    frame_index: Tensor, frames: Tensor, conditioning: Tensor, is_conditioning: Tensor, limit: int
) -> Tensor:
    """bool [O, N], one true a row: the slot that this frame takes.

    In this order: the slot of the same frame (a correction replaces it), an empty slot, the slot of the farthest
    frame that is not among the closest conditioning frames kept (`limit`, this frame counted if it `is_conditioning`,
    bool [O]).
    """
    same = frames == frame_index
    filled = frames >= 0
    others = conditioning & filled & ~same
    rank = closeness_rank(frame_index, frames, others)
    kept = others & (rank < limit - is_conditioning[:, None].to(torch.int32))
    distance = frame_index - frames
    badness = torch.where(distance < 0, FAR // 2 - distance, distance)
    badness = torch.where(kept, -1, badness)
    badness = torch.where(filled, badness, FAR)
    badness = torch.where(same, FAR + 1, badness)
    slot = badness.argmax(1)
    return torch.arange(frames.shape[1])[None] == slot[:, None]
