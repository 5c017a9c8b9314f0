"""The eager reference tracker of a recipe: which class stands for `memory.policy`, with the recipe's constants."""

from __future__ import annotations

from samonnx.models.bank_policies import Samurai, Selection
from samonnx.models.reference_policies import SamuraiTracker, SelectionTracker
from samonnx.models.reference_tracker import ReferenceTracker
from samonnx.models.tracker import TrackedModel
from samonnx.programs.policy import memory_policy
from samonnx.recipe import MemorySpec

__all__ = ["eager_tracker"]


def eager_tracker(model: TrackedModel, memory: MemorySpec, num_frames: int) -> ReferenceTracker:
    """One object's tracker over a clip of `num_frames` frames (0: unknown)."""
    policy = memory_policy(memory)
    places = memory.conditioning_slots, memory.recent_slots, num_frames, memory.pointer_slots
    if isinstance(policy, Selection):
        return SelectionTracker(model, *places, threshold=policy.mf_threshold)
    if isinstance(policy, Samurai):
        return SamuraiTracker(model, *places, choice=policy.choice, memory=policy.thresholds)
    return ReferenceTracker(model, *places)
