"""The eager reference: tracking with Python dictionaries, as the original keeps them. The truth for the law of
equivalence.

It runs the modules of `samonnx.models.tracker` with exactly the tokens that exist (no padding, no masks) and
Python branches. Upstream: `track_step` and `_prepare_memory_conditioned_features` (`modeling/sam2_base.py`, SAM 3's
`model/sam3_tracker_base.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.motion_selection import MotionChoice
from samonnx.models.tracker import FrameOutput, TrackedModel

__all__ = [
    "FramePrompt",
    "FrameRecord",
    "ImageFeatures",
    "ReferenceTracker",
    "closest_conditioning_frames",
    "encode_image",
]


@dataclass(frozen=True)
class ImageFeatures:
    """`high_res_0` f32 [1, D/8, 4h, 4w], `high_res_1` f32 [1, D/4, 2h, 2w], `features` f32 [1, D, h, w]."""

    high_res_0: Tensor
    high_res_1: Tensor
    features: Tensor


def encode_image(model: TrackedModel, image: Tensor) -> ImageFeatures:
    """image f32 [1, 3, S, S], normalised."""
    level_0, level_1, level_2 = model.tracker_levels(image)
    decoder = model.tracker.sam_mask_decoder
    return ImageFeatures(decoder.conv_s0(level_0), decoder.conv_s1(level_1), level_2)


@dataclass(frozen=True)
class FramePrompt:
    """What one object is given on one frame. `coords` f32 [k, 2] in S x S pixels, `labels` i32 [k]; `mask` f32 [S, S]
    of 0 and 1; `prev_logits` f32 [4h, 4w], earlier logits of this frame that go with a correction click."""

    coords: Tensor = field(default_factory=lambda: torch.zeros(0, 2))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int32))
    mask: Tensor | None = None
    prev_logits: Tensor | None = None

    @property
    def is_given(self) -> bool:
        """Whether the frame is a conditioning frame."""
        return len(self.labels) > 0 or self.mask is not None


@dataclass(frozen=True)
class FrameRecord:
    """What later frames may attend, and the frame's output (one object: O = 1).

    `accepted`: whether frames further on than the next may attend it; `motion`: how the mask was chosen. Policies that
    know neither (`recent` knows none) leave them out.
    """

    output: FrameOutput
    memory: Tensor
    conditioned: Tensor | None
    accepted: bool = False
    motion: MotionChoice | None = None


def closest_conditioning_frames(frame_index: int, frames: list[int], limit: int) -> list[int]:
    """The nearest before, the nearest at or after, then by distance; at most `limit`.

    On ties the earlier frame goes first; upstream takes the frame that was prompted first, which differs only when
    prompts are given out of order and later conditioning frames than this one exist.
    """
    chosen: list[int] = []
    before = [t for t in frames if t < frame_index]
    after = [t for t in frames if t >= frame_index]
    if before:
        chosen.append(max(before))
    if after:
        chosen.append(min(after))
    rest = sorted((t for t in frames if t not in chosen), key=lambda t: (abs(t - frame_index), t))
    return (chosen + rest)[:limit]


class ReferenceTracker:
    """One object's tracker under the policy `recent`; `reference_policies` has the others. `conditioning_limit`
    conditioning frames (None: all, as SAM 2's video predictor has it), `recent_frames` frames back, `num_frames` of the
    clip (0 unknown).

    `conditioning` and `others` map frame indices to records and grow without bound.
    """

    def __init__(
        self,
        model: TrackedModel,
        conditioning_limit: int | None,
        recent_frames: int,
        num_frames: int,
        max_pointers: int = 16,
    ) -> None:
        self.model = model
        self.tracker = model.tracker
        self.conditioning_limit = conditioning_limit
        self.recent_frames = recent_frames
        self.num_frames = num_frames
        self.max_pointers = max_pointers
        self.conditioning: dict[int, FrameRecord] = {}
        self.others: dict[int, FrameRecord] = {}

    @property
    def pointer_window(self) -> int:
        """How many frames back pointers are attended."""
        return min(self.num_frames or self.max_pointers, self.max_pointers) - 1

    def prompted_and_other_frames(self, frame_index: int) -> tuple[list[int], set[int]]:
        """The conditioning frames that count as such for this frame, in their order, and all other frames."""
        chosen = list(self.conditioning)
        if self.conditioning_limit is not None:
            chosen = closest_conditioning_frames(frame_index, chosen, self.conditioning_limit)
        return chosen, set(self.others) | (set(self.conditioning) - set(chosen))

    def memory_frames(self, frame_index: int) -> tuple[list[int], list[int]]:
        """Conditioning frames and recent frames (oldest first) whose memory this frame attends."""
        chosen, available = self.prompted_and_other_frames(frame_index)
        recent = [t for t in range(frame_index - self.recent_frames, frame_index) if t in available]
        return chosen, recent

    def ages(self, frame_index: int, recent: list[int]) -> list[int]:
        """Rows of the temporal table that `recent` frames get, see `Tracker.memory_position`."""
        return [frame_index - t - 1 for t in recent]

    def pointer_frames(self, frame_index: int) -> list[int]:
        """Frames whose pointer this frame attends: conditioning ones that are not later, then recent ones, nearest
        first."""
        chosen, available = self.prompted_and_other_frames(frame_index)
        back = [frame_index - d for d in range(1, self.pointer_window + 1)]
        return [t for t in chosen if t <= frame_index] + [t for t in back if t in available]

    def pointer_distances(self, frame_index: int, frames: list[int]) -> list[int]:
        """Distance of each of the `pointer_frames`, before it is divided, see `Tracker.pointer_position`."""
        return [frame_index - t for t in frames]

    def record(self, frame: int) -> FrameRecord:
        """The frame's record; a conditioning frame's replaces an earlier ordinary one."""
        return self.conditioning[frame] if frame in self.conditioning else self.others[frame]

    def memory_inputs(self, frame_index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Memory [1, n, h·w, C], its position, pointer tokens [1, 4p, C], their position."""
        chosen, recent = self.memory_frames(frame_index)
        last = self.tracker.sizes.memory_frames - 1
        age = torch.tensor([last] * len(chosen) + self.ages(frame_index, recent))
        memory = torch.stack([self.record(t).memory[0].flatten(1).T for t in chosen + recent])[None]
        frames = self.pointer_frames(frame_index)
        if frames:
            pointer = torch.stack([self.record(t).output.pointer for t in frames], dim=1)
        else:
            pointer = torch.zeros(1, 0, self.tracker.sizes.hidden_dim)
        distance = torch.tensor([self.pointer_distances(frame_index, frames)], dtype=torch.int32)
        position = self.tracker.pointer_position(distance, torch.tensor(self.pointer_window))
        return memory, self.tracker.memory_position(age)[None], self.tracker.pointer_tokens(pointer), position

    def step(
        self, frame_index: int, image: ImageFeatures, prompt: FramePrompt | None = None, attend_memory: bool = True
    ) -> FrameRecord:
        """Track one frame and remember it. The first frame must carry a prompt."""
        prompt = prompt or FramePrompt()
        conditioned = None
        features = image.features
        if prompt.mask is None:
            if attend_memory and (self.conditioning or self.others):
                features = conditioned = self.tracker.attend_memory(image.features, *self.memory_inputs(frame_index))
            else:
                features = self.tracker.without_memory(image.features)
        output, motion = self.decode(frame_index, image, features, prompt, attends_memory=conditioned is not None)
        by_mask = prompt.mask is not None
        points = torch.tensor([0 if by_mask else len(prompt.labels)], dtype=torch.int32)
        from_points = self.tracker.counts_as_from_points(points, torch.tensor([by_mask]))
        memory = self.tracker.encode_memory(image.features, output.masks, output.object_score, from_points)
        record = FrameRecord(output, memory, conditioned, self.accepts(output, motion), motion)
        self.remember(frame_index, record, prompt)
        return record

    def accepts(self, output: FrameOutput, motion: MotionChoice | None) -> bool:
        """`FrameRecord.accepted` of a frame."""
        return False

    def remember(self, frame_index: int, record: FrameRecord, prompt: FramePrompt) -> None:
        """Put a frame's record in its place; it replaces an earlier one of the frame."""
        place, other = self.conditioning, self.others
        if not prompt.is_given:
            place, other = other, place
        other.pop(frame_index, None)
        place[frame_index] = record

    def decode(
        self, frame_index: int, image: ImageFeatures, features: Tensor, prompt: FramePrompt, attends_memory: bool
    ) -> tuple[FrameOutput, MotionChoice | None]:
        """Prompt encoder, mask decoder, choice of the mask; a mask prompt is the output itself."""
        encoder, decoder = self.tracker.sam_prompt_encoder, self.tracker.sam_mask_decoder
        coords, labels = prompt.coords, prompt.labels
        if len(labels) == 0 or prompt.mask is not None:
            coords, labels = torch.zeros(1, 2), torch.tensor([-1], dtype=torch.int32)
        if encoder.pad_with_empty_point:
            coords = torch.cat((coords, torch.zeros(1, 2)))
            labels = torch.cat((labels, torch.tensor([-1], dtype=torch.int32)))
        sparse = encoder.point_tokens(coords[None], labels[None])
        if prompt.mask is not None:
            dense = encoder.mask_map(self.tracker.mask_values_as_prompt(prompt.mask[None, None]))
        elif prompt.prev_logits is not None:
            dense = encoder.mask_map(prompt.prev_logits[None, None])
        else:
            dense = encoder.no_mask_map()
        decoded = decoder(features, encoder.dense_position(), sparse, None, dense, image.high_res_0, image.high_res_1)
        if prompt.mask is not None:
            output, motion = self.take_mask(frame_index, decoded, torch.tensor([False]))
            return self.tracker.output_of_mask_prompt(prompt.mask[None, None], output), motion
        count = torch.tensor([len(prompt.labels)], dtype=torch.int32)
        candidates = self.tracker.uses_candidates(count, torch.tensor([attends_memory]))
        return self.take_mask(frame_index, decoded, candidates)

    def take_mask(
        self, frame_index: int, decoded: DecodedMasks, candidates: Tensor
    ) -> tuple[FrameOutput, MotionChoice | None]:
        """The decoder's masks → the frame's output; `candidates` bool [1]: whether it is one of the three."""
        return self.tracker.output(decoded, candidates), None


def run_clip(
    model: TrackedModel,
    images: list[Tensor],
    prompts: Mapping[int, FramePrompt],
    conditioning_limit: int | None,
    recent_frames: int,
) -> list[FrameRecord]:
    """Track one object through a whole clip (images f32 [1, 3, S, S] each), prompts by frame index."""
    tracker = ReferenceTracker(model, conditioning_limit, recent_frames, num_frames=len(images))
    return [tracker.step(t, encode_image(model, image), prompts.get(t)) for t, image in enumerate(images)]
