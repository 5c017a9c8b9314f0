"""SAMURAI's eager reference against what the original's own decision code made of a scripted decoder, frame by frame.

Memory attention and memory encoder are left out, as they were for the original; everything between the decoder's
output and the record of the frame is samonnx's own.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.kalman_filter import predict
from samonnx.models.mask_box import box_iou, corners_of_state, mask_box
from samonnx.models.mask_decoder import DecodedMasks, MaskDecoder
from samonnx.models.motion_memory import MotionMemorySpec
from samonnx.models.motion_selection import STABLE, START, WARM_UP, MotionChoice, MotionSpec, MotionState
from samonnx.models.prompt_encoder import PromptEncoder
from samonnx.models.reference_policies import SamuraiTracker
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures
from samonnx.models.sam2 import STRIDE, TINY, Sam2
from samonnx.models.sam2_image_encoder import ImageEncoder
from samonnx.models.tracker import TrackerSizes
from samonnx.pins import apply_pins
from samonnx.weights import fill_seeded
from tests.models.samurai_script import FRAMES, Array, assert_entries, decoded, listed, made_by, of_frame
from tests.models.test_sam2 import RELEASED

SIZE, WIDTH, GRID = 1024, 256, 64

RECORDED = {
    *("kf_branch", "stable_frames", "best_iou_index", "best_iou_score", "kf_score"),
    *("kf_mean", "kf_covariance", "kf_predicted_mean", "kf_candidate_ious", "candidate_boxes", "measured_box"),
    *("memory_frames", "pointer_frames", "object_score_logits", "obj_ptr"),
}


class ScriptedDecoder(MaskDecoder):
    frame: int

    def forward(self, *inputs: Tensor | None) -> DecodedMasks:
        return decoded(self.frame)


class NoPosition(PromptEncoder):
    def dense_position(self) -> Tensor:
        return torch.zeros(0)


class Scripted(Sam2):
    """Masks by the script; features are not conditioned, memories are empty. Of the weights only those of the pointer
    matter, whose names and shapes are the same with every trunk."""

    def __init__(self) -> None:
        super().__init__(ImageEncoder(TINY, SIZE, WIDTH), TrackerSizes(SIZE, WIDTH, ffn_dim=64, stride=STRIDE))
        self.sam_mask_decoder = ScriptedDecoder(WIDTH, 64, numbered_mlp=True)
        self.sam_prompt_encoder = NoPosition(WIDTH, GRID, SIZE)

    def attend_memory(
        self, features: Tensor, memory: Tensor, memory_position: Tensor, pointer: Tensor, pointer_position: Tensor
    ) -> Tensor:
        return features

    def memory_map(self, features: Tensor, mask_values: Tensor) -> Tensor:
        return torch.zeros(1, self.sizes.memory_dim, GRID, GRID)


class WithoutMemory(SamuraiTracker):
    def memory_inputs(self, frame_index: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Nobody looks at them, and they are large."""
        nothing = torch.zeros(0)
        return nothing, nothing, nothing, nothing


@dataclass(frozen=True)
class Frame:
    """`memory_frames`, `pointer_frames` and the filter's state `before` the frame; its `record`."""

    memory_frames: list[int]
    pointer_frames: list[int]
    before: MotionState
    record: FrameRecord

    @property
    def motion(self) -> MotionChoice:
        assert self.record.motion is not None
        return self.record.motion

    @property
    def is_predicted(self) -> bool:
        return int(self.motion.phase) in (WARM_UP, STABLE)

    def predicted_mean(self) -> Tensor:
        """f32 [1, 8]"""
        return predict(self.before.mean, self.before.covariance)[0]


@lru_cache(maxsize=1)
def clip() -> tuple[Frame, ...]:
    """One click on frame 0, then tracking; each frame starts from samonnx's own results."""
    model = Scripted().eval().requires_grad_(False)
    apply_pins(model, RELEASED | {"presence_threshold": made_by("min_obj_score_logits")})
    fill_seeded(model, int(made_by("weight_seed")))
    decoder = cast(ScriptedDecoder, model.sam_mask_decoder)
    choice = MotionSpec(
        int(made_by("stable_frames_threshold")), made_by("stable_ious_threshold"), made_by("kf_score_weight")
    )
    thresholds = (made_by(f"memory_bank_{name}_threshold") for name in ("iou", "obj_score", "kf_score"))
    tracker = WithoutMemory(model, None, 6, FRAMES, choice=choice, memory=MotionMemorySpec(*thresholds))
    maps = (torch.zeros(1, channels, side, side) for channels, side in ((32, 256), (64, 128), (WIDTH, GRID)))
    image = ImageFeatures(*maps)
    click = FramePrompt(torch.tensor([[SIZE / 2, SIZE / 2]]), torch.tensor([1], dtype=torch.int32))
    frames = []
    with torch.inference_mode():
        for t in range(FRAMES):
            decoder.frame = t
            conditioning, recent = tracker.memory_frames(t)
            attended, before = (conditioning + recent, tracker.pointer_frames(t)), tracker.state_before(t)
            frames.append(Frame(*attended, before, tracker.step(t, image, click if t == 0 else None)))
    return tuple(frames)


def candidates(t: int) -> Tensor:
    """f32 [1, 3, S, S], at -1024 where the object is absent."""
    masks = decoded(t)
    logits = masks.logits[:, 1:] if float(masks.object_score) > -1 else torch.full_like(masks.logits[:, 1:], -1024)
    return antialiased_resize(logits.transpose(0, 1), SIZE).transpose(0, 1)


def ignoring_nan(array: Array) -> Array | None:
    """NaN is upstream's None: all of an array or nothing of it."""
    assert np.isnan(array).all() or not np.isnan(array).any()
    return None if np.isnan(array).any() else array


def test_every_array_of_the_file_is_compared_below() -> None:
    assert all(set(of_frame(t)) == RECORDED for t in range(FRAMES))


def test_phase_count_and_choice_are_the_originals_on_every_frame() -> None:
    found = [(int(f.motion.phase), int(f.motion.state.stable_frames), int(f.motion.choice)) for f in clip()]
    names = ("kf_branch", "stable_frames", "best_iou_index")
    assert found == [tuple(int(of_frame(t)[name]) for name in names) for t in range(FRAMES)]
    assert [int(frame.record.output.mask_choice) for frame in clip()] == [choice for _, _, choice in found]


def test_the_script_meets_all_phases_a_lapse_an_empty_mask_overruled_ious_and_rejected_frames() -> None:
    """So that the comparisons are of something. No warm-up of it lapses; `test_reference_policies` has one."""
    frames = clip()
    assert {int(f.motion.phase) for f in frames} == {START, WARM_UP, STABLE}
    assert {int(f.motion.phase) for f in frames if int(f.motion.state.stable_frames) == 0} == {STABLE}
    assert any(not (f.record.output.masks > 0).any() for f in frames)
    overruled = [t for t, f in enumerate(frames) if int(f.motion.choice) != int(decoded(t).ious[0, 1:].argmax())]
    assert overruled == [7, 16, 17, 18, 19, 21, 22, 50]
    rejected = [t for t, f in enumerate(frames) if not f.record.accepted]
    assert set(range(24, 27)) <= set(rejected) < set(range(1, FRAMES))


@pytest.mark.parametrize("name", ["kf_mean", "kf_covariance"])
def test_the_filters_state_after_every_frame_is_the_originals(name: str) -> None:
    for t, frame in enumerate(clip()):
        state = frame.motion.state
        found = state.mean if name == "kf_mean" else state.covariance
        assert_entries(found[0].numpy(), of_frame(t)[name], (t, name))


def test_the_predicted_state_is_the_originals() -> None:
    for t, frame in enumerate(clip()):
        expected = ignoring_nan(of_frame(t)["kf_predicted_mean"])
        assert (expected is not None) == frame.is_predicted, t
        if expected is not None:
            assert_entries(frame.predicted_mean()[0].numpy(), expected, t)


def test_the_candidates_boxes_and_their_overlaps_with_the_prediction_are_the_originals_where_it_is_stable() -> None:
    for t, frame in enumerate(clip()):
        reference = of_frame(t)
        boxes, overlaps = (ignoring_nan(reference[name]) for name in ("candidate_boxes", "kf_candidate_ious"))
        assert (boxes is not None) == (overlaps is not None) == (int(frame.motion.phase) == STABLE), t
        if boxes is None or overlaps is None:
            continue
        found = mask_box(candidates(t))
        np.testing.assert_array_equal(found[0].numpy(), boxes)
        motion = box_iou(corners_of_state(frame.predicted_mean()[:, None, :4]), found)
        np.testing.assert_allclose(motion[0].numpy(), overlaps, rtol=0, atol=1e-4)


def test_the_box_that_the_filter_is_given_is_that_of_the_mask_taken() -> None:
    for t, frame in enumerate(clip()):
        expected = ignoring_nan(of_frame(t)["measured_box"])
        assert (expected is None) == (int(frame.motion.state.stable_frames) == 0), t
        if expected is not None:
            np.testing.assert_array_equal(mask_box(frame.record.output.masks)[0, 0].numpy(), expected)


def test_the_scores_by_which_a_frame_is_accepted_are_the_originals() -> None:
    for t, frame in enumerate(clip()):
        reference, output = of_frame(t), frame.record.output
        np.testing.assert_array_equal(output.iou[0].numpy(), reference["best_iou_score"])
        np.testing.assert_array_equal(output.object_score.numpy(), reference["object_score_logits"])
        motion = ignoring_nan(reference["kf_score"])
        assert bool(frame.motion.motion_score_valid) == (motion is not None), t
        np.testing.assert_allclose(
            frame.motion.motion_score.numpy(), 0 if motion is None else motion, rtol=0, atol=1e-4
        )


@pytest.mark.parametrize("name", ["memory_frames", "pointer_frames"])
def test_the_frames_attended_are_the_originals_in_its_order(name: str) -> None:
    assert [getattr(frame, name) for frame in clip()] == [listed(of_frame(t)[name]) for t in range(FRAMES)]


def test_the_object_pointer_is_that_of_the_token_chosen_or_of_an_absent_object() -> None:
    for t, frame in enumerate(clip()):
        expected = of_frame(t)["obj_ptr"]
        found = frame.record.output.pointer.numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=f"frame {t}")
