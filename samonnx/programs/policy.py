"""From a recipe's `memory:` to the memory policy that the programs are made with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from samonnx.models.bank_policies import MemoryPolicy, Recent, Samurai, Selection
from samonnx.models.motion_memory import MotionMemorySpec
from samonnx.models.motion_selection import MotionSpec

if TYPE_CHECKING:
    from samonnx.recipe import MemorySpec

__all__ = ["memory_policy"]


def memory_policy(memory: MemorySpec) -> MemoryPolicy:
    """The policy that `memory.policy` names, with the recipe's places and constants."""
    places = memory.conditioning_slots, memory.recent_slots, memory.pointer_slots
    if memory.policy == "selection":
        return Selection(*places, mf_threshold=memory.selection.mf_threshold)
    if memory.policy == "samurai":
        given = memory.samurai
        return Samurai(
            *places,
            choice=MotionSpec(given.stable_frames_threshold, given.stable_ious_threshold, given.kf_score_weight),
            thresholds=MotionMemorySpec(
                given.memory_bank_iou_threshold,
                given.memory_bank_obj_score_threshold,
                given.memory_bank_kf_score_threshold,
            ),
        )
    return Recent(*places)
