"""The three memory policies over banks so small that every slot is overwritten soon, with weights and constants that
make objects come and go, frames be accepted and rejected, and SAMURAI's filter start anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tests.compiled_artifact import TINY

from .scenario import ReferenceRun

__all__ = ["OBJECTS", "POLICIES", "Variant", "reference_of"]

OBJECTS = 3
_SMALL = (
    "memory.conditioning_slots=2",
    "memory.recent_slots=3",
    "memory.pointer_slots=5",
    f"programs.track.objects={OBJECTS}",
)


@dataclass(frozen=True)
class Variant:
    """A recipe and what is changed of it."""

    path: Path
    overrides: tuple[str, ...]


def _score_head(prefix: str, weight: float, bias: float) -> Sequence[str]:
    """With seeded weights the object's score hardly moves. Magnified about its mean it crosses 0, and -1, often."""
    layer = f"weights.rescale.{prefix}sam_mask_decoder.pred_obj_score_head.layers.2"
    return f"{layer}.weight={weight}", f"{layer}.bias={bias}"


# Sam2's seed is the recipes' own.
_SAM2 = (*_SMALL, *_score_head("", -90, 817))
_IOU_HEAD = "weights.rescale.sam_mask_decoder.iou_prediction_head.layers.2.weight"
_TRUNK = "weights.rescale.detector.backbone.vision_backbone.trunk.model.head.1.running_var"  # the image is seen

POLICIES = {
    "samurai": Variant(
        TINY.with_name("samurai_tiny.yaml"),
        (
            *_SAM2,
            f"{_IOU_HEAD}=3",
            "memory.samurai.kf_score_weight=0.9",
            "memory.samurai.stable_ious_threshold=0.731",
            "memory.samurai.memory_bank_iou_threshold=0.7384",
            "memory.samurai.memory_bank_kf_score_threshold=0.8",
        ),
    ),
    "selection": Variant(
        TINY,
        (
            *_SMALL,
            *_score_head("tracker.", -21.2, -51.6),
            f"{_TRUNK}=1.0",
            "weights.seed=7",
            "memory.policy=selection",
            "memory.selection.mf_threshold=0.05",
        ),
    ),
    "recent": Variant(TINY.with_name("sam2_tiny.yaml"), _SAM2),
}


@lru_cache(maxsize=len(POLICIES))
def reference_of(policy: str) -> ReferenceRun:
    """Its eager model, built once; its frames are encoded once."""
    return ReferenceRun.of(POLICIES[policy].overrides, POLICIES[policy].path)
