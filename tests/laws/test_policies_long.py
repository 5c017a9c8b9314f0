"""Law 1 over a clip of 200 frames: for each memory policy, graph and reference make the same decisions at every frame,
and their difference does not grow."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from samonnx.models.motion_selection import STABLE, START, UNTOUCHED, WARM_UP
from samonnx.models.reference_tracker import FrameRecord

from .conftest import OpenPolicy
from .equal_step import TOLERANCE, assert_attends_as, assert_equals, errors_of
from .policies import OBJECTS, POLICIES, reference_of
from .scenario import Array, Given, Prompts, Step, empty_bank, next_bank, run_graph

FRAMES, BLOCK = 200, 20
STRIDE = 4
"""The clip shows every fourth frame of the synthetic video, 20 of them again and again: the object moves out of the
picture."""

SCORE_MARGIN, IOU_MARGIN = 2e-4, 2e-6
"""Of the reference's decisions, four times and more what rounding has been seen to move them (5e-5, with the magnified
score head, and 4e-7): what is nearer to its threshold is decided by the CPU."""


def shown(t: int) -> int:
    return STRIDE * (t % BLOCK)


def prompts_of(policy: str) -> Prompts:
    """A click, a negative one, a box, and two clicks: each conditioning frame pushes the one before the last out."""
    size = reference_of(policy).size
    given = {0: ((0.3, 0.4, 1),), 47: ((0.6, 0.5, 0),), 90: ((0.2, 0.3, 2), (0.7, 0.8, 3))}
    given[140] = ((0.5, 0.5, 1), (0.2, 0.2, 0))
    return {
        t: Given(points=tuple((x * size, y * size, label) for x, y, label in points)) for t, points in given.items()
    }


@cache
def steps_of(policy: str) -> list[Step]:
    """The reference's, of every frame."""
    steps = reference_of(policy).steps(prompts_of(policy), FRAMES, show=shown)
    return [step for step in steps if step is not None]


def records_of(policy: str) -> list[FrameRecord]:
    return [step.record for step in steps_of(policy)]


def scores_of(policy: str) -> Array:
    return np.array([float(record.output.object_score) for record in records_of(policy)])


def phases_of(policy: str) -> list[int]:
    return [int(record.motion.phase) for record in records_of(policy) if record.motion is not None]


@pytest.mark.parametrize("policy", list(reversed(POLICIES)))
def test_two_hundred_frames_are_decided_alike_and_do_not_drift(graph_of: OpenPolicy, policy: str) -> None:
    graph, prompts = graph_of(policy), prompts_of(policy)
    steps = steps_of(policy)
    found = run_graph(graph, [prompts, *[{}] * (OBJECTS - 1)], FRAMES, show=shown)
    errors: list[float] = []
    for t, step in enumerate(steps):
        before: Mapping[str, Array] = next_bank(found[t - 1]) if t else empty_bank(graph)
        assert_attends_as(found[t], before, 0, t, step, reference_of(policy).model.tracker)
        assert_equals(found[t], 0, t, step.record, t in prompts)
        errors.append(max(errors_of(found[t], 0, t, step.record).values()))
    blocks = [max(errors[start : start + BLOCK]) for start in range(0, FRAMES, BLOCK)]
    first, last = max(blocks[:5]), max(blocks[5:])
    assert last <= max(2 * first, TOLERANCE / 10), blocks


# What the clip holds: else the test above would prove little, or depend on the CPU.


@pytest.mark.parametrize("policy", POLICIES)
def test_the_object_of_the_long_clip_leaves_and_comes_back(policy: str) -> None:
    present = scores_of(policy) > 0
    assert 20 <= present.sum() < FRAMES
    assert (present[1:] & ~present[:-1]).sum() >= 5


def test_its_masks_are_chosen_among_candidates_in_several_ways() -> None:
    for policy in ("recent", "samurai"):
        choices = [int(record.output.mask_choice) for record in records_of(policy)]
        assert min(choices.count(0), choices.count(2)) >= 5, policy


@pytest.mark.parametrize("policy", ["selection", "samurai"])
def test_its_frames_are_accepted_and_rejected_so_that_rank_and_distance_differ(policy: str) -> None:
    assert 40 <= sum(record.accepted for record in records_of(policy)) <= FRAMES - 40
    by_rank = [
        any(row != t - frame - 1 for frame, row in step.memories.items() if frame not in prompts_of(policy))
        for t, step in enumerate(steps_of(policy))
    ]
    assert sum(by_rank) > FRAMES // 4


def test_samurais_filter_lapses_and_overrules_the_predicted_iou() -> None:
    records, phases = records_of("samurai"), phases_of("samurai")
    assert {UNTOUCHED, START, WARM_UP, STABLE} == set(phases)
    assert sum(one == STABLE and other == START for one, other in pairwise(phases)) >= 3
    overruled = [
        phase == STABLE and record.output.ious.argmax() != record.output.mask_choice[0]
        for phase, record in zip(phases, records, strict=True)
    ]
    assert sum(overruled) >= 3


@pytest.mark.parametrize("policy", POLICIES)
def test_no_decision_of_the_long_clip_is_close_and_each_falls_both_ways(policy: str) -> None:
    memory, scores = reference_of(policy).recipe.memory, scores_of(policy)
    ious = np.array([float(record.output.iou) for record in records_of(policy)])
    decided = {"presence": (scores, 0.0, SCORE_MARGIN)}
    if policy == "selection":
        presence = np.tanh(scores.clip(min=0) / 2)  # 2 sigmoid(x) - 1
        decided["acceptance"] = presence * ious, memory.selection.mf_threshold, SCORE_MARGIN
    if policy == "samurai":
        constants = memory.samurai
        motion = [record.motion for record in records_of(policy) if record.motion is not None]
        of_motion = np.array([float(one.motion_score) for one in motion if bool(one.motion_score_valid)])
        decided |= {
            "presence in the masks": (scores, -1.0, SCORE_MARGIN),
            "the filter's reset": (ious, constants.stable_ious_threshold, IOU_MARGIN),
            "acceptance by IoU": (ious, constants.memory_bank_iou_threshold, IOU_MARGIN),
            "acceptance by motion": (of_motion, constants.memory_bank_kf_score_threshold, IOU_MARGIN),
        }
    for what, (values, threshold, margin) in decided.items():
        assert values.min() < threshold < values.max(), what
        assert np.abs(values - threshold).min() > margin, what
    candidates = np.sort([record.output.ious.numpy()[0] for record in records_of(policy)], axis=1)
    assert (candidates[:, 2] - candidates[:, 1]).min() > IOU_MARGIN, "the best candidate"
