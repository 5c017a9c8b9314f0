"""The eager reference for frames that must earn their place in memory: the policies `selection` (SAM 3's
`use_memory_selection`) and `samurai`.

They walk back over the whole clip, as the originals do, with Python branches and nothing forgotten. Upstream:
`frame_filter` and `_prepare_memory_conditioned_features` (facebookresearch/sam3 `model/sam3_tracker_base.py`),
`_forward_sam_heads` and `_prepare_memory_conditioned_features` (yangchris11/samurai `sam2/modeling/sam2_base.py`).
What the bounded bank makes of it, and why it is the same: `samonnx.models.motion_memory`.

Deliberate differences from SAMURAI: frames that are missing and conditioning frames are passed over in the walk, where
it raises KeyError; a frame that is run again (a correction) starts from the filter's state before it, where the
original advances the filter at every call for candidates; the state ends with the tracker.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.motion_memory import MotionMemorySpec, accepted_by_motion, accepted_by_score
from samonnx.models.motion_selection import MotionChoice, MotionSpec, MotionState, choose_by_motion
from samonnx.models.reference_tracker import ReferenceTracker
from samonnx.models.tracker import FrameOutput, TrackedModel

__all__ = ["SamuraiTracker", "SelectionTracker"]


class _WalkingTracker(ReferenceTracker):
    """Memory frames by a walk back over accepted frames; an age is a rank, so that gaps do not show."""

    earliest: ClassVar[int]
    """No frame before it is collected, accepted or not."""

    memory_stop: int
    """Accepted frames after which the walk for memory frames ends."""

    def walk(self, frame_index: int, stop: int) -> list[int]:
        """Accepted frames, oldest first, at most `stop`; and the previous frame, accepted or not, there or not."""
        found: list[int] = []
        for t in range(frame_index - 1, self.earliest - 1, -1):
            if t in self.others and self.others[t].accepted:
                found.insert(0, t)
            if len(found) >= stop:
                break
        if frame_index - 1 not in found:
            found.append(frame_index - 1)
        return found

    def memory_frames(self, frame_index: int) -> tuple[list[int], list[int]]:
        chosen, available = self.prompted_and_other_frames(frame_index)
        walked = self.walk(frame_index, self.memory_stop)[-self.recent_frames :]
        return chosen, [t for t in walked if t in available]

    def ages(self, frame_index: int, recent: list[int]) -> list[int]:
        newest_first = self.walk(frame_index, self.memory_stop)[::-1]
        return [newest_first.index(t) for t in recent]


class SelectionTracker(_WalkingTracker):
    """SAM 3's `use_memory_selection`: memory and pointers of frames whose presence times IoU is above `threshold`
    (upstream `mf_threshold`). The other arguments as in `ReferenceTracker`."""

    earliest = 1

    def __init__(
        self,
        model: TrackedModel,
        conditioning_limit: int | None,
        recent_frames: int,
        num_frames: int,
        max_pointers: int = 16,
        *,
        threshold: float = 0.01,
    ) -> None:
        super().__init__(model, conditioning_limit, recent_frames, num_frames, max_pointers)
        self.threshold = threshold
        # The original walks once, for the pointers too: there are 16 of them, more than memory frames, and a clip too
        # short for them ends before. With fewer pointers than memory frames, as a recipe may say, memory comes first.
        self.memory_stop = max(self.pointer_window, recent_frames)

    def pointer_frames(self, frame_index: int) -> list[int]:
        """Conditioning frames as ever; of the frames walked, newest first, all but the oldest (the original's loop
        ends one short)."""
        chosen, available = self.prompted_and_other_frames(frame_index)
        walked = self.walk(frame_index, self.pointer_window)
        back = []
        for distance in range(1, self.pointer_window + 1):
            if distance >= len(walked):
                break
            back.append(walked[-distance])
        return [t for t in chosen if t <= frame_index] + [t for t in back if t in available]

    def pointer_distances(self, frame_index: int, frames: list[int]) -> list[int]:
        """Of a frame walked, its place in the walk, the previous frame's being 1; of a conditioning frame, frames."""
        walked = self.walk(frame_index, self.pointer_window)
        return [len(walked) - walked.index(t) if t in walked else frame_index - t for t in frames]

    def accepts(self, output: FrameOutput, motion: MotionChoice | None) -> bool:
        # The mask that is taken is that of the largest predicted IoU, or the only one.
        return bool(accepted_by_score(output.iou, output.object_score, self.threshold))


class SamuraiTracker(_WalkingTracker):
    """SAMURAI: a Kalman filter takes part in the choice of the mask (`choice`), and memory is of frames that scored
    well and moved as expected (`memory`); pointers as in `recent`. The other arguments as in `ReferenceTracker`. The
    filter's state after a frame is in its record."""

    earliest = 2
    memory_stop = 15

    def __init__(
        self,
        model: TrackedModel,
        conditioning_limit: int | None,
        recent_frames: int,
        num_frames: int,
        max_pointers: int = 16,
        *,
        choice: MotionSpec = MotionSpec(),  # noqa: B008  # frozen
        memory: MotionMemorySpec = MotionMemorySpec(),  # noqa: B008  # frozen
    ) -> None:
        super().__init__(model, conditioning_limit, recent_frames, num_frames, max_pointers)
        self.choice = choice
        self.memory = memory

    def state_before(self, frame_index: int) -> MotionState:
        """The filter's state that the frame starts from (O = 1): that after the latest earlier frame, all zeros before
        the first."""
        for t in sorted({*self.conditioning, *self.others}, reverse=True):
            motion = self.record(t).motion
            if t < frame_index and motion is not None:
                return motion.state
        return MotionState(torch.zeros(1, 8), torch.zeros(1, 8, 8), torch.zeros(1, dtype=torch.int32))

    def take_mask(
        self, frame_index: int, decoded: DecodedMasks, candidates: Tensor
    ) -> tuple[FrameOutput, MotionChoice | None]:
        """Three candidates: the filter takes part. A single mask (a box, several points, a mask prompt): its state
        stays."""
        # The resize may turn -1024 into -1023.9999; only the sign counts here.
        low_res = self.tracker.candidate_masks(decoded)
        masks = antialiased_resize(low_res.transpose(0, 1), self.tracker.sizes.image_size).transpose(0, 1)
        before = self.state_before(frame_index)
        found = choose_by_motion(masks, decoded.ious[:, 1:], before, candidates, self.choice)
        return self.tracker.output(decoded, candidates, preferred=found.choice), found

    def accepts(self, output: FrameOutput, motion: MotionChoice | None) -> bool:
        assert motion is not None  # `take_mask` gives one for every frame
        iou, score = output.iou[:, 0], output.object_score[:, 0]
        return bool(accepted_by_motion(iou, score, motion.motion_score, motion.motion_score_valid, self.memory))
