"""Clips with prompts, run by the eager reference (one tracker an object) and by a compiled graph (all objects
together)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch

from samonnx.build_model import build_model
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures, ReferenceTracker, encode_image
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.session import Session
from samonnx.seeded import seeded_frame
from tests.compiled_artifact import TINY

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Given:
    """An object's prompt on a frame. `correction`: the frame's own earlier logits go with it, and no memory is
    attended."""

    points: tuple[tuple[float, float, int], ...] = ()
    mask: Array | None = None
    correction: bool = False


Prompts = Mapping[int, Given]


def click(x: float, y: float, label: int = 1, correction: bool = False) -> Given:
    return Given(points=((x, y, label),), correction=correction)


def box(x0: float, y0: float, x1: float, y1: float) -> Given:
    return Given(points=((x0, y0, 2), (x1, y1, 3)))


def ellipse(size: int, cx: float = 0.4, cy: float = 0.5, rx: float = 0.2, ry: float = 0.15) -> Array:
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    inside: Array = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) < 1
    return inside.astype(np.float32)


def image(index: int, size: int) -> Array:
    """Normalised synthetic frame, f32 [1, 3, size, size]."""
    return cast(Array, (seeded_frame(index, size)[None] - np.float32(0.5)) / np.float32(0.5))


@dataclass
class ReferenceRun:
    """The eager reference over a clip; features of each frame are computed once."""

    recipe: Recipe
    model: EfficientSAM3
    features: dict[int, ImageFeatures] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Sequence[str] = ()) -> ReferenceRun:
        recipe = load_recipe(TINY, overrides)
        return cls(recipe, cast(EfficientSAM3, build_model(recipe).module))

    @property
    def size(self) -> int:
        return self.model.tracker.sizes.image_size

    def encoded(self, index: int) -> ImageFeatures:
        if index not in self.features:
            with torch.inference_mode():
                self.features[index] = encode_image(self.model, torch.from_numpy(image(index, self.size)))
        return self.features[index]

    def tracker(self, num_frames: int) -> ReferenceTracker:
        memory = self.recipe.memory
        return ReferenceTracker(
            self.model, memory.conditioning_slots, memory.recent_slots, num_frames, memory.pointer_slots
        )

    def clip(self, prompts: Prompts, frames: int, num_frames: int | None = None) -> list[FrameRecord | None]:
        """One object's records; None until its first prompt. A correction tracks the frame first and then corrects
        it."""
        tracker = self.tracker(frames if num_frames is None else num_frames)
        records: list[FrameRecord | None] = []
        with torch.inference_mode():
            for t in range(frames):
                given = prompts.get(t)
                if given is None and not tracker.conditioning:
                    records.append(None)
                    continue
                if given is None:
                    records.append(tracker.step(t, self.encoded(t)))
                    continue
                logits = None
                if given.correction:
                    logits = tracker.step(t, self.encoded(t)).output.low_res_masks[0, 0].clamp(-32, 32)
                prompt = FramePrompt(
                    torch.tensor([p[:2] for p in given.points], dtype=torch.float32).reshape(-1, 2),
                    torch.tensor([p[2] for p in given.points], dtype=torch.int32),
                    None if given.mask is None else torch.from_numpy(given.mask),
                    logits,
                )
                records.append(tracker.step(t, self.encoded(t), prompt, attend_memory=False))
        return records


def empty_bank(session: Session) -> dict[str, Array]:
    return {p.input: np.full(p.shape, p.empty, p.dtype) for p in session.manifest.bank}


def idle_feeds(session: Session, index: int, num_frames: int) -> dict[str, Array]:
    """All inputs but the bank, without any prompt."""
    feeds = {
        port.name: np.zeros(port.shape, port.dtype)
        for port in session.program.inputs
        if not port.name.startswith("bank.")
    }
    feeds["image"] = image(index, feeds["image"].shape[-1])
    feeds["frame_index"], feeds["num_frames"] = np.array(index, np.int32), np.array(num_frames, np.int32)
    feeds["point_labels"][:] = -1
    feeds["attend_memory"][:] = True
    return feeds


def next_bank(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix("next_"): value for name, value in outputs.items() if name.startswith("next_bank.")}


def give(feeds: dict[str, Array], row: int, given: Given, logits: Array | None) -> None:
    """Put an object's prompt into its row."""
    feeds["attend_memory"][row] = False
    for place, (x, y, label) in enumerate(given.points):
        feeds["point_coords"][row, place] = (x, y)
        feeds["point_labels"][row, place] = label
    if given.mask is not None:
        feeds["mask_prompt"][row, 0] = given.mask
        feeds["mask_prompt_valid"][row] = True
    if logits is not None:
        feeds["prev_logits"][row, 0] = logits
        feeds["prev_logits_valid"][row] = True


def run_graph(
    session: Session,
    prompts: Sequence[Prompts],
    frames: int,
    num_frames: int | None = None,
    bank: Mapping[str, Array] | None = None,
) -> list[dict[str, Array]]:
    """Step the graph through a clip, all objects together, feeding the next bank back."""
    state = dict(empty_bank(session) if bank is None else bank)
    length = frames if num_frames is None else num_frames
    results = []
    for t in range(frames):
        feeds = idle_feeds(session, t, length) | state
        corrections = {row: p[t] for row, p in enumerate(prompts) if t in p and p[t].correction}
        if corrections:
            # The frame is tracked first; objects that are not corrected are prompted in this first call already.
            first = {name: value.copy() for name, value in feeds.items()}
            for row, p in enumerate(prompts):
                if t in p and row not in corrections:
                    give(first, row, p[t], None)
            tracked = dict(session.run(first))
            again = idle_feeds(session, t, length) | state
            for row, given in corrections.items():
                give(again, row, given, np.clip(tracked["low_res_masks"][row, 0], -32, 32))
            corrected = session.run(again)
            outputs = {name: value.copy() for name, value in tracked.items()}
            for row in corrections:
                for name in outputs:
                    outputs[name][row] = corrected[name][row]
        else:
            for row, p in enumerate(prompts):
                if t in p:
                    give(feeds, row, p[t], None)
            outputs = dict(session.run(feeds))
        state = next_bank(outputs)
        results.append(outputs)
    return results


def relative(found: Array, expected: Array) -> float:
    """Largest difference over the largest magnitude of `expected`."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    scale = max(float(np.abs(expected).max(initial=0.0)), 1e-12)
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) / scale
