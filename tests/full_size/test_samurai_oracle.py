"""The eager reference of SAMURAI, hiera_b+ at full size, against the original project's tensors of 30 frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.reference_policies import SamuraiTracker
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, encode_image
from samonnx.models.sam2 import IMAGE_MEAN, IMAGE_STD, Sam2, build
from samonnx.pins import apply_pins
from samonnx.seeded import seeded_frame
from samonnx.weights import fill_seeded
from tests.models.test_sam2 import RELEASED

Array = np.ndarray[Any, np.dtype[Any]]

HERE = Path(__file__).parents[2]
FOLDERS = (HERE / "golden" / "sam2.1", HERE.parent / "shared" / "oracle" / "sam2.1")
FILE = "samurai_hiera_b+.npz"

TOLERANCE = 1e-4
POSITION_TOLERANCE = 1e-5
FILTER_TOLERANCE = 1e-3
TINY = 1e-6
"""Entries of the filter's state below this share of the largest are zero but for rounding."""


@dataclass
class Figures:
    """The largest error of each kind of tensor, relative to the reference tensor's largest magnitude; where the exact
    values differ, frame, name and both."""

    largest: dict[str, float] = field(default_factory=dict)
    different: list[tuple[int, str, object, object]] = field(default_factory=list)
    compared: int = 0

    def note(
        self, name: str, found: Array, expected: Array, *, absolute: bool = False, quantile: float | None = None
    ) -> None:
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        error = np.abs(found.astype(np.float64) - expected)
        worst = float(error.max() if quantile is None else np.quantile(error, quantile))
        worst /= 1.0 if absolute else float(np.abs(expected).max())
        self.largest[name] = max(self.largest.get(name, 0.0), worst)

    def note_entries(self, name: str, found: Array, expected: Array) -> None:
        """Relative to each entry that is not tiny."""
        large = np.abs(expected) > TINY * np.abs(expected).max()
        error = np.abs(found - expected)[large] / np.abs(expected)[large]
        self.largest[name] = max(self.largest.get(name, 0.0), float(error.max()))

    def same(self, t: int, name: str, found: object, expected: object) -> None:
        self.compared += 1
        if found != expected:
            self.different.append((t, name, found, expected))


def oracle() -> Mapping[str, Array]:
    for folder in FOLDERS:
        if (folder / FILE).is_file():
            return dict(np.load(folder / FILE))
    pytest.skip(f"{FILE} is in none of {', '.join(map(str, FOLDERS))}")


def sampled(tensor: torch.Tensor, stride: int) -> Array:
    array: Array = tensor.numpy()[..., ::stride, ::stride]
    return array


def listed(frames: Array) -> list[int]:
    return [int(t) for t in frames if t >= 0]


def clip_figures(reference: Mapping[str, Array]) -> Figures:
    """Free-running over the whole clip, from the images on."""
    model: Sam2 = build("b+").requires_grad_(False)
    apply_pins(model, RELEASED | {"presence_threshold": -1.0})
    fill_seeded(model, int(reference["meta/weight_seed"]))
    frames = int(reference["meta/num_frames"])
    tracker = SamuraiTracker(model, None, 6, frames)
    corners = torch.from_numpy(reference["meta/box"].astype(np.float32).reshape(2, 2))
    box = FramePrompt(corners, torch.tensor([2, 3], dtype=torch.int32))
    mean, std = (np.array(of_rgb, np.float32)[:, None, None] for of_rgb in (IMAGE_MEAN, IMAGE_STD))
    decoded: list[DecodedMasks] = []
    model.sam_mask_decoder.register_forward_hook(lambda module, inputs, output: decoded.append(output))
    figures = Figures()
    with torch.inference_mode():
        for t in range(frames):
            of_frame = {name.split("/")[1]: a for name, a in reference.items() if name.startswith(f"frame{t:02d}/")}
            conditioning, recent = tracker.memory_frames(t)
            figures.same(t, "memory_frames", conditioning + recent, listed(of_frame["memory_frames"]))
            figures.same(t, "pointer_frames", tracker.pointer_frames(t), listed(of_frame["pointer_frames"]))
            if t:
                _, memory_position, _, pointer_position = tracker.memory_inputs(t)
                found = memory_position[0].flatten(0, 1)[::1021].numpy()
                figures.note("memory_pos", found, of_frame["memory_pos_s1021"], absolute=True)
                found = pointer_position[0, ::4].numpy()
                figures.note("pointer_pos", found, of_frame["pointer_pos"], absolute=True)
            frame = seeded_frame(t, model.sizes.image_size, int(reference["meta/clip_seed"]))
            image = encode_image(model, torch.from_numpy((frame - mean) / std)[None])
            record = tracker.step(t, image, box if t == 0 else None)
            candidates = model.candidate_masks(decoded.pop())
            if "low_res_multimasks_s8" in of_frame:
                figures.note("low_res_multimasks", sampled(candidates, 8), of_frame["low_res_multimasks_s8"])
            compare_frame(figures, t, record, of_frame)
    return figures


def compare_frame(figures: Figures, t: int, record: FrameRecord, reference: Mapping[str, Array]) -> None:
    output, motion = record.output, record.motion
    assert motion is not None
    for stride in (4, 5):
        expected = reference[f"low_res_masks_s{stride}"]
        figures.note("low_res_masks", sampled(output.low_res_masks, stride), expected)
    figures.note("obj_ptr", output.pointer.numpy(), reference["obj_ptr"])
    figures.note("object_score_logits", output.object_score.numpy(), reference["object_score_logits"])
    figures.note("ious", (output.ious if t else output.iou).numpy(), reference["ious"])
    memory = sampled(record.memory, 4)
    if t:
        figures.note("maskmem_features", memory, reference["maskmem_features_s4"])
    else:
        figures.note("maskmem_features of the prompt", memory, reference["maskmem_features_s4"], quantile=0.999)
    if "memory_conditioned_features_s4" in reference:
        assert record.conditioned is not None
        conditioned = sampled(record.conditioned, 4)
        figures.note("memory_conditioned_features", conditioned, reference["memory_conditioned_features_s4"])

    figures.same(t, "phase", int(motion.phase), int(reference["kf_branch"].item()))
    figures.same(t, "stable_frames", int(motion.state.stable_frames), int(reference["stable_frames"].item()))
    expected_score = float(reference["kf_score"].item())
    figures.same(t, "motion_score_valid", bool(motion.motion_score_valid), not np.isnan(expected_score))
    if not np.isnan(expected_score):
        figures.note("kf_score", motion.motion_score.numpy(), np.array([expected_score]), absolute=True)
    if t == 0:
        figures.same(t, "filter untouched", bool(motion.state.covariance.any()), False)
        return
    figures.same(t, "mask choice", int(output.mask_choice), int(reference["best_iou_index"].item()))
    figures.same(t, "filter's choice", int(motion.choice), int(reference["best_iou_index"].item()))
    figures.note("best_iou_score", output.iou[0].numpy(), reference["best_iou_score"].reshape(1))
    for name, found in (("kf_mean", motion.state.mean), ("kf_covariance", motion.state.covariance)):
        figures.note(name, found[0].numpy(), reference[name])
        figures.note_entries(f"{name}, each entry", found[0].numpy(), reference[name])


@pytest.mark.full_size
def test_the_reference_gives_samurais_tensors_and_decisions_at_every_frame() -> None:
    """Tensors within 1e-4 of the reference tensor's largest magnitude (memory of the prompted frame, which is encoded
    from a thresholded mask, at its 99.9 % quantile), positions within 1e-5, the filter's state within 1e-3, entry by
    entry too; phase, count of stable frames, mask choice and attended frames the same."""
    figures = clip_figures(oracle())
    allowed = {"memory_pos": POSITION_TOLERANCE, "pointer_pos": POSITION_TOLERANCE}
    allowed |= {name: FILTER_TOLERANCE for name in figures.largest if name.startswith("kf_")}
    report = ", ".join(f"{name} {error:.1e}" for name, error in figures.largest.items())
    assert not figures.different, (figures.different, report)
    assert figures.compared == 30 * 5 + 1 + 29 * 2, report
    beyond = {name: error for name, error in figures.largest.items() if error > allowed.get(name, TOLERANCE)}
    assert not beyond, (beyond, report)
