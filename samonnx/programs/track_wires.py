"""The wires of the `track` program: what feeds each input of its components."""

from __future__ import annotations

from collections.abc import Mapping

from samonnx.models.bank_policies import MemoryPolicy
from samonnx.programs.program import Wire
from samonnx.programs.track_bank import bank_layout

__all__ = ["PROMPT", "track_wires"]

PROMPT = ("point_coords", "point_labels", "mask_prompt", "mask_prompt_valid", "prev_logits", "prev_logits_valid")
"""The program's inputs that prompt an object."""

_COUNT = {"number_of_points": "encode_prompt.number_of_points"}
_BY_MASK = {"mask_prompt_valid": "mask_prompt_valid"}
_DECODED = {name: f"decode_masks.{name}" for name in ("mask_logits", "all_ious", "tokens")} | {
    "decoded_score": "decode_masks.object_score"
}
_ATTENDS = {"attends": "read_bank.attends"}


def track_wires(policy: MemoryPolicy, encoder: Mapping[str, Mapping[str, str]]) -> list[Wire]:
    """`encoder`: what feeds the components that encode the frame."""
    layout = bank_layout(policy)
    frames = {t.name: t.input for t in layout.frames + layout.accepted}
    taken = {name: f"take_mask.{name}" for name in ("iou", "object_score")}
    motion = {name: f"choose_mask.{name}" for name in ("motion_score", "motion_score_valid")}
    feeds: dict[str, Mapping[str, str]] = {
        **encoder,
        "read_bank": {name: name for name in ("frame_index", "num_frames", "attend_memory")} | frames,
        "attend_memory": {
            "features": "tracker_neck.features",
            "memory": "read_bank.slots",
            "pointers": "read_bank.tokens",
        }
        | {
            name: f"read_bank.{name}"
            for name in ("memory_position", "pointer_position", "memory_valid", "pointer_valid")
        },
        "encode_prompt": {name: name for name in PROMPT},
        "decode_masks": {name: f"tracker_neck.{name}" for name in ("features", "high_res_0", "high_res_1")}
        | {"conditioned": "attend_memory.conditioned"}
        | _ATTENDS
        | _BY_MASK
        | {name: f"encode_prompt.{name}" for name in ("sparse", "sparse_valid", "dense")},
        "take_mask": _DECODED
        | _COUNT
        | _ATTENDS
        | _BY_MASK
        | {"mask_prompt": "mask_prompt"}
        | ({"preferred": "choose_mask.preferred"} if policy.chooses_by_motion else {}),
        "encode_memory": {
            "features": "tracker_neck.features",
            "masks": "take_mask.masks",
            "object_score": "take_mask.object_score",
        }
        | _COUNT
        | _BY_MASK,
        "write_bank": {
            "frame_index": "frame_index",
            "new_memory": "encode_memory.memory",
            "object_pointer": "take_mask.object_pointer",
        }
        | _COUNT
        | _BY_MASK
        | frames
        | ({"accepted": "accept_frame.accepted"} if layout.accepted else {}),
    }
    if policy.chooses_by_motion:
        feeds["choose_mask"] = {
            **_DECODED,
            **_COUNT,
            **_ATTENDS,
            **_BY_MASK,
            "memory_frame": "bank.memory_frame",
            **{t.name: t.input for t in layout.filter},
        }
    if layout.accepted:
        feeds["accept_frame"] = taken | (motion if policy.chooses_by_motion else {})
    return [Wire(source, f"{part}.{target}") for part, given in feeds.items() for target, source in given.items()]
