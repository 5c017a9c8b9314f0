"""The components of the `track` program that read and write the bank under the recipe's memory policy.

O objects, N memory slots, P pointer places, h x w cells of the grid, C memory width, D hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samonnx.models.bank_policies import BankFrames, FrameScores, MemoryPolicy
from samonnx.models.tracker import Tracker

__all__ = ["AcceptFrame", "ReadBank", "WriteBank", "tracked"]


class ReadBank(nn.Module):
    """Which slots this frame attends and with which positions.

    With `filled`, only the first so many slots are handed on (N is `filled` below); which of them count, and whether
    memory is attended at all, is still decided over the whole bank.

    → slots f32 [O, N, h·w, C], memory_position (same shape), memory_valid bool [O, N], tokens f32 [O, P·D/C, C],
    pointer_position (same), pointer_valid bool [O, P·D/C], attends bool [O].
    """

    def __init__(self, tracker: Tracker, policy: MemoryPolicy, filled: int | None = None) -> None:
        super().__init__()
        self.tracker = tracker
        self.policy = policy
        self.filled = filled

    def forward(
        self,
        frame_index: Tensor,
        num_frames: Tensor,
        attend_memory: Tensor,
        memory: Tensor,
        memory_frame: Tensor,
        memory_conditioning: Tensor,
        pointer: Tensor,
        pointer_frame: Tensor,
        pointer_conditioning: Tensor,
        *accepted: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """`accepted`: the flags that the policy keeps, memory's before pointers'."""
        memories, pointers = _frames(
            self.policy, (memory_frame, memory_conditioning), (pointer_frame, pointer_conditioning), accepted
        )
        slots = self.policy.memories(frame_index, memories)
        last = self.tracker.sizes.memory_frames - 1
        age = torch.where(slots.recent, slots.distance - 1, last).to(torch.int64)
        position = self.tracker.memory_position(age[:, : self.filled])

        window = self.tracker.pointer_window(num_frames, self.policy.pointer_slots)
        places = self.policy.pointers(frame_index, pointers, window)
        pointer_valid = places.valid & (places.distance >= 0)
        distance = torch.where(pointer_valid, places.distance, 0)
        parts = self.tracker.sizes.hidden_dim // self.tracker.sizes.memory_dim
        attends = attend_memory & slots.valid.any(1)
        return (
            memory[:, : self.filled].flatten(3).transpose(2, 3),
            position,
            slots.valid[:, : self.filled],
            self.tracker.pointer_tokens(pointer),
            self.tracker.pointer_position(distance, window),
            pointer_valid[:, :, None].expand(-1, -1, parts).flatten(1),
            attends,
        )


class AcceptFrame(nn.Module):
    """Whether the policy accepts this frame, bool [O]. `motion`: motion_score and motion_score_valid, of a policy that
    chooses by motion."""

    def __init__(self, policy: MemoryPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, iou: Tensor, object_score: Tensor, *motion: Tensor) -> Tensor:
        absent = torch.zeros_like(iou[:, 0])
        score, counts = motion or (absent, absent > 0)
        return self.policy.accepted(FrameScores(iou, object_score, score, counts))


class WriteBank(nn.Module):
    """Puts this frame into the bank. An object with an empty bank and no prompt is not tracked yet: its bank stays
    empty."""

    def __init__(self, policy: MemoryPolicy) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self,
        frame_index: Tensor,
        number_of_points: Tensor,
        mask_prompt_valid: Tensor,
        new_memory: Tensor,
        object_pointer: Tensor,
        memory: Tensor,
        memory_frame: Tensor,
        memory_conditioning: Tensor,
        pointer: Tensor,
        pointer_frame: Tensor,
        pointer_conditioning: Tensor,
        *flags: Tensor,
    ) -> tuple[Tensor, ...]:
        """`flags`: those of acceptance that the policy keeps, then, if it keeps any, this frame's, bool [O]. Returns
        memory, frame and flag of slots and of places, then the flags of acceptance."""
        accepted = flags[:-1]
        memories, pointers = _frames(
            self.policy, (memory_frame, memory_conditioning), (pointer_frame, pointer_conditioning), accepted
        )
        prompted = (number_of_points > 0) | mask_prompt_valid
        known = tracked(number_of_points, mask_prompt_valid, memory_frame)[:, None]
        slot = known & self.policy.memory_slot(frame_index, memories, prompted)
        place = known & self.policy.pointer_place(frame_index, pointers, prompted)
        return (  # flags by logic: ONNX Runtime has no Where of booleans
            torch.where(slot[:, :, None, None, None], new_memory[:, None], memory),
            torch.where(slot, frame_index, memory_frame),
            (slot & prompted[:, None]) | (~slot & memory_conditioning),
            torch.where(place[:, :, None], object_pointer[:, None], pointer),
            torch.where(place, frame_index, pointer_frame),
            (place & prompted[:, None]) | (~place & pointer_conditioning),
            *(
                (here & flags[-1][:, None]) | (~here & before)
                for here, before in zip((slot, place), accepted, strict=False)
            ),
        )


def tracked(number_of_points: Tensor, mask_prompt_valid: Tensor, memory_frame: Tensor) -> Tensor:
    """bool [O]: objects that have a prompt now or had one before."""
    return (number_of_points > 0) | mask_prompt_valid | (memory_frame >= 0).any(1)


def _frames(
    policy: MemoryPolicy, memory: tuple[Tensor, Tensor], pointer: tuple[Tensor, Tensor], accepted: tuple[Tensor, ...]
) -> tuple[BankFrames, BankFrames]:
    """Frame index and flag of memories and of pointers, with the flags of acceptance that the policy keeps."""
    flags = iter(accepted)
    of_memory = next(flags) if policy.accepts_memories else torch.ones_like(memory[1])
    of_pointer = next(flags) if policy.accepts_pointers else torch.ones_like(pointer[1])
    return BankFrames(*memory, of_memory), BankFrames(*pointer, of_pointer)
