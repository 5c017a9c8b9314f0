"""Verify a `track` program over a clip: every step starts from the reference's own bank and is held against the
reference's frame.

Starting each step from the reference keeps one pixel on the edge of the hard threshold (memory of a frame with points
is encoded from the thresholded mask) from blurring the comparison of every later frame. The memory of such a frame is
judged by its mask: the share of pixels on the same side of the threshold; the memory encoder itself is compared as a
component. The free-running law of equivalence is in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from samonnx.graph_session import Array, GraphSession
from samonnx.models.efficientsam3 import EfficientSAM3
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ReferenceTracker, encode_image
from samonnx.programs.program import Port
from samonnx.recipe import MemorySpec
from samonnx.seeded import seeded_frame
from samonnx.verify import Comparison, compare

__all__ = ["ClipStep", "bank_of_reference", "reference_clip", "verify_clip"]

MASK_SHARE = 1e-4
"""Share of pixels that may fall on the other side of the threshold."""


@dataclass(frozen=True)
class ClipStep:
    """One frame of the reference clip: the program's inputs (bank included) and what the reference made of them (one
    object)."""

    feeds: Mapping[str, Array]
    record: FrameRecord
    from_points: bool


def bank_of_reference(
    tracker: ReferenceTracker, ports: Mapping[str, Port], frame_index: int, memory: MemorySpec
) -> dict[str, Array]:
    """One object's bank as the graph would hold it before `frame_index`, filled from the reference's dictionaries,
    rows repeated for all objects of the program."""
    bank = {name: np.zeros(port.shape, port.dtype) for name, port in ports.items() if name.startswith("bank.")}
    bank["bank.memory_frame"][:] = -1
    bank["bank.pointer_frame"][:] = -1
    known = sorted({*tracker.conditioning, *tracker.others}, key=lambda t: abs(frame_index - t))
    kept = sorted(tracker.conditioning, key=lambda t: abs(frame_index - t))[: memory.conditioning_slots]
    for kind in ("memory", "pointer"):
        room = bank[f"bank.{kind}_frame"].shape[1]
        frames = (kept + [t for t in known if t not in kept])[:room]
        for slot, t in enumerate(frames):
            record = tracker.record(t)
            bank[f"bank.{kind}"][:, slot] = (record.memory if kind == "memory" else record.output.pointer).numpy()
            bank[f"bank.{kind}_frame"][:, slot] = t
            bank[f"bank.{kind}_conditioning"][:, slot] = t in tracker.conditioning
    return bank


def reference_clip(
    model: EfficientSAM3, ports: Sequence[Port], memory: MemorySpec, prompts: Mapping[int, FramePrompt], frames: int
) -> list[ClipStep]:
    """Run the eager reference over `frames` synthetic frames; the inputs of each step, as the graph takes them."""
    by_name = {port.name: port for port in ports}
    size = model.tracker.sizes.image_size
    tracker = ReferenceTracker(model, memory.conditioning_slots, memory.recent_slots, frames, memory.pointer_slots)
    steps = []
    with torch.inference_mode():
        for t in range(frames):
            prompt = prompts.get(t, FramePrompt())
            image = (seeded_frame(t, size)[None] - np.float32(0.5)) / np.float32(0.5)
            feeds: dict[str, Array] = {name: np.zeros(port.shape, port.dtype) for name, port in by_name.items()}
            feeds["image"] = image
            feeds["frame_index"], feeds["num_frames"] = np.array(t, np.int32), np.array(frames, np.int32)
            feeds["point_labels"][:] = -1
            count = len(prompt.labels)
            feeds["point_coords"][:, :count] = prompt.coords.numpy()
            feeds["point_labels"][:, :count] = prompt.labels.numpy()
            feeds["attend_memory"][:] = True
            feeds |= bank_of_reference(tracker, by_name, t, memory)
            record = tracker.step(t, encode_image(model, torch.from_numpy(image)), prompt)
            steps.append(ClipStep(feeds, record, count > 0))
    return steps


def verify_clip(
    graphs: Mapping[str, GraphSession], steps: Sequence[ClipStep], tolerance: float
) -> tuple[Comparison, ...]:
    """`graphs`: "track" and perhaps "track@first", which then runs the first step too. One comparison an output, the
    worst step's."""
    worst: dict[str, Comparison] = {}
    for index, step in enumerate(steps):
        for name, graph in graphs.items():
            if name != "track" and index > 0:
                continue
            for comparison in _compare_step(graph.run(step.feeds), step, tolerance):
                key = f"{name}: {comparison.what}"
                if key not in worst or comparison.largest_error > worst[key].largest_error:
                    worst[key] = Comparison(key, comparison.largest_error, comparison.tolerance)
    return tuple(worst.values())


def _compare_step(found: Mapping[str, Array], step: ClipStep, tolerance: float) -> list[Comparison]:
    output, t = step.record.output, int(step.feeds["frame_index"])
    expected = {
        "low_res_masks": output.low_res_masks,
        "masks": output.masks,
        "ious": output.ious,
        "iou": output.iou,
        "mask_choice": output.mask_choice,
        "object_score": output.object_score,
        "object_pointer": output.pointer,
    }
    rows = len(found["mask_choice"])
    comparisons = [
        compare(name, found[name], np.repeat(tensor.numpy(), rows, axis=0), tolerance)
        for name, tensor in expected.items()
    ]
    slot = found["next_bank.memory_frame"] == t
    pointer_slot = found["next_bank.pointer_frame"] == t
    comparisons.append(compare("frames written", slot.sum(1), np.ones(rows, dtype=slot.sum(1).dtype), 0.0))
    pointers = found["next_bank.pointer"][pointer_slot]
    comparisons.append(
        compare("next_bank.pointer", pointers, np.repeat(output.pointer.numpy(), rows, axis=0), tolerance)
    )
    if step.from_points:
        share = float(np.mean((found["masks"] > 0) != (output.masks.numpy() > 0)))
        comparisons.append(Comparison("thresholded masks, share of pixels that differ", share, MASK_SHARE))
    else:
        memory = np.repeat(step.record.memory.numpy(), rows, axis=0)
        comparisons.append(compare("next_bank.memory", found["next_bank.memory"][slot], memory, tolerance))
    return comparisons
