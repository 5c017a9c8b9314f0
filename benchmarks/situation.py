"""The situation that is measured: one propagated frame of one object, and what its memory holds.

The memories and pointers are seeded normal numbers, under the frame indices that a clip of `length` earlier frames
would have left behind; nothing has to be tracked first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from samonnx.eager_tracker import eager_tracker
from samonnx.graph_session import Array
from samonnx.models.reference_tracker import FrameRecord, ReferenceTracker
from samonnx.models.tracker import FrameOutput, TrackedModel
from samonnx.programs.program import Program
from samonnx.recipe import MemorySpec
from samonnx.reference_bank import bank_of_reference
from samonnx.verify_clip import model_frame

__all__ = ["Situation", "full_bank_length", "make_situation"]


@dataclass(frozen=True)
class Situation:
    """`image` f32 [1, 3, S, S], normalised; `tracker` holds the records of the frames before `frame_index`."""

    image: Tensor
    frame_index: int
    tracker: ReferenceTracker

    @property
    def memory_frames(self) -> list[int]:
        """Frames whose memory is attended."""
        chosen, recent = self.tracker.memory_frames(self.frame_index)
        return chosen + recent

    @property
    def pointer_frames(self) -> list[int]:
        """Frames whose pointer is attended."""
        return self.tracker.pointer_frames(self.frame_index)

    def program_feeds(self, program: Program, memory: MemorySpec) -> dict[str, Array]:
        """The same situation as inputs of a `track` program of one object: a propagated frame, no prompt."""
        ports = {port.name: port for port in program.inputs}
        feeds: dict[str, Array] = {name: np.zeros(port.sides(), port.dtype) for name, port in ports.items()}
        feeds["image"] = self.image.numpy()
        feeds["frame_index"] = np.array(self.frame_index, np.int32)
        feeds["num_frames"] = np.array(self.tracker.num_frames, np.int32)
        feeds["point_labels"][:] = -1
        feeds["attend_memory"][:] = True
        return feeds | bank_of_reference(self.tracker, ports, self.frame_index, memory)


def full_bank_length(memory: MemorySpec) -> int:
    """How many earlier frames fill every memory slot and every pointer slot."""
    return memory.conditioning_slots + max(memory.recent_slots, memory.pointer_slots - 1)


def make_situation(model: TrackedModel, memory: MemorySpec, length: int, seed: int = 0) -> Situation:
    """Frame `length` of a synthetic clip whose first frames, one for each conditioning slot, were prompted."""
    sizes = model.tracker.sizes
    tracker = eager_tracker(model, memory, 2 * max(length, memory.pointer_slots))
    random = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape, dtype=np.float32))

    nothing = torch.zeros(0)
    for t in range(length):
        output = FrameOutput(nothing, nothing, nothing, nothing, nothing, nothing, normal(1, sizes.hidden_dim))
        record = FrameRecord(output, normal(1, sizes.memory_dim, sizes.grid, sizes.grid), None, accepted=True)
        (tracker.conditioning if t < memory.conditioning_slots else tracker.others)[t] = record
    return Situation(torch.from_numpy(model_frame(model, length)), length, tracker)
