"""What a recipe says about the memory bank: its places, and the policy by which frames are kept and attended."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from samonnx.recipe_spec import Spec

__all__ = ["MemorySpec", "SamuraiSpec", "SelectionSpec", "XMemMemorySpec"]


class SelectionSpec(Spec):
    """The policy `selection`."""

    mf_threshold: float = 0.01
    """A frame whose presence (0 to 1) times predicted IoU is above this is accepted."""


class SamuraiSpec(Spec):
    """The policy `samurai`, by the names of SAMURAI's configuration files."""

    stable_frames_threshold: Annotated[int, Field(ge=1)] = 15
    """Frames in a row that the filter must have been corrected in before it takes part in the choice of the mask."""

    stable_ious_threshold: float = 0.3
    """Predicted IoU below which the filter starts anew."""

    kf_score_weight: Annotated[float, Field(ge=0, le=1)] = 0.25
    """Weight of the overlap with the predicted box against the predicted IoU."""

    memory_bank_iou_threshold: float = 0.5
    """Predicted IoU that an accepted frame is above."""

    memory_bank_obj_score_threshold: float = 0.0
    """Object score, a logit, that an accepted frame is above."""

    memory_bank_kf_score_threshold: float = 0.0
    """Overlap with the predicted box that an accepted frame is above, once the filter is stable."""


class MemorySpec(Spec):
    """The memory bank's places."""

    conditioning_slots: Annotated[int, Field(ge=1)] = 1
    """Places for the memories of prompted frames."""

    recent_slots: Annotated[int, Field(ge=1)] = 6
    """Places for the memories of the latest frames."""

    pointer_slots: Annotated[int, Field(ge=2)] = 16
    """Most object pointers that are attended, as upstream's max_obj_ptrs_in_encoder counts them."""

    policy: Literal["recent", "selection", "samurai"] = "recent"
    """Which frames are attended beside the conditioning ones: recent (the latest), selection (SAM 3's: the latest that
    scored well), samurai (SAMURAI's: the latest that scored well and moved as a Kalman filter expects, which takes part
    in the choice of the mask too)."""

    selection: SelectionSpec = SelectionSpec()
    """Constants of the policy `selection`."""

    samurai: SamuraiSpec = SamuraiSpec()
    """Constants of the policy `samurai`."""

    @property
    def slots(self) -> int:
        """Places for spatial memories, N in the contract of the bank."""
        return self.conditioning_slots + self.recent_slots

    @model_validator(mode="after")
    def _constants_of_the_policy_alone(self) -> MemorySpec:
        for name in ("selection", "samurai"):
            if name != self.policy and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"`{name}` holds the constants of the policy {name}, but the policy is {self.policy}; "
                    f"give `policy: {name}`, or leave them out"
                )
        return self


class XMemMemorySpec(Spec):
    """The sizes of XMem's memory."""

    working_frames: Annotated[int, Field(ge=1)] = 10
    """Frames at which the working memory is consolidated (XMem's max_mid_term_frames)."""

    min_working_frames: Annotated[int, Field(ge=1)] = 5
    """Frames that a consolidation keeps, the first one among them (min_mid_term_frames)."""

    long_term: Annotated[int, Field(ge=1)] = 10000
    """Most elements of the long-term memory (max_long_term_elements)."""

    prototypes: Annotated[int, Field(ge=1)] = 128
    """Elements that a consolidation adds to it (num_prototypes)."""

    every: Annotated[int, Field(ge=1)] = 5
    """Frames from one memory frame to the next (mem_every)."""

    top_k: Annotated[int, Field(ge=1)] = 30
    """Elements that a position reads (top_k)."""

    @model_validator(mode="after")
    def _sizes_that_fit(self) -> XMemMemorySpec:
        if self.min_working_frames >= self.working_frames:
            raise ValueError(
                f"`min_working_frames` is {self.min_working_frames} and `working_frames` {self.working_frames}, "
                "expected fewer than working_frames: a consolidation keeps min_working_frames, and must free a slot"
            )
        if self.prototypes > self.long_term:
            raise ValueError(
                f"`prototypes` is {self.prototypes} and `long_term` {self.long_term}, expected no more than "
                "long_term: a consolidation adds them at once"
            )
        return self
