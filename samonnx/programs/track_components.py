"""The components of the `track` program between reading and writing the bank: from features and prompts to masks and
memory, free of branches and of state.

Each is one module with tensors in and tensors out, so that it traces on its own. O objects, K point places, S image
size, h x w cells of the grid, N memory slots, P pointer slots, C memory width, D hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.bank_policies import Samurai
from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.motion_selection import MotionState, choose_by_motion
from samonnx.models.tracker import Tracker
from samonnx.programs.bank_components import tracked

__all__ = [
    "AttendMemory",
    "ChooseMask",
    "DecodeMasks",
    "EncodeMemory",
    "EncodePrompt",
    "TakeMask",
]


class AttendMemory(nn.Module):
    """features f32 [1, D, h, w] and memory over symbolic numbers of slots n and tokens p → conditioned f32 [O, D, h,
    w]."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointers: Tensor, pointer_position: Tensor
    ) -> Tensor:
        return self.tracker.attend_memory(features, memory, memory_position, pointers, pointer_position)


class EncodePrompt(nn.Module):
    """Prompts → sparse f32 [O, K + 2, D], sparse_valid bool [O, K + 2], dense f32 [O, D, h, w], number_of_points i32
    [O].

    A mask prompt silences the points of its object.
    """

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(
        self,
        point_coords: Tensor,
        point_labels: Tensor,
        mask_prompt: Tensor,
        mask_prompt_valid: Tensor,
        prev_logits: Tensor,
        prev_logits_valid: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        encoder = self.tracker.sam_prompt_encoder
        labels = torch.where(mask_prompt_valid[:, None], -1, point_labels)
        sparse, sparse_valid = encoder.padded_point_tokens(point_coords, labels)
        from_mask, from_logits = mask_prompt_valid[:, None, None, None], prev_logits_valid[:, None, None, None]
        logits = torch.where(from_logits, prev_logits, 0.0)
        values = torch.where(from_mask, self.tracker.mask_values_as_prompt(mask_prompt), logits)
        dense = torch.where(from_mask | from_logits, encoder.mask_map(values), encoder.no_mask_map())
        return sparse, sparse_valid, dense, (labels >= 0).to(torch.int32).sum(1, dtype=torch.int32)


class DecodeMasks(nn.Module):
    """Features (raw for a mask prompt, conditioned where memory is attended) and prompts → the decoder's four masks."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(
        self,
        features: Tensor,
        conditioned: Tensor,
        attends: Tensor,
        mask_prompt_valid: Tensor,
        sparse: Tensor,
        sparse_valid: Tensor,
        dense: Tensor,
        high_res_0: Tensor,
        high_res_1: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        chosen = torch.where(attends[:, None, None, None], conditioned, self.tracker.without_memory(features))
        chosen = torch.where(mask_prompt_valid[:, None, None, None], features, chosen)
        position = self.tracker.sam_prompt_encoder.dense_position()
        decoded = self.tracker.sam_mask_decoder(chosen, position, sparse, sparse_valid, dense, high_res_0, high_res_1)
        return decoded.logits, decoded.ious, decoded.tokens, decoded.object_score


class ChooseMask(nn.Module):
    """SAMURAI's choice among the three candidates → preferred i32 [O], phase i32 [O], motion_score f32 [O],
    motion_score_valid bool [O] (see `MotionChoice`), and the Kalman filter's state after this frame. An object that is
    not tracked yet keeps its state."""

    def __init__(self, tracker: Tracker, policy: Samurai) -> None:
        super().__init__()
        self.tracker = tracker
        self.policy = policy

    def forward(
        self,
        mask_logits: Tensor,
        all_ious: Tensor,
        tokens: Tensor,
        decoded_score: Tensor,
        number_of_points: Tensor,
        attends: Tensor,
        mask_prompt_valid: Tensor,
        memory_frame: Tensor,
        kalman_mean: Tensor,
        kalman_covariance: Tensor,
        stable_frames: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        decoded = DecodedMasks(mask_logits, all_ious, tokens, decoded_score)
        candidates = self.tracker.uses_candidates(number_of_points, attends) & ~mask_prompt_valid
        known = tracked(number_of_points, mask_prompt_valid, memory_frame)
        each = self.tracker.candidate_masks(decoded).flatten(0, 1)[:, None]
        masks = antialiased_resize(each, self.tracker.sizes.image_size).unflatten(0, (-1, 3))[:, :, 0]
        state = MotionState(kalman_mean, kalman_covariance, stable_frames)
        chosen = choose_by_motion(masks, all_ious[:, 1:], state, candidates & known, self.policy.choice)
        return (chosen.choice, chosen.phase, chosen.motion_score, chosen.motion_score_valid, *chosen.state)


class TakeMask(nn.Module):
    """The decoder's masks → low_res_masks, masks, ious, iou, mask_choice, object_score, object_pointer (see
    `FrameOutput`). `preferred`: as in `MaskDecoder.choose`."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(
        self,
        mask_logits: Tensor,
        all_ious: Tensor,
        tokens: Tensor,
        decoded_score: Tensor,
        number_of_points: Tensor,
        attends: Tensor,
        mask_prompt: Tensor,
        mask_prompt_valid: Tensor,
        preferred: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        candidates = self.tracker.uses_candidates(number_of_points, attends) & ~mask_prompt_valid
        decoded = self.tracker.output(DecodedMasks(mask_logits, all_ious, tokens, decoded_score), candidates, preferred)
        given = self.tracker.output_of_mask_prompt(mask_prompt, decoded)
        by_mask, by_row = mask_prompt_valid[:, None, None, None], mask_prompt_valid[:, None]
        return (
            torch.where(by_mask, given.low_res_masks, decoded.low_res_masks),
            torch.where(by_mask, given.masks, decoded.masks),
            decoded.ious,
            torch.where(by_row, given.iou, decoded.iou),
            torch.where(mask_prompt_valid, given.mask_choice, decoded.mask_choice),
            torch.where(by_row, given.object_score, decoded.object_score),
            torch.where(by_row, given.pointer, decoded.pointer),
        )


class EncodeMemory(nn.Module):
    """This frame's features and masks → its memory, f32 [O, C, h, w]."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.tracker = tracker

    def forward(
        self,
        features: Tensor,
        masks: Tensor,
        object_score: Tensor,
        number_of_points: Tensor,
        mask_prompt_valid: Tensor,
    ) -> Tensor:
        from_points = self.tracker.counts_as_from_points(number_of_points, mask_prompt_valid)
        return self.tracker.encode_memory(features, masks, object_score, from_points)
