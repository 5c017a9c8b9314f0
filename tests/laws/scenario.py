"""Clips with prompts, run by the eager reference (one tracker an object) and by a compiled graph (all objects
together)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from samonnx.build_model import build_model
from samonnx.eager_tracker import eager_tracker
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ImageFeatures, ReferenceTracker, encode_image
from samonnx.models.tracker import RGB, TrackedModel
from samonnx.recipe import Recipe, load_recipe
from samonnx.runtime.manifest import Manifest, ProgramInfo
from samonnx.verify_clip import normalised_frame
from tests.compiled_artifact import TINY

Array = np.ndarray[Any, np.dtype[Any]]
HALF: RGB = (0.5, 0.5, 0.5)


class Graph(Protocol):
    """A session on a program, or what stands for one."""

    manifest: Manifest
    program: ProgramInfo

    def run(self, inputs: Mapping[str, Array], /) -> Mapping[str, Array]: ...


@dataclass(frozen=True)
class Given:
    """An object's prompt on a frame. `correction`: the frame's own earlier logits go with it. `attends`: so does
    memory, as with SAM 2's corrections."""

    points: tuple[tuple[float, float, int], ...] = ()
    mask: Array | None = None
    correction: bool = False
    attends: bool = False


Prompts = Mapping[int, Given]

Show = Callable[[int], int]
"""Frame of the clip → frame of the synthetic video that it shows."""


def as_numbered(t: int) -> int:
    return t


def click(x: float, y: float, label: int = 1, correction: bool = False) -> Given:
    return Given(points=((x, y, label),), correction=correction)


def box(x0: float, y0: float, x1: float, y1: float) -> Given:
    return Given(points=((x0, y0, 2), (x1, y1, 3)))


def ellipse(size: int, cx: float = 0.4, cy: float = 0.5, rx: float = 0.2, ry: float = 0.15) -> Array:
    y, x = (np.mgrid[0:size, 0:size] + 0.5) / size
    inside: Array = (((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2) < 1
    return inside.astype(np.float32)


def image(index: int, size: int, mean: RGB = HALF, std: RGB = HALF) -> Array:
    """Normalised synthetic frame, f32 [1, 3, size, size]."""
    return normalised_frame(index, size, mean, std)


@dataclass(frozen=True)
class Step:
    """What the reference made of a frame, and what of its memory it attended: frames with their row of the temporal
    table, frames with their distance as `Tracker.pointer_position` takes it, and `pointer_window`."""

    record: FrameRecord
    memories: Mapping[int, int]
    pointers: Mapping[int, int]
    window: int


@dataclass
class ReferenceRun:
    """The eager reference over a clip; features of each frame are computed once."""

    recipe: Recipe
    model: TrackedModel
    features: dict[int, ImageFeatures] = field(default_factory=dict)

    @classmethod
    def of(cls, overrides: Sequence[str] = (), path: Path = TINY) -> ReferenceRun:
        recipe = load_recipe(path, overrides)
        return cls(recipe, cast(TrackedModel, build_model(recipe).module))

    @property
    def size(self) -> int:
        return self.model.tracker.sizes.image_size

    def encoded(self, index: int) -> ImageFeatures:
        if index not in self.features:
            shown = image(index, self.size, self.model.image_mean, self.model.image_std)
            with torch.inference_mode():
                self.features[index] = encode_image(self.model, torch.from_numpy(shown))
        return self.features[index]

    def tracker(self, num_frames: int) -> ReferenceTracker:
        return eager_tracker(self.model, self.recipe.memory, num_frames)

    def clip(self, prompts: Prompts, frames: int, num_frames: int | None = None) -> list[FrameRecord | None]:
        """One object's records; None until its first prompt."""
        return [None if step is None else step.record for step in self.steps(prompts, frames, num_frames)]

    def steps(
        self, prompts: Prompts, frames: int, num_frames: int | None = None, show: Show = as_numbered
    ) -> list[Step | None]:
        """Likewise. A correction tracks the frame first and then corrects it."""
        tracker = self.tracker(frames if num_frames is None else num_frames)
        steps: list[Step | None] = []
        with torch.inference_mode():
            for t in range(frames):
                given, features = prompts.get(t), self.encoded(show(t))
                if given is None and not tracker.conditioning:
                    steps.append(None)
                    continue
                if given is None:
                    steps.append(self._step(tracker, t, features, None, attends=True))
                    continue
                logits = None
                if given.correction:
                    logits = tracker.step(t, features).output.low_res_masks[0, 0].clamp(-32, 32)
                prompt = FramePrompt(
                    torch.tensor([p[:2] for p in given.points], dtype=torch.float32).reshape(-1, 2),
                    torch.tensor([p[2] for p in given.points], dtype=torch.int32),
                    None if given.mask is None else torch.from_numpy(given.mask),
                    logits,
                )
                steps.append(self._step(tracker, t, features, prompt, given.attends))
        return steps

    @staticmethod
    def _step(
        tracker: ReferenceTracker, t: int, features: ImageFeatures, prompt: FramePrompt | None, attends: bool
    ) -> Step:
        chosen, recent = tracker.memory_frames(t)
        last = tracker.tracker.sizes.memory_frames - 1
        memories = dict.fromkeys(chosen, last) | dict(zip(recent, tracker.ages(t, recent), strict=True))
        frames = tracker.pointer_frames(t)
        pointers = dict(zip(frames, tracker.pointer_distances(t, frames), strict=True))
        return Step(tracker.step(t, features, prompt, attends), memories, pointers, tracker.pointer_window)


def empty_bank(session: Graph) -> dict[str, Array]:
    return {p.input: np.full(p.shape, p.empty, p.dtype) for p in session.manifest.bank}


def idle_feeds(session: Graph, index: int, num_frames: int, show: Show = as_numbered) -> dict[str, Array]:
    """All inputs but the bank, without any prompt."""
    feeds = {
        port.name: np.zeros(port.sides(), port.dtype)
        for port in session.program.inputs
        if not port.name.startswith("bank.")
    }
    info = session.manifest.seeing()
    feeds["image"] = image(show(index), info.size, info.mean, info.std)
    feeds["frame_index"], feeds["num_frames"] = np.array(index, np.int32), np.array(num_frames, np.int32)
    feeds["point_labels"][:] = -1
    feeds["attend_memory"][:] = True
    return feeds


def next_bank(outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix("next_"): value for name, value in outputs.items() if name.startswith("next_bank.")}


def give(feeds: dict[str, Array], row: int, given: Given, logits: Array | None) -> None:
    """Put an object's prompt into its row."""
    feeds["attend_memory"][row] = given.attends
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
    session: Graph,
    prompts: Sequence[Prompts],
    frames: int,
    num_frames: int | None = None,
    bank: Mapping[str, Array] | None = None,
    show: Show = as_numbered,
) -> list[dict[str, Array]]:
    """Step the graph through a clip, all objects together, feeding the next bank back."""
    state = dict(empty_bank(session) if bank is None else bank)
    length = frames if num_frames is None else num_frames
    results = []
    for t in range(frames):
        feeds = idle_feeds(session, t, length, show) | state
        corrections = {row: p[t] for row, p in enumerate(prompts) if t in p and p[t].correction}
        if corrections:
            # The frame is tracked first; objects that are not corrected are prompted in this first call already.
            first = {name: value.copy() for name, value in feeds.items()}
            for row, p in enumerate(prompts):
                if t in p and row not in corrections:
                    give(first, row, p[t], None)
            tracked = dict(session.run(first))
            again = idle_feeds(session, t, length, show) | state
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


def relative(found: Array, expected: Array, unit: float = 1e-12) -> float:
    """Largest difference over the largest magnitude of `expected`, or over `unit` if that is more."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    scale = max(float(np.abs(expected).max(initial=0.0)), unit)
    return float(np.abs(found.astype(np.float64) - expected).max(initial=0.0)) / scale
