"""SAM 2's video model of the transformers package without its session: one tracking step from a bank to the next.

The original (`Sam2VideoModel.forward`, transformers 5.23, `models/sam2_video/modeling_sam2_video.py`) keeps what it
remembers in Python dictionaries of a session, by frame. Here the same modules are called on tensors that are carried:

    image ─► features ─┬─ + no-memory embedding (a prompted frame)   ─┬─► prompt encoder, mask decoder ─► mask, pointer
    bank ─► memory ────┴─ memory attention over all slots, masked    ─┘            └─► memory encoder ─► next bank

A slot of the bank is a distance in frames: recent slot r holds what was tracked r + 1 frames ago, if anything was. So
temporal positions are constants, and only the distance to the prompted frame is counted.

What is narrower than in the session: one object; one prompted frame, with one click (a second prompt starts anew);
frames in their order; a stream, whose length is not known. The memory stays float32, where
the session rounds it to bfloat16.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoModel, get_1d_sine_pe

from samonnx.errors import SamonnxError

__all__ = ["Sam2VideoStep"]

ATTENTION = "samonnx_slots"


class _Slots:
    """Which keys hold a memory, bool [keys]; read by the attention while one step runs."""

    valid: Tensor | None = None


def _attend_slots(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: object, scaling: float, **_: object
) -> tuple[Tensor, None]:
    """Attention over the keys that are valid; as an attention function of the transformers package."""
    slots = module.slots
    assert isinstance(slots, _Slots)
    mask = None if slots.valid is None else slots.valid[None, None, None, :]
    attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling)
    return attended.transpose(1, 2).contiguous(), None


AttentionInterface.register(ATTENTION, _attend_slots)


class Sam2VideoStep(nn.Module):
    """One frame of one object. Sizes: M = `num_maskmem` - 1 recent memories, P = `max_object_pointers_in_encoder` - 1
    recent pointers, K cells of C channels a memory, D channels a pointer.

    Raises SamonnxError for configurations whose step would branch on the prompt.
    """

    def __init__(self, model: Sam2VideoModel) -> None:
        super().__init__()
        config = model.config
        if not (config.multimask_output_in_sam and config.multimask_output_for_tracking) or not (
            config.multimask_min_pt_num <= 0 and config.multimask_max_pt_num >= 1
        ):
            raise SamonnxError(
                "Sam2VideoStep: prompted and tracked frames choose among the same masks only with "
                "multimask_output_in_sam and multimask_output_for_tracking true, and 0 and 1 points between "
                f"multimask_min_pt_num ({config.multimask_min_pt_num}) and multimask_max_pt_num "
                f"({config.multimask_max_pt_num}); expected such a configuration"
            )
        if tuple(4 * side for side in model.prompt_encoder.mask_input_size) != (model.image_size, model.image_size):
            raise SamonnxError(
                f"Sam2VideoStep: masks of {model.prompt_encoder.mask_input_size} are not a quarter of the image's "
                f"{model.image_size}; expected vision features of stride 16"
            )
        self.model: Any = model
        self.slots = _Slots()
        for layer in self.model.memory_attention.layers:
            attention: Any = layer.cross_attn_image
            attention.config = SimpleNamespace(_attn_implementation=ATTENTION)
            attention.slots = self.slots

    def forward(
        self,
        image: Tensor,
        point: Tensor,
        label: Tensor,
        prompted: Tensor,
        conditioning_memory: Tensor,
        conditioning_pointer: Tensor,
        conditioning_age: Tensor,
        recent_memory: Tensor,
        recent_memory_valid: Tensor,
        recent_pointer: Tensor,
        recent_pointer_valid: Tensor,
    ) -> dict[str, Tensor]:
        """`image` f32 [1, 3, S, S]; `point` f32 [1, 1, 1, 2] in pixels and `label` i32 [1, 1, 1], read if `prompted`
        bool [1].

        The bank: `conditioning_memory` f32 [1, K, C], `conditioning_pointer` f32 [1, D] and `conditioning_age` i32 [1]
        (frames since) of the prompted frame; `recent_memory` f32 [1, M, K, C], `recent_pointer` f32 [1, P, D] with
        bool [1, M] and [1, P] that say which hold something, the newest first. The result has the next bank under the
        same names, `low_res_masks` f32 [1, 1, S/4, S/4], `object_score` f32 [1, 1, 1] and `object_pointer` f32 [1, D].
        """
        model = self.model
        image_output = model.get_image_features(image, return_dict=True)
        features: list[Tensor] = image_output.fpn_hidden_states
        high_res = [
            one.permute(1, 2, 0).view(1, -1, *size)
            for one, size in zip(features[:-1], model.backbone_feature_sizes[:-1], strict=True)
        ]
        current = features[-1]  # [K, 1, D]
        memory, positions, pointer_tokens = self._memory(
            conditioning_memory, conditioning_pointer, conditioning_age, recent_memory, recent_pointer
        )
        self.slots.valid = self._valid_keys(recent_memory_valid, recent_pointer_valid)
        attended = model.memory_attention(
            current_vision_features=current,
            current_vision_position_embeddings=image_output.fpn_position_encoding[-1],
            memory=memory,
            memory_posision_embeddings=positions,
            num_object_pointer_tokens=pointer_tokens,
        )
        self.slots.valid = None
        without_memory = (current + model.no_memory_embedding).permute(1, 2, 0)
        fused = torch.where(prompted[:, None, None], without_memory, attended.squeeze(1).transpose(1, 2))
        maps = fused.view(1, model.hidden_dim, *model.backbone_feature_sizes[-1])
        place = prompted[:, None, None]
        decoded = model._single_frame_forward(
            input_points=torch.where(place[..., None], point, torch.zeros_like(point)),
            input_labels=torch.where(place, label, -torch.ones_like(label)),
            image_embeddings=[*high_res, maps],
            multimask_output=True,
        )
        pointer = decoded.object_pointer.view(1, -1)
        new = self._encoded(current, decoded.high_res_masks, decoded.object_score_logits, prompted)
        kept = ~prompted[:, None]
        return {
            "low_res_masks": decoded.pred_masks,
            "object_score": decoded.object_score_logits,
            "object_pointer": pointer,
            "conditioning_memory": torch.where(prompted[:, None, None], new, conditioning_memory),
            "conditioning_pointer": torch.where(prompted[:, None], pointer, conditioning_pointer),
            "conditioning_age": torch.where(prompted, torch.ones_like(conditioning_age), conditioning_age + 1),
            "recent_memory": torch.cat([new[:, None], recent_memory[:, :-1]], dim=1),
            "recent_memory_valid": torch.cat([kept, recent_memory_valid[:, :-1] & kept], dim=1),
            "recent_pointer": torch.cat([pointer[:, None], recent_pointer[:, :-1]], dim=1),
            "recent_pointer_valid": torch.cat([kept, recent_pointer_valid[:, :-1] & kept], dim=1),
        }

    def _memory(
        self,
        conditioning_memory: Tensor,
        conditioning_pointer: Tensor,
        conditioning_age: Tensor,
        recent_memory: Tensor,
        recent_pointer: Tensor,
    ) -> tuple[Tensor, Tensor, int]:
        """Keys of all slots [N, 1, C], their positions, and how many of them, at the end, are of pointers."""
        model = self.model
        slots, channels = recent_memory.shape[1], model.mem_dim
        maps = torch.cat([conditioning_memory[:, None], recent_memory], dim=1).flatten(1, 2)  # [1, (1 + M) K, C]
        shape = (1, channels, *model.backbone_feature_sizes[-1])
        spatial = model.memory_encoder.position_encoding(shape, maps.device, maps.dtype).flatten(2).transpose(1, 2)
        # A conditioning frame has the last of the temporal positions, one r frames ago the (r - 1)th.
        temporal = model.memory_temporal_positional_encoding.view(1, -1, 1, channels)
        temporal = torch.cat([temporal[:, -1:], temporal[:, :slots]], dim=1)
        map_positions = (spatial[:, None] + temporal).flatten(1, 2)

        count = recent_pointer.shape[1]
        recent_ages = torch.arange(1, count + 1, dtype=torch.float32)
        ages = torch.cat([conditioning_age.float(), recent_ages]) / float(count)
        pointers = torch.cat([conditioning_pointer[:, None], recent_pointer], dim=1)  # [1, 1 + P, D]
        splits = max(1, model.hidden_dim // channels)
        tokens = pointers.view(1, (1 + count) * splits, channels)
        if model.config.enable_temporal_pos_encoding_for_object_pointers:
            sines = get_1d_sine_pe(ages, dim=model.hidden_dim)  # type: ignore[no-untyped-call]
            pointer_positions = model.temporal_positional_encoding_projection_layer(sines)[None]
            pointer_positions = pointer_positions.repeat_interleave(splits, dim=1)
        else:
            pointer_positions = torch.zeros_like(tokens)
        keys = torch.cat([maps, tokens], dim=1).transpose(0, 1)
        return keys, torch.cat([map_positions, pointer_positions], dim=1).transpose(0, 1), tokens.shape[1]

    def _valid_keys(self, memory_valid: Tensor, pointer_valid: Tensor) -> Tensor:
        """bool [keys]. The conditioning frame's are always: on a prompted frame the result is not used, and without
        a prompt before it there is nothing to track."""
        model = self.model
        height, width = model.backbone_feature_sizes[-1]
        always = torch.ones(1, dtype=torch.bool)
        maps = torch.cat([always, memory_valid[0]]).repeat_interleave(height * width)
        splits = max(1, model.hidden_dim // model.mem_dim)
        return torch.cat([maps, torch.cat([always, pointer_valid[0]]).repeat_interleave(splits)])

    def _encoded(self, current: Tensor, masks: Tensor, object_score: Tensor, prompted: Tensor) -> Tensor:
        """The frame's own memory, f32 [1, K, C]: the mask is binary where a click made it, else its probabilities."""
        model, config = self.model, self.model.config
        maps = current.permute(1, 2, 0).view(1, model.hidden_dim, *model.backbone_feature_sizes[-1])
        shown = torch.where(prompted[:, None, None, None], (masks > 0).to(masks.dtype), torch.sigmoid(masks))
        scaled = shown * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        encoded: Any = model.memory_encoder(maps, scaled)[0]
        if model.occlusion_spatial_embedding_parameter is not None:
            absent = 1 - (object_score > 0).float()
            encoded = encoded + absent[..., None] * model.occlusion_spatial_embedding_parameter[..., None, None]
        memory: Tensor = encoded.flatten(2).transpose(1, 2)
        return memory
