"""Law 1, equivalence, for each memory policy: T steps of the graph on its own bank equal T steps of the eager reference
with its dictionaries, and every step attends the same frames."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pytest

from samonnx.models.motion_selection import STABLE, START, UNTOUCHED, WARM_UP

from .conftest import OpenPolicy
from .equal_step import assert_attends_as, assert_equals
from .policies import OBJECTS, POLICIES, reference_of
from .scenario import Given, Prompts, Show, Step, as_numbered, box, ellipse, empty_bank, next_bank, run_graph

# Three objects a clip, so that one call of the graph serves three cases. Coordinates in shares of the image.
FRAMES = {
    "prompts of all kinds": 14,
    "late prompts and corrections": 24,
    "many conditioning frames": 14,
    "accepted from frame 1 on": 7,  # which SAMURAI nevertheless attends on frame 2 alone
}


def clips(size: int) -> dict[str, Sequence[Prompts]]:
    def at(x: float, y: float, label: int = 1, correction: bool = False, attends: bool = False) -> Given:
        return Given(((x * size, y * size, label),), correction=correction, attends=attends)

    whole, corner = box(0.2 * size, 0.3 * size, 0.7 * size, 0.8 * size), box(5.0, 5.0, 0.3 * size, 0.4 * size)
    return {
        "prompts of all kinds": ({0: whole}, {0: Given(mask=ellipse(size))}, {0: Given(mask=0 * ellipse(size))}),
        "late prompts and corrections": (
            {17: at(0.3, 0.4)},
            {0: at(0.3, 0.4), 6: at(0.5, 0.6, 0, correction=True), 9: at(0.4, 0.4, correction=True, attends=True)},
            {3: corner, 4: at(0.6, 0.5), 15: Given(mask=ellipse(size, 0.6))},
        ),
        "many conditioning frames": (
            {t: at(0.3 + 0.05 * t, 0.4, int(t != 5)) for t in (0, 2, 3, 5, 9)},
            {0: whole, 1: at(0.3, 0.3), 4: at(0.3, 0.35), 11: at(0.8, 0.3)},
            {0: Given(points=(*at(0.3, 0.4).points, *at(0.6, 0.5, 0).points, *at(0.2, 0.2).points)), 8: corner},
        ),
        "accepted from frame 1 on": ({0: at(0.3, 0.4)},),
        "one object": ({0: at(0.3, 0.4)},),
    }


SHORT: dict[str, tuple[int, int]] = {"shorter than the bank": (3, 3), "of unknown length": (8, 0)}
"""Frames, and `num_frames` as the graph is told."""


def show_of(clip: str) -> Show:
    """On the first frames of the synthetic video SAMURAI rejects."""
    return (lambda t: t + 4) if clip == "accepted from frame 1 on" else as_numbered


def prompts_of(policy: str, clip: str) -> Sequence[Prompts]:
    return clips(reference_of(policy).size)[clip]


@cache
def steps_of(policy: str, clip: str, row: int, frames: int, num_frames: int) -> list[Step | None]:
    return reference_of(policy).steps(prompts_of(policy, clip)[row], frames, num_frames, show_of(clip))


def check(graph_of: OpenPolicy, policy: str, clip: str, frames: int, num_frames: int) -> None:
    graph, tracker = graph_of(policy), reference_of(policy).model.tracker
    prompts = prompts_of(policy, clip)
    found = run_graph(graph, prompts, frames, num_frames, show=show_of(clip))
    for row in range(OBJECTS):
        steps = steps_of(policy, clip, row, frames, num_frames) if row < len(prompts) else [None] * frames
        for t, step in enumerate(steps):
            before = next_bank(found[t - 1]) if t else empty_bank(graph)
            if step is None:
                after = next_bank(found[t])
                assert all((after[name][row] == empty[row]).all() for name, empty in empty_bank(graph).items()), (
                    "an object without a prompt is not remembered"
                )
                continue
            assert_attends_as(found[t], before, row, t, step, tracker)
            assert_equals(found[t], row, t, step.record, t in prompts[row])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("clip", FRAMES)
def test_every_step_equals_the_reference_past_the_overwriting_of_all_slots(
    graph_of: OpenPolicy, policy: str, clip: str
) -> None:
    check(graph_of, policy, clip, FRAMES[clip], FRAMES[clip])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("length", SHORT)
def test_every_step_of_a_clip_of_that_length_equals_the_reference(
    graph_of: OpenPolicy, policy: str, length: str
) -> None:
    check(graph_of, policy, "one object", *SHORT[length])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_clips_hold_present_and_absent_objects_and_frames_of_every_kind(policy: str) -> None:
    """The clips above would prove little if every frame were decided alike."""
    every = [
        step.record
        for clip, frames in FRAMES.items()
        for row in range(len(prompts_of(policy, clip)))
        for step in steps_of(policy, clip, row, frames, frames)
        if step is not None
    ]
    scores = [float(record.output.object_score) for record in every]
    assert min(scores) < 0 < max(scores)
    assert {-1, 0} <= {int(record.output.mask_choice) for record in every}
    accepted = {record.accepted for record in every}
    assert accepted == ({False} if policy == "recent" else {True, False})
    phases = {int(record.motion.phase) for record in every if record.motion is not None}
    assert phases == ({UNTOUCHED, START, WARM_UP, STABLE} if policy == "samurai" else set())
