"""Law 1, equivalence: T steps of the graph from the empty bank equal T steps of the eager reference with its
dictionaries."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from tests.conftest import Compile

from .scenario import Prompts, ReferenceRun, box, click, ellipse, relative, run_graph

FRAMES = 14
TOLERANCE = 1e-4

# Few slots, so that every one is overwritten several times in FRAMES frames.
SMALL = {
    1: ("memory.recent_slots=3", "memory.pointer_slots=5"),
    # With these weights the objects are absent in most frames.
    2: (
        "memory.conditioning_slots=2",
        "memory.recent_slots=3",
        "memory.pointer_slots=5",
        "programs.track.objects=2",
        "weights.seed=6",
    ),
    3: ("memory.conditioning_slots=3", "memory.recent_slots=2", "memory.pointer_slots=4", "programs.track.objects=3"),
}

MASK = ellipse(112)
CLIPS: dict[str, tuple[Prompts, ...]] = {
    "one click": ({0: click(33.6, 44.8)},),
    "three points, one negative": ({0: click(33.6, 44.8), 3: click(60.0, 50.0, 0)},),
    "box": ({0: box(20.0, 30.0, 70.0, 80.0)},),
    "mask": ({0: type(click(0, 0))(mask=MASK)},),
    "empty mask": ({0: type(click(0, 0))(mask=MASK * 0)},),
    "a correction click mid-clip": ({0: click(33.6, 44.8), 6: click(50.0, 60.0, 0, correction=True)},),
    "prompted first on frame 2": ({2: click(33.6, 44.8)},),
    "two objects": ({0: click(33.6, 44.8)}, {1: box(10.0, 10.0, 40.0, 90.0), 5: click(70.0, 30.0, correction=True)}),
    "more conditioning frames than slots": (
        {
            0: click(33.6, 44.8),
            2: click(40.0, 40.0),
            3: click(50.0, 20.0),
            5: click(60.0, 50.0, 0),
            9: click(20.0, 80.0),
        },
        {0: box(20.0, 30.0, 70.0, 80.0), 1: click(30.0, 30.0), 4: click(31.0, 34.0), 11: click(81.0, 34.0)},
    ),
    "three objects": (
        {0: click(33.6, 44.8), 4: click(40.0, 40.0, 0, correction=True)},
        {0: type(click(0, 0))(mask=MASK), 7: click(55.0, 55.0)},
        {3: box(20.0, 30.0, 70.0, 80.0)},
    ),
}


def objects_of(clip: str) -> int:
    return len(CLIPS[clip])


@pytest.mark.parametrize("target", ["onnx", "ort-cpu"])
@pytest.mark.parametrize("clip", CLIPS)
def test_every_step_equals_the_reference_past_the_overwriting_of_all_slots(
    compiled: Compile, clip: str, target: str
) -> None:
    check(compiled, CLIPS[clip], SMALL[objects_of(clip)], target)


@pytest.mark.parametrize("clip", ["one click", "a correction click mid-clip"])
def test_every_step_equals_the_reference_with_the_recipes_own_memory(compiled: Compile, clip: str) -> None:
    check(compiled, CLIPS[clip], (), "onnx", frames=20)


@pytest.mark.parametrize("num_frames", [0, 4])
def test_clip_length_decides_how_pointer_distances_are_scaled(compiled: Compile, num_frames: int) -> None:
    frames = num_frames or 6
    check(compiled, CLIPS["one click"], (), "onnx", frames=frames, num_frames=num_frames)


def check(
    compiled: Compile,
    prompts: Sequence[Prompts],
    overrides: tuple[str, ...],
    target: str,
    frames: int = FRAMES,
    num_frames: int | None = None,
) -> None:
    session = compiled(*overrides, target=target)
    reference = ReferenceRun.of(overrides)
    found = run_graph(session, prompts, frames, num_frames)
    for row, own in enumerate(prompts):
        for t, record in enumerate(reference.clip(own, frames, num_frames)):
            if record is None:
                assert (found[t]["next_bank.memory_frame"][row] == -1).all(), (
                    "an object without a prompt is not remembered"
                )
                continue
            output = record.output
            where = f"object {row}, frame {t}"
            pairs = {
                "low_res_masks": output.low_res_masks,
                "masks": output.masks,
                "ious": output.ious,
                "iou": output.iou,
                "object_score": output.object_score,
                "object_pointer": output.pointer,
            }
            for name, tensor in pairs.items():
                error = relative(found[t][name][row], tensor.numpy()[0])
                assert error <= TOLERANCE, f"{where}: {name} is off by {error:.1e}"
            assert found[t]["mask_choice"][row] == output.mask_choice[0], where
            slot = found[t]["next_bank.memory_frame"][row] == t
            assert slot.sum() == 1, where
            assert found[t]["next_bank.memory_conditioning"][row][slot] == (t in own), where
            error = relative(found[t]["next_bank.memory"][row][slot][0], record.memory[0].numpy())
            assert error <= TOLERANCE, f"{where}: memory is off by {error:.1e}"
            place = found[t]["next_bank.pointer_frame"][row] == t
            np.testing.assert_array_equal(found[t]["next_bank.pointer"][row][place][0], found[t]["object_pointer"][row])


def test_the_clips_hold_present_and_absent_objects_and_all_mask_choices() -> None:
    """The clips above would prove little if every object were present and every mask were chosen alike."""
    scores, choices = [], set()
    for clip, prompts in CLIPS.items():
        reference = ReferenceRun.of(SMALL[objects_of(clip)])
        for own in prompts:
            records = [record for record in reference.clip(own, FRAMES) if record is not None]
            scores += [float(record.output.object_score) for record in records]
            choices |= {int(record.output.mask_choice) for record in records}
    assert min(scores) <= 0 < max(scores)
    assert {-1, 0} <= choices
