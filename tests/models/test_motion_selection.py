"""SAMURAI's mask choice against the same decisions in NumPy, float64, with branches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.models.motion_selection import (
    STABLE,
    START,
    UNTOUCHED,
    WARM_UP,
    MotionChoice,
    MotionSpec,
    MotionState,
    choose_by_motion,
)
from samonnx.programs.program import Component
from samonnx.trace import trace
from tests.models import numpy_samurai as numpy_reference

Masks = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

SIZE = 64
EMPTY: Box = (0, 0, 0, 0)
QUICK = MotionSpec(stable_frames_threshold=3)
THRESHOLD = float(np.float32(0.3))


def mask(box: Box) -> Masks:
    """x0, y0, x1, y1, the last ones exclusive; -10 outside, 10 inside."""
    x0, y0, x1, y1 = box
    logits = np.full((SIZE, SIZE), -10, np.float32)
    logits[y0:y1, x0:x1] = 10
    return logits


def no_state(objects: int = 1) -> MotionState:
    return MotionState(torch.zeros(objects, 8), torch.zeros(objects, 8, 8), torch.zeros(objects, dtype=torch.int32))


class Tracked:
    """One object, called frame by frame."""

    def __init__(self, spec: MotionSpec = QUICK) -> None:
        self.spec, self.state = spec, no_state()

    def call(self, boxes: list[Box], ious: list[float], multimask: bool = True) -> MotionChoice:
        masks = torch.from_numpy(np.stack([mask(box) for box in boxes]))[None]
        found = choose_by_motion(masks, torch.tensor([ious]), self.state, torch.tensor([multimask]), self.spec)
        self.state = found.state
        return found

    def stable(self, box: Box) -> Tracked:
        """After a start and a warm-up on one box."""
        for _ in range(self.spec.stable_frames_threshold):
            self.call([box] * 3, [0.9, 0.1, 0.1])
        return self


def assert_same(found: MotionChoice, row: int, step: numpy_reference.Step, after: numpy_reference.Selection) -> None:
    assert (int(found.choice[row]), int(found.phase[row])) == (step.choice, step.phase)
    assert int(found.state.stable_frames[row]) == after.stable_frames
    assert bool(found.motion_score_valid[row]) == (step.motion_score is not None)
    np.testing.assert_allclose(float(found.motion_score[row]), step.motion_score or 0.0, atol=1e-4)
    for value, expected in ((found.state.mean, after.mean), (found.state.covariance, after.covariance)):
        assert expected is not None
        np.testing.assert_allclose(value[row].numpy(), expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    """Empty, one pixel, at the border, the whole image, or anything."""
    kind = draw(st.sampled_from(["any", "any", "any", "empty", "pixel", "whole"]))
    if kind in ("empty", "whole"):
        return EMPTY if kind == "empty" else (0, 0, SIZE, SIZE)
    x, y = draw(st.integers(0, SIZE - 1)), draw(st.integers(0, SIZE - 1))
    if kind == "pixel":
        return x, y, x + 1, y + 1
    return x, y, draw(st.integers(x + 1, SIZE)), draw(st.integers(y + 1, SIZE))


IOUS = st.sampled_from([0.0, 0.29, 0.3, 0.31, 0.6, 0.8, 0.9]) | st.integers(0, 1000).map(lambda k: k / 1000)
CALLS = st.lists(
    st.tuples(st.lists(boxes(), min_size=3, max_size=3), st.lists(IOUS, min_size=3, max_size=3), st.booleans()),
    min_size=1,
    max_size=10,
)


@given(calls=CALLS, weight=st.sampled_from([0.25, 0.15, 0.8]))
@settings(max_examples=100, deadline=None)
def test_any_sequence_of_calls_is_decided_as_with_branches_in_float64(
    calls: list[tuple[list[Box], list[float], bool]], weight: float
) -> None:
    tracked = Tracked(MotionSpec(stable_frames_threshold=3, kf_score_weight=weight))
    reference = numpy_reference.Selection(threshold=3, weight=weight)
    for candidates, ious, other in calls:
        if not other:  # a call for a single mask in between
            tracked.call(candidates, ious, multimask=False)
        found = tracked.call(candidates, ious)
        step = reference.step(np.stack([mask(box) for box in candidates]), np.array(ious, np.float32))
        if step.margin < 1e-4:  # a tie between different boxes: rounding decides, and both ways are right
            return
        assert_same(found, 0, step, reference)


def clip(frames: int, seed: int) -> tuple[list[list[Box]], npt.NDArray[np.float32]]:
    """An object that wanders, leaves (empty masks, then low IoU) and comes back elsewhere, is one pixel at times, and
    swaps places with another, which is the second candidate; the third is noise."""
    random = np.random.default_rng(seed)
    found: list[list[Box]] = []
    ious = random.uniform(0.55, 0.95, (frames, 3)).astype(np.float32)
    first, second = random.uniform(15, 45, 2), random.uniform(15, 45, 2)
    for t in range(frames):
        first, second = (np.clip(at + random.normal(0, 1, 2), 8, 52) for at in (first, second))
        if t % 97 == 60:
            first, second = second, first
        here = [(int(x) - 6, int(y) - 8, int(x) + 6, int(y) + 8) for x, y in (first, second)]
        x, y = random.integers(0, 60, 2).tolist()
        away, far, pixel = t % 211 in range(150, 155), t % 211 in range(155, 160), t % 53 == 50
        shown: Box = EMPTY if away else (x, y, x + 1, y + 1) if pixel else here[0]
        if far:
            ious[t] *= 0.3
        found.append([shown, here[1], (x, y, x + 3, y + 4)])
    return found, ious


def test_two_thousand_frames_of_several_objects_stay_with_float64() -> None:
    """Every decision is the same and the state does not drift; all objects in one call."""
    objects, frames = 3, 2000
    clips = [clip(frames, seed) for seed in range(objects)]
    references = [numpy_reference.Selection() for _ in clips]
    state, phases = no_state(objects), set()
    for t in range(frames):
        masks = np.stack([[mask(box) for box in boxes[t]] for boxes, _ in clips])
        ious = np.stack([scores[t] for _, scores in clips])
        every = torch.ones(objects, dtype=torch.bool)
        found = choose_by_motion(torch.from_numpy(masks), torch.from_numpy(ious), state, every, MotionSpec())
        state = found.state
        for row, reference in enumerate(references):
            step = reference.step(masks[row], ious[row])
            assert_same(found, row, step, reference)
            phases.add((step.phase, reference.stable_frames == 0, step.choice))
    assert len(phases) > 9  # all phases, resets in both, and each candidate were seen


@pytest.mark.parametrize("calls", [1, 2])
def test_at_the_threshold_warm_up_starts_anew(calls: int) -> None:
    tracked = Tracked()
    for _ in range(calls):
        tracked.call([(10, 10, 20, 20)] * 3, [0.9, 0.1, 0.1])
    found = tracked.call([(10, 10, 20, 20)] * 3, [THRESHOLD, 0.1, 0.1])
    assert (int(found.phase), int(found.state.stable_frames)) == (WARM_UP, 0)
    again = tracked.call([(30, 30, 40, 40)] * 3, [0.1, 0.0, 0.0])
    assert (int(again.phase), int(again.state.stable_frames)) == (START, 1)
    assert again.state.mean[0, :4].tolist() == [34.5, 34.5, 1.0, 9.0]


def test_at_the_threshold_the_stable_phase_goes_on() -> None:
    tracked = Tracked().stable((10, 10, 20, 20))
    found = tracked.call([(10, 10, 20, 20)] * 3, [THRESHOLD, 0.1, 0.1])
    assert (int(found.phase), int(found.state.stable_frames)) == (STABLE, 3)
    below = float(np.nextafter(np.float32(THRESHOLD), np.float32(0)))
    lapse = tracked.call([(10, 10, 20, 20)] * 3, [below, 0.1, 0.1])
    assert (int(lapse.phase), int(lapse.state.stable_frames)) == (STABLE, 0)


def test_motion_overrules_the_predicted_iou_once_stable() -> None:
    there, elsewhere = (10, 10, 30, 30), (40, 40, 60, 60)
    fresh = Tracked().call([there, elsewhere, elsewhere], [0.7, 0.9, 0.1])
    assert int(fresh.choice) == 1
    found = Tracked().stable(there).call([there, elsewhere, elsewhere], [0.7, 0.9, 0.1])
    assert int(found.choice) == 0
    assert float(found.motion_score) == 1.0


def test_neighbouring_floats_are_told_apart_where_all_boxes_are_the_same() -> None:
    """For these two IoUs 0.25 + 0.75 · iou, summed in float32, is a tie, and the first would win."""
    one, quarter, rest = np.float32(1), np.float32(0.25), np.float32(0.75)
    pairs = ((low, np.nextafter(low, one)) for low in np.linspace(0.4, 0.6, 50, dtype=np.float32))
    low, high = next((a, b) for a, b in pairs if quarter + rest * a == quarter + rest * b and rest * a < rest * b)
    box = (0, 0, SIZE, SIZE)
    found = Tracked().stable(box).call([box] * 3, [0.2, float(low), float(high)])
    assert int(found.choice) == 2
    tie = Tracked().stable(box).call([box] * 3, [0.2, float(high), float(high)])
    assert int(tie.choice) == 1


def test_calls_for_a_single_mask_leave_every_bit_of_the_state() -> None:
    tracked = Tracked().stable((10, 10, 20, 20))
    before = tracked.state
    found = tracked.call([EMPTY] * 3, [0.9, 0.1, 0.1], multimask=False)
    assert (int(found.choice), int(found.phase), bool(found.motion_score_valid)) == (-1, UNTOUCHED, False)
    for old, new in zip(before, found.state, strict=True):
        assert torch.equal(old, new)


def test_what_an_empty_bank_holds_is_of_no_account() -> None:
    masks = torch.from_numpy(np.stack([mask((1, 2, 9, 30))] * 3))[None].expand(2, -1, -1, -1)
    filled = MotionState(torch.full((2, 8), -3e38), torch.full((2, 8, 8), 3e38), torch.zeros(2, dtype=torch.int32))
    ious, every = torch.tensor([[0.2, 0.9, 0.4]] * 2), torch.tensor([True, True])
    found, clean = (choose_by_motion(masks, ious, state, every, QUICK) for state in (filled, no_state(2)))
    for one, other in zip((*found[:4], *found.state), (*clean[:4], *clean.state), strict=True):
        assert torch.equal(one, other)


class Choose(nn.Module):
    def forward(
        self, masks: Tensor, ious: Tensor, mean: Tensor, covariance: Tensor, stable_frames: Tensor, multimask: Tensor
    ) -> tuple[Any, ...]:
        found = choose_by_motion(masks, ious, MotionState(mean, covariance, stable_frames), multimask, QUICK)
        return *found[:4], *found.state


def test_the_graph_equals_the_module_in_every_phase() -> None:
    clips = [clip(8, seed) for seed in range(3)]
    state, module, session = no_state(3), Choose().eval(), None
    names = ("choice", "phase", "motion_score", "motion_score_valid", "next_mean", "next_covariance", "next_stable")
    phases = set()
    for t in range(8):
        ports = {
            "masks": torch.from_numpy(np.stack([[mask(box) for box in boxes[t]] for boxes, _ in clips])),
            "ious": torch.from_numpy(np.stack([scores[t] for _, scores in clips])),
            "mean": state.mean,
            "covariance": state.covariance,
            "stable_frames": state.stable_frames,
            "multimask": torch.tensor([True, t > 0, t % 3 > 0]),
        }
        if session is None:
            session = GraphSession(trace(Component("choose", module, ports, names)).model, threads=1)
        found = session.run({name: port.numpy() for name, port in ports.items()})
        expected = module(**ports)
        for name, value in zip(names, expected, strict=True):
            assert found[name].dtype == value.numpy().dtype
            np.testing.assert_allclose(found[name], value.numpy(), rtol=1e-5, atol=1e-5)
        state = MotionState(*expected[4:])
        phases |= set(expected[1].tolist())
    assert phases == {UNTOUCHED, START, WARM_UP, STABLE}
