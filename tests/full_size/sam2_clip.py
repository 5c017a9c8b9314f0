"""Steps the emitted `track` graphs of SAM 2.1 or SAMURAI through a clip of the original project's tensors, free-running
from the images on, and reads off every figure.

Hiera magnifies no rounding, so nothing is cut or given, but for the memory of the prompted frame: it is encoded from a
thresholded mask, where a pixel at the threshold moves a patch of it. The few pixels within rounding of 0 are put on the
side that the tensors show; then it is compared by its 99.9 % quantile, as the notes beside the tensors advise
(`golden/sam2.1/NOTES.md`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from samonnx.build_model import build_model
from samonnx.models.reference_tracker import encode_image
from samonnx.models.sam2 import IMAGE_MEAN, IMAGE_STD
from samonnx.models.tracker import TrackedModel
from samonnx.recipe import load_recipe
from samonnx.runtime.manifest import Manifest
from samonnx.seeded import seeded_frame

from .reference_clip import ProbedGraph, settle_threshold

Array = np.ndarray[Any, np.dtype[Any]]

GOLDEN = Path(__file__).parents[2] / "golden" / "sam2.1"
PROBES = {
    "mask_logits": "decode_masks/mask_logits",
    "conditioned": "attend_memory/conditioned",
    "memory_position": "read_bank/memory_position",
    "memory_valid": "read_bank/memory_valid",
    "pointer_position": "read_bank/pointer_position",
    "pointer_valid": "read_bank/pointer_valid",
}
NEAR_ZERO = 2e-5
"""Share of the largest logit that rounding moves a pixel by, at most: masks agree within 4e-6."""
TINY = 1e-6
"""Entries of the filter's state below this share of the largest are zero but for rounding."""


@dataclass
class Sam2Figures:
    """The largest error of each kind of tensor, relative to the reference tensor's largest magnitude (positions:
    absolute); what should be equal and is not, as frame, name, found, expected; how often each kind was compared."""

    largest: dict[str, float] = field(default_factory=dict)
    different: list[tuple[int, str, object, object]] = field(default_factory=list)
    compared: dict[str, int] = field(default_factory=dict)
    pixels_turned: int = 0
    """Of the prompted frame's mask, to the side of 0 that the reference's memory shows."""

    def note(self, name: str, found: Array, expected: Array, quantile: float = 1.0, absolute: bool = False) -> None:
        assert found.shape == expected.shape, (name, found.shape, expected.shape)
        assert found.dtype == np.float32, (name, found.dtype)
        error = np.quantile(np.abs(found.astype(np.float64) - expected), quantile)
        error /= 1.0 if absolute else np.abs(expected).max()
        self.largest[name] = max(self.largest.get(name, 0.0), float(error))
        self._count(name)

    def note_entries(self, name: str, found: Array, expected: Array) -> None:
        """Relative to each entry that is not tiny."""
        large = np.abs(expected) > TINY * np.abs(expected).max()
        error = (np.abs(found - expected)[large] / np.abs(expected)[large]).max()
        self.largest[name] = max(self.largest.get(name, 0.0), float(error))
        self._count(name)

    def same(self, t: int, name: str, found: object, expected: object) -> None:
        if found != expected:
            self.different.append((t, name, found, expected))
        self._count(name)

    def _count(self, name: str) -> None:
        self.compared[name] = self.compared.get(name, 0) + 1


def clip_figures(folder: Path, clip: str, target: str) -> Sam2Figures:
    """Run the clip in ONNX Runtime, each frame by the graph that the runtime would take, and compare every tensor."""
    figures = Sam2Figures()
    with np.load(GOLDEN / f"{clip}.npz") as archive:
        reference: dict[str, Array] = dict(archive)
    for t, found in _steps(folder, reference, target, figures):
        frame = f"frame{t:02d}/"
        of_frame = {name.removeprefix(frame): array for name, array in reference.items() if name.startswith(frame)}
        _compare_outputs(figures, t, found, of_frame)
        _compare_memory(figures, t, found, of_frame)
        if "kf_branch" in of_frame:
            _compare_filter(figures, t, found, of_frame)
    return figures


def _settled(folder: Path, reference: Mapping[str, Array], found: dict[str, Array], figures: Sam2Figures) -> None:
    """Puts the memory of frame 0 that the reference shows into `found`: of its mask, cut at 0, a pixel may lie within
    rounding of 0, and whichever side it falls on changes 15 x 15 cells (`settle_threshold`)."""
    name = next(name for name in reference if name.startswith("frame00/maskmem_features_s"))
    model = cast(TrackedModel, build_model(load_recipe(folder / "recipe.json")).module)
    with torch.inference_mode():
        features = encode_image(model, torch.from_numpy(found["image"])).features.numpy()
    memory, figures.pixels_turned = settle_threshold(
        model,
        features,
        found["masks"],
        found["object_score"],
        reference[name],
        int(name.rpartition("_s")[2]),
        NEAR_ZERO,
    )
    if figures.pixels_turned:
        memories = found["next_bank.memory"].copy()
        memories[found["next_bank.memory_frame"] == 0] = memory
        found["next_bank.memory"] = memories


def _steps(
    folder: Path, reference: Mapping[str, Array], target: str, figures: Sam2Figures
) -> Iterator[tuple[int, Mapping[str, Array]]]:
    """Inputs, outputs and probed values of each frame; "shown": a frame at which the candidates count."""
    manifest = Manifest.load(folder)
    frames, size = int(reference["meta/num_frames"]), int(reference["meta/image_size"])
    mean, std = (np.array(of_rgb, np.float32)[:, None, None] for of_rgb in (IMAGE_MEAN, IMAGE_STD))
    bank: dict[str, Array] = {pair.input: np.full(pair.shape, pair.empty, pair.dtype) for pair in manifest.bank}
    opened: tuple[str, ProbedGraph] | None = None
    for t in range(frames):
        program = manifest.program("track@first") if t == 0 else manifest.for_filled("track", t)
        if opened is None or opened[0] != program.name:
            opened = program.name, ProbedGraph(folder, program.files[target], PROBES)
        feeds = {p.name: np.zeros(p.sides(), p.dtype) for p in manifest.program("track").inputs} | bank
        feeds["image"] = ((seeded_frame(t, size, int(reference["meta/clip_seed"])) - mean) / std)[None]
        feeds["frame_index"], feeds["num_frames"] = np.array(t, np.int32), np.array(frames, np.int32)
        feeds["point_labels"][:] = -1
        feeds["attend_memory"][:] = True
        if t == 0:
            count = len(reference["meta/point_labels"])
            feeds["point_coords"][0, :count] = reference["meta/point_coords"]
            feeds["point_labels"][0, :count] = reference["meta/point_labels"]
        found = dict(opened[1].run(feeds))
        if t == 0:
            found |= {"image": feeds["image"]}
            _settled(folder, reference, found, figures)
        bank = {pair.input: found[pair.output] for pair in manifest.bank}
        yield t, feeds | found


def _sampled(array: Array, stride: int) -> Array:
    return array[..., ::stride, ::stride]


def _compare_outputs(figures: Sam2Figures, t: int, found: Mapping[str, Array], reference: Mapping[str, Array]) -> None:
    for stride in (4, 5):
        figures.note("low_res_masks", _sampled(found["low_res_masks"], stride), reference[f"low_res_masks_s{stride}"])
    several = reference["ious"].shape[1] == 3
    figures.note("ious", found["ious" if several else "iou"], reference["ious"])
    if several:
        figures.same(t, "candidate", bool(found["mask_choice"][0] >= 0), True)
        figures.note("low_res_multimasks", _sampled(found["mask_logits"][:, 1:], 8), reference["low_res_multimasks_s8"])
        if "best_iou_index" not in reference:
            figures.same(t, "mask choice", int(found["mask_choice"][0]), int(reference["ious"].argmax()))
    figures.note("obj_ptr", found["object_pointer"], reference["obj_ptr"])
    figures.note("object_score_logits", found["object_score"], reference["object_score_logits"])
    written = found["next_bank.memory"][found["next_bank.memory_frame"] == t]
    for name in (name for name in reference if name.startswith("maskmem_features_s")):
        memory = _sampled(written, int(name.rpartition("_s")[2]))
        if t:
            figures.note("maskmem_features", memory, reference[name])
        else:
            figures.note("maskmem_features of the prompt", memory, reference[name], quantile=0.999)


def _compare_memory(figures: Sam2Figures, t: int, found: Mapping[str, Array], reference: Mapping[str, Array]) -> None:
    """What memory attention is given, in the original's order: conditioning frames, others oldest first; pointers of
    conditioning frames, then the nearest first."""
    if "memory_valid" not in found or found["memory_valid"] is None:
        figures.same(t, "memory frames", [], _listed(reference["memory_frames"]))
        return
    valid, frames = found["memory_valid"][0], found["bank.memory_frame"][0]
    conditioning = found["bank.memory_conditioning"][0]
    slots = [i for i in np.lexsort((frames, ~conditioning)) if i < len(valid) and valid[i]]
    figures.same(t, "memory frames", [int(frames[i]) for i in slots], _listed(reference["memory_frames"]))
    places = found["bank.pointer_frame"][0]
    parts = found["pointer_position"].shape[1] // len(places)
    pointer_valid = found["pointer_valid"][0].reshape(-1, parts)[:, 0]
    order = [i for i in np.lexsort((-places, ~found["bank.pointer_conditioning"][0])) if pointer_valid[i]]
    figures.same(t, "pointer frames", [int(places[i]) for i in order], _listed(reference["pointer_frames"]))
    if "memory_pos_s1021" in reference:
        cells = found["memory_position"][0][slots]
        position = cells.reshape(-1, cells.shape[-1])[::1021]
        figures.note("memory_pos", position, reference["memory_pos_s1021"], absolute=True)
        position = found["pointer_position"][0].reshape(len(places), parts, -1)[order, 0]
        figures.note("pointer_pos", position, reference["pointer_pos"], absolute=True)
    if "memory_conditioned_features_s4" in reference:
        figures.note("conditioned", _sampled(found["conditioned"], 4), reference["memory_conditioned_features_s4"])


def _compare_filter(figures: Sam2Figures, t: int, found: Mapping[str, Array], reference: Mapping[str, Array]) -> None:
    figures.same(t, "phase", int(found["phase"][0]), int(reference["kf_branch"]))
    figures.same(t, "stable_frames", int(found["next_bank.stable_frames"][0]), int(reference["stable_frames"]))
    score = float(reference["kf_score"].item())
    figures.same(t, "motion score counts", bool(found["phase"][0] == 3), not np.isnan(score))
    if not np.isnan(score):
        figures.note("kf_score", found["motion_score"], np.array([score]), absolute=True)
    if int(reference["kf_branch"]) == 0:
        figures.same(t, "filter untouched", bool(found["next_bank.kalman_covariance"].any()), False)
        return
    figures.same(t, "mask choice", int(found["mask_choice"][0]), int(reference["best_iou_index"]))
    figures.note("best_iou_score", found["iou"][0], reference["best_iou_score"].reshape(1))
    for name in ("mean", "covariance"):
        state, expected = found[f"next_bank.kalman_{name}"][0], reference[f"kf_{name}"]
        figures.note(f"kf_{name}", state, expected)
        figures.note_entries(f"kf_{name}, each entry", state, expected)


def _listed(frames: Array) -> list[int]:
    return [int(t) for t in frames if t >= 0]
