"""The components of the `track` program: a tracking step over a padded bank, free of branches and of state.

Each is one module with tensors in and tensors out, so that it traces on its own. O objects, K point places, S image
size, h = w = S/14, N memory slots, P pointer slots, C memory width, D hidden width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.memory_policy import select_slots, slot_to_write
from samonnx.models.sam3_tracker import Tracker

__all__ = [
    "AttendMemory",
    "DecodeMasks",
    "EncodeMemory",
    "EncodePrompt",
    "ReadBank",
    "TakeMask",
    "TrackerNeck",
    "WriteBank",
]


class TrackerNeck(nn.Module):
    """trunk_map f32 [1, C', t, t] → high_res_0 f32 [1, D/8, 4h, 4w], high_res_1 f32 [1, D/4, 2h, 2w], features f32 [1,
    D, h, w]."""

    def __init__(self, model: EfficientSAM3) -> None:
        super().__init__()
        self.vision_backbone = model.detector.backbone.vision_backbone
        self.conv_s0 = model.tracker.sam_mask_decoder.conv_s0
        self.conv_s1 = model.tracker.sam_mask_decoder.conv_s1

    def forward(self, trunk_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        grid_map = self.vision_backbone.trunk.to_grid(trunk_map)
        level_0, level_1, features = self.vision_backbone.tracker_maps(grid_map)
        return self.conv_s0(level_0), self.conv_s1(level_1), features


class ReadBank(nn.Module):
    """Which slots this frame attends and with which positions.

    With `filled`, only the first so many slots are handed on (N is `filled` below); which of them count, and whether
    memory is attended at all, is still decided over the whole bank.

    → slots f32 [O, N, h·w, C], memory_position (same shape), memory_valid bool [O, N], tokens f32 [O, P·D/C, C],
    pointer_position (same), pointer_valid bool [O, P·D/C], attends bool [O].
    """

    def __init__(
        self,
        tracker: Tracker,
        conditioning_slots: int,
        recent_slots: int,
        pointer_slots: int,
        filled: int | None = None,
    ) -> None:
        super().__init__()
        self.tracker = tracker
        self.conditioning_slots = conditioning_slots
        self.recent_slots = recent_slots
        self.pointer_slots = pointer_slots
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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        slots = select_slots(frame_index, memory_frame, memory_conditioning, self.conditioning_slots, self.recent_slots)
        last = self.tracker.sizes.memory_frames - 1
        age = torch.where(slots.recent, slots.distance - 1, last).to(torch.int64)
        position = self.tracker.memory_position(age[:, : self.filled])

        window = self.tracker.pointer_window(num_frames, self.pointer_slots)
        places = select_slots(frame_index, pointer_frame, pointer_conditioning, self.conditioning_slots, window)
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


class AttendMemory(nn.Module):
    """features f32 [1, D, h, w] and memory over symbolic numbers of slots n and tokens p → conditioned f32 [O, D, h,
    w]."""

    def __init__(self, tracker: Tracker) -> None:
        super().__init__()
        self.transformer = tracker.transformer

    def forward(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointers: Tensor, pointer_position: Tensor
    ) -> Tensor:
        conditioned: Tensor = self.transformer(features, memory, memory_position, pointers, pointer_position)
        return conditioned


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


class TakeMask(nn.Module):
    """The decoder's masks → low_res_masks, masks, ious, iou, mask_choice, object_score, object_pointer (see
    `FrameOutput`)."""

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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        candidates = self.tracker.uses_candidates(number_of_points, attends) & ~mask_prompt_valid
        decoded = self.tracker.output(DecodedMasks(mask_logits, all_ious, tokens, decoded_score), candidates)
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

    def forward(self, features: Tensor, masks: Tensor, object_score: Tensor, number_of_points: Tensor) -> Tensor:
        return self.tracker.encode_memory(features, masks, object_score, number_of_points > 0)


class WriteBank(nn.Module):
    """Puts this frame into the bank. An object with an empty bank and no prompt is not tracked yet: its bank stays
    empty."""

    def __init__(self, conditioning_slots: int) -> None:
        super().__init__()
        self.conditioning_slots = conditioning_slots

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
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        prompted = (number_of_points > 0) | mask_prompt_valid
        tracked = (prompted | (memory_frame >= 0).any(1))[:, None]
        slot = tracked & slot_to_write(
            frame_index, memory_frame, memory_conditioning, prompted, self.conditioning_slots
        )
        place = tracked & slot_to_write(
            frame_index, pointer_frame, pointer_conditioning, prompted, self.conditioning_slots
        )
        return (  # flags by logic: ONNX Runtime has no Where of booleans
            torch.where(slot[:, :, None, None, None], new_memory[:, None], memory),
            torch.where(slot, frame_index, memory_frame),
            (slot & prompted[:, None]) | (~slot & memory_conditioning),
            torch.where(place[:, :, None], object_pointer[:, None], pointer),
            torch.where(place, frame_index, pointer_frame),
            (place & prompted[:, None]) | (~place & pointer_conditioning),
        )
