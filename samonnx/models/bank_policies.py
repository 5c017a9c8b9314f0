"""The memory policies a recipe can name: what a frame attends and which place it takes, in a bank of fixed size.

    recent      the frames just before this one (SAM 2, SAM 3)
    selection   the latest frames that scored well, and the previous one (SAM 3's `use_memory_selection`)
    samurai     the latest frames that scored well and moved as expected, and the previous one (SAMURAI)

Conditioning frames are attended alike by all three. The rules themselves, and the proofs that a bounded bank selects
what the original's unbounded dictionaries do, are in `memory_policy` and `motion_memory`; here they have one interface.
Rows are objects O, N memory slots, P pointer places; `frames` i32, the flags bool; everything traces.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samonnx.models.memory_policy import SlotSelection, select_slots, slot_to_write
from samonnx.models.motion_memory import (
    MotionMemorySpec,
    accepted_by_motion,
    accepted_by_score,
    accepted_slot_to_write,
    select_accepted_pointers,
    select_accepted_slots,
)
from samonnx.models.motion_selection import MotionSpec

__all__ = ["BankFrames", "FrameScores", "MemoryPolicy", "Recent", "Samurai", "Selection"]


@dataclass(frozen=True)
class BankFrames:
    """What is known of the frames in slots or places: index i32 [O, N] (-1 empty), `conditioning` and `accepted` bool
    [O, N]. A policy that does not ask for acceptance never reads `accepted`."""

    index: Tensor
    conditioning: Tensor
    accepted: Tensor


@dataclass(frozen=True)
class FrameScores:
    """Of the frame being tracked: `iou` f32 [O, 1] of the mask taken, `object_score` f32 [O, 1], `motion_score` f32
    [O] and whether it counts, bool [O]."""

    iou: Tensor
    object_score: Tensor
    motion_score: Tensor
    motion_score_valid: Tensor


@dataclass(frozen=True)
class MemoryPolicy(ABC):
    """`conditioning_slots` conditioning frames and `recent_slots` others are attended; of pointers those of
    `pointer_slots` - 1 other frames."""

    conditioning_slots: int
    recent_slots: int
    pointer_slots: int

    accepts_memories = False
    """Whether the bank keeps a flag a memory slot: accepted."""
    accepts_pointers = False
    """The same for pointer places."""
    chooses_by_motion = False
    """Whether a Kalman filter takes part in the choice of the mask; its state is then in the bank."""

    @property
    def slots(self) -> int:
        """N, memory slots of the bank."""
        return self.conditioning_slots + self.recent_slots

    @property
    def pointer_places(self) -> int:
        """P, pointer places of the bank."""
        return self.conditioning_slots + self.pointer_slots - 1

    @abstractmethod
    def memories(self, frame_index: Tensor, frames: BankFrames) -> SlotSelection:
        """The slots whose memory frame `frame_index` i32 [] attends; row `distance` - 1 of the temporal table belongs
        to one that is not a conditioning frame's."""

    @abstractmethod
    def pointers(self, frame_index: Tensor, frames: BankFrames, window: Tensor) -> SlotSelection:
        """The places whose pointer is attended; `window` i32 []: most frames that are not conditioning frames."""

    @abstractmethod
    def accepted(self, scores: FrameScores) -> Tensor:
        """bool [O]: whether this frame is accepted."""

    @abstractmethod
    def memory_slot(self, frame_index: Tensor, frames: BankFrames, is_conditioning: Tensor) -> Tensor:
        """bool [O, N], one true a row: the slot that this frame takes. `is_conditioning` bool [O]: it has a prompt."""

    def pointer_place(self, frame_index: Tensor, frames: BankFrames, is_conditioning: Tensor) -> Tensor:
        """bool [O, P], likewise."""
        return slot_to_write(frame_index, frames.index, frames.conditioning, is_conditioning, self.conditioning_slots)


@dataclass(frozen=True)
class Recent(MemoryPolicy):
    """Frames t - 1 … t - `recent_slots`, and the pointers of the frames t - 1 … t - `window`: see `memory_policy`."""

    def memories(self, frame_index: Tensor, frames: BankFrames) -> SlotSelection:
        return select_slots(frame_index, frames.index, frames.conditioning, self.conditioning_slots, self.recent_slots)

    def pointers(self, frame_index: Tensor, frames: BankFrames, window: Tensor) -> SlotSelection:
        return select_slots(frame_index, frames.index, frames.conditioning, self.conditioning_slots, window)

    def accepted(self, scores: FrameScores) -> Tensor:
        return torch.ones_like(scores.motion_score_valid)

    def memory_slot(self, frame_index: Tensor, frames: BankFrames, is_conditioning: Tensor) -> Tensor:
        return slot_to_write(frame_index, frames.index, frames.conditioning, is_conditioning, self.conditioning_slots)


@dataclass(frozen=True)
class _Accepting(MemoryPolicy):
    """The previous frame and the newest accepted ones before it: see `motion_memory`."""

    accepts_memories = True
    earliest = 1
    """The first frame of a clip that can be accepted."""

    def memories(self, frame_index: Tensor, frames: BankFrames) -> SlotSelection:
        return select_accepted_slots(
            frame_index,
            frames.index,
            frames.conditioning,
            frames.accepted,
            self.conditioning_slots,
            self.recent_slots,
            self.earliest,
        )

    def memory_slot(self, frame_index: Tensor, frames: BankFrames, is_conditioning: Tensor) -> Tensor:
        return accepted_slot_to_write(
            frame_index,
            frames.index,
            frames.conditioning,
            frames.accepted,
            is_conditioning,
            self.conditioning_slots,
            self.recent_slots,
            self.earliest,
        )


@dataclass(frozen=True)
class Selection(_Accepting):
    """SAM 3's `use_memory_selection`: a frame is accepted by its presence times its IoU, above `mf_threshold`; memories
    and pointers are both those of accepted frames. One pointer place more, to see that the walk was not cut short."""

    mf_threshold: float = 0.01
    accepts_pointers = True

    @property
    def pointer_places(self) -> int:
        return self.conditioning_slots + self.pointer_slots

    def pointers(self, frame_index: Tensor, frames: BankFrames, window: Tensor) -> SlotSelection:
        return select_accepted_pointers(
            frame_index,
            frames.index,
            frames.conditioning,
            frames.accepted,
            self.conditioning_slots,
            window,
            self.earliest,
        )

    def accepted(self, scores: FrameScores) -> Tensor:
        return accepted_by_score(scores.iou[:, 0], scores.object_score[:, 0], self.mf_threshold)

    def pointer_place(self, frame_index: Tensor, frames: BankFrames, is_conditioning: Tensor) -> Tensor:
        return accepted_slot_to_write(
            frame_index,
            frames.index,
            frames.conditioning,
            frames.accepted,
            is_conditioning,
            self.conditioning_slots,
            self.pointer_slots,
            self.earliest,
        )


@dataclass(frozen=True)
class Samurai(_Accepting):
    """SAMURAI: a frame is accepted by the IoU of its mask, its object score and, in the stable phase, its motion score;
    memories are those of accepted frames, pointers those of recent ones. The mask is chosen by `choose_by_motion`."""

    choice: MotionSpec = field(default_factory=MotionSpec)
    thresholds: MotionMemorySpec = field(default_factory=MotionMemorySpec)
    chooses_by_motion = True
    earliest = 2  # the original's walk ends before frame 1, which is attended as the previous frame of frame 2 alone

    def pointers(self, frame_index: Tensor, frames: BankFrames, window: Tensor) -> SlotSelection:
        return select_slots(frame_index, frames.index, frames.conditioning, self.conditioning_slots, window)

    def accepted(self, scores: FrameScores) -> Tensor:
        return accepted_by_motion(
            scores.iou[:, 0],
            scores.object_score[:, 0],
            scores.motion_score,
            scores.motion_score_valid,
            self.thresholds,
        )
