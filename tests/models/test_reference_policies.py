"""The eager reference for accepted frames: against plain NumPy decisions, and against the branchless selection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.antialiased_resize import antialiased_resize
from samonnx.models.mask_decoder import DecodedMasks
from samonnx.models.memory_policy import SlotSelection
from samonnx.models.motion_memory import MotionMemorySpec, select_accepted_pointers, select_accepted_slots
from samonnx.models.motion_selection import STABLE, START, UNTOUCHED, WARM_UP, MotionChoice, MotionSpec, MotionState
from samonnx.models.reference_policies import SamuraiTracker, SelectionTracker
from samonnx.models.reference_tracker import FramePrompt, FrameRecord, ReferenceTracker
from samonnx.models.tracker import FrameOutput
from tests.models import numpy_samurai as numpy_reference
from tests.models.numpy_samurai import Frame
from tests.models.test_sam2 import BOX, CLICK, GRID, LOW, MEMORY, SIZE, WIDTH, ellipse, features, pinned, points_of

Masks = npt.NDArray[np.float32]

FRAMES = 25
QUICK = MotionSpec(stable_frames_threshold=4)
NOTHING = FramePrompt()


# A clip whose decoder follows a script


@lru_cache(maxsize=4)
def script(seed: int = 0) -> list[DecodedMasks]:
    """The first candidate is an ellipse that drifts, the second one elsewhere of often higher IoU, the third noise. The
    object is faint on frames 6 and 12, unlikely (low IoUs) on 9, 19 and 21, empty on 14, and absent (score below -1) on
    16."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:LOW, 0:LOW].astype(np.float32)
    frames = []
    for t in range(FRAMES):
        centres = [(8 + t / 3, 12 + t / 5, 5, 4), (24 - t / 4, 22, 3, 5), (*random.uniform(4, 28, 2), 2, 2)]
        masks = [10 * (1 - ((x - cx) / rx) ** 2 - ((y - cy) / ry) ** 2).clip(-1, 1) for cx, cy, rx, ry in centres]
        if t == 14:
            masks[0] = np.full_like(x, -10)
        ious = np.array([random.uniform(0.6, 0.8), random.uniform(0.5, 0.85), random.uniform(0.1, 0.9)])
        if t in (9, 19, 21):
            ious *= 0.3
        score = -0.5 if t in (6, 12) else -3.0 if t == 16 else 4.0
        logits = np.stack([masks[0], *masks])[None].astype(np.float32)
        tokens = random.standard_normal((1, 4, WIDTH)).astype(np.float32)
        frames.append(
            DecodedMasks(
                torch.from_numpy(logits),
                torch.from_numpy(np.concatenate(([0.9], ious))[None].astype(np.float32)),
                torch.from_numpy(tokens),
                torch.tensor([[score]]),
            )
        )
    return frames


class ScriptedSamurai(SamuraiTracker):
    frames: list[DecodedMasks] | None = None

    def take_mask(
        self, frame_index: int, decoded: DecodedMasks, candidates: Tensor
    ) -> tuple[FrameOutput, MotionChoice | None]:
        return super().take_mask(frame_index, (self.frames or script())[frame_index], candidates)


class ScriptedSelection(SelectionTracker):
    def take_mask(
        self, frame_index: int, decoded: DecodedMasks, candidates: Tensor
    ) -> tuple[FrameOutput, MotionChoice | None]:
        return super().take_mask(frame_index, script()[frame_index], candidates)


def step(tracker: ReferenceTracker, t: int, prompt: FramePrompt = NOTHING, attend_memory: bool = True) -> FrameRecord:
    with torch.inference_mode():
        return tracker.step(t, features(0), prompt, attend_memory)


def samurai(choice: MotionSpec = QUICK) -> ScriptedSamurai:
    return ScriptedSamurai(pinned(presence_threshold=-1.0), None, 6, FRAMES, choice=choice)


def same_state(one: MotionState, other: MotionState) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def seen(record: FrameRecord) -> MotionChoice:
    assert record.motion is not None
    return record.motion


def enlarged(decoded: DecodedMasks) -> Masks:
    """The candidates at full size, [3, S, S]."""
    masks: Masks = antialiased_resize(decoded.logits[0, 1:, None], SIZE)[:, 0].numpy()
    return masks if float(decoded.object_score) > -1 else np.full_like(masks, -1024)


@pytest.mark.parametrize("start", [CLICK, BOX])
def test_samurais_clip_is_decided_as_in_numpy_and_attends_what_its_walk_finds(
    start: tuple[tuple[float, float, int], ...],
) -> None:
    """Mask choice, phase, the filter's state, acceptance and attended frames at each of 25 frames."""
    tracker, reference = samurai(), numpy_reference.Selection(threshold=4)
    history: list[Frame | None] = []
    phases, overruled, rejected = set(), 0, []
    for t, decoded in enumerate(script()):
        recent = tracker.memory_frames(t)[1]
        assert list(zip(recent, [6 - age for age in tracker.ages(t, recent)], strict=True)) == (
            numpy_reference.attended(t, history, "samurai") if t else []
        )
        assert tracker.pointer_frames(t) == [0][: bool(t)] + list(range(t - 1, max(t - 16, 0), -1))
        record = step(tracker, t, points_of(*start) if t == 0 else NOTHING)
        motion = seen(record)
        ious = decoded.ious[0, 1:].numpy()
        if t == 0 and start == BOX:
            assert (int(motion.choice), int(motion.phase)) == (-1, UNTOUCHED)
            assert same_state(motion.state, tracker.state_before(0))
            history.append(Frame(0.9, 4.0, conditioning=True))
            continue
        expected = reference.step(enlarged(decoded), ious)
        assert (int(motion.choice), int(motion.phase)) == (expected.choice, expected.phase)
        assert int(record.output.mask_choice) == expected.choice
        assert float(record.output.iou) == ious[expected.choice]
        assert int(motion.state.stable_frames) == reference.stable_frames
        for found, array in ((motion.state.mean, reference.mean), (motion.state.covariance, reference.covariance)):
            assert array is not None
            np.testing.assert_allclose(found[0].numpy(), array, rtol=0, atol=1e-5 * np.abs(array).max())
        frame = Frame(float(ious[expected.choice]), float(decoded.object_score), expected.motion_score, t == 0)
        assert record.accepted is frame.accepted_by_motion()
        history.append(frame)
        phases.add((expected.phase, reference.stable_frames == 0))
        overruled += expected.choice != int(ious.argmax())
        rejected += [] if record.accepted else [t]
    assert phases == {(START, False), (WARM_UP, False), (WARM_UP, True), (STABLE, False), (STABLE, True)}
    assert overruled
    assert {6, 9, 12, 16, 19, 21} <= set(rejected) < set(range(1, FRAMES))


def test_a_frame_that_motion_decided_is_accepted_by_the_predicted_iou_of_the_mask_taken() -> None:
    tracker, first = samurai(), script()[0]
    ious = [(0.9, 0.1, 0.1)] * 4 + [(0.46, 0.72, 0.1)]
    tracker.frames = [replace(first, ious=torch.tensor([[0.9, *of_frame]])) for of_frame in ious]
    records = [step(tracker, t, points_of(*CLICK) if t == 0 else NOTHING) for t in range(5)]
    assert [int(seen(record).phase) for record in records] == [START, WARM_UP, WARM_UP, WARM_UP, STABLE]
    assert int(records[4].output.mask_choice) == 0
    assert [record.accepted for record in records] == [True, True, True, True, False]


@pytest.mark.parametrize(("threshold", "max_pointers"), [(0.01, 16), (0.6, 16), (0.01, 8)])
def test_sam_3s_clip_attends_memory_and_pointers_that_its_walk_finds(threshold: float, max_pointers: int) -> None:
    tracker = ScriptedSelection(pinned(), None, 6, FRAMES, max_pointers, threshold=threshold)
    history: list[Frame | None] = []
    for t, decoded in enumerate(script()):
        recent, pointers = tracker.memory_frames(t)[1], tracker.pointer_frames(t)
        distances = tracker.pointer_distances(t, pointers)
        assert list(zip(recent, [6 - age for age in tracker.ages(t, recent)], strict=True)) == (
            numpy_reference.attended(t, history, "selection", max_pointers - 1) if t else []
        )
        assert list(zip(pointers, distances, strict=True)) == (
            [(0, t), *numpy_reference.pointers(t, history, max_pointers)] if t else []
        )
        record = step(tracker, t, points_of(*CLICK) if t == 0 else NOTHING)
        best, score = float(decoded.ious[0, 1:].max()), float(decoded.object_score)
        assert float(record.output.iou) == np.float32(best)
        assert record.motion is None
        presence = 2 / (1 + np.exp(-score)) - 1
        assert record.accepted is bool(presence * best > threshold)
        # The NumPy version knows the threshold 0.01 alone.
        history.append(Frame(best if record.accepted else 0.0, score, conditioning=t == 0))
    accepted = [frame is not None and frame.accepted_by_score() for frame in history]
    assert not any(accepted[t] for t in (6, 12, 16))
    assert (sum(accepted) < 20) is (threshold == 0.6)


# Against the branchless selection over all frames


def blank(number: float = 0.0, accepted: bool = False) -> FrameRecord:
    low, full = torch.zeros(1, 1, LOW, LOW), torch.zeros(1, 1, SIZE, SIZE)
    output = FrameOutput(
        low, full, torch.zeros(1, 3), torch.zeros(1, 1), torch.zeros(1, dtype=torch.int32), torch.ones(1, 1),
        torch.full((1, WIDTH), number),
    )  # fmt: skip
    return FrameRecord(output, torch.full((1, MEMORY, GRID, GRID), number), None, accepted)


@dataclass(frozen=True)
class Clip:
    """Frame → (conditioning, accepted); frames that were not visited are missing."""

    frames: dict[int, tuple[bool, bool]]

    def fill(self, tracker: ReferenceTracker) -> None:
        for t, (conditioning, accepted) in self.frames.items():
            (tracker.conditioning if conditioning else tracker.others)[t] = blank(t, accepted)

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """[1, N] each: frames, conditioning, accepted."""
        flags = torch.tensor([list(self.frames.values())])
        return torch.tensor([list(self.frames)], dtype=torch.int32), flags[..., 0], flags[..., 1]


LUCK = st.tuples(st.just(False), st.booleans()) | st.just((False, True))
CLIPS = st.builds(
    lambda frames, prompts, gaps: Clip(
        {0: (True, False)}
        | {t: (t in prompts, accepted) for t, (_, accepted) in enumerate(frames, 1) if t not in gaps or t in prompts}
    ),
    st.lists(LUCK, max_size=40),
    st.sets(st.integers(1, 40), max_size=5),
    st.sets(st.integers(1, 40), max_size=5),
)


def listed(frames: Tensor, selection: SlotSelection) -> list[tuple[int, int]]:
    """(frame, distance) of the frames that are not conditioning ones here, nearest first."""
    found = zip(frames[selection.recent].tolist(), selection.distance[selection.recent].tolist(), strict=True)
    return sorted(found, key=lambda one: one[1])


@given(clip=CLIPS, t=st.integers(1, 42), limit=st.integers(1, 3), window=st.integers(1, 6))
@settings(max_examples=150, deadline=None)
@pytest.mark.parametrize("policy", ["samurai", "selection"])
def test_the_walk_finds_the_memory_frames_that_the_branchless_selection_finds_in_the_whole_clip(
    policy: str, clip: Clip, t: int, limit: int, window: int
) -> None:
    kind = SamuraiTracker if policy == "samurai" else SelectionTracker
    tracker = kind(pinned(), limit, window, 0)
    clip.fill(tracker)
    frames, conditioning, accepted = clip.tensors()
    selection = select_accepted_slots(
        torch.tensor(t, dtype=torch.int32), frames, conditioning, accepted, limit, window, numpy_reference.FIRST[policy]
    )
    chosen, recent = tracker.memory_frames(t)
    assert sorted(chosen) == sorted(frames[selection.conditioning].tolist())
    assert list(zip(recent[::-1], [age + 1 for age in tracker.ages(t, recent)[::-1]], strict=True)) == listed(
        frames, selection
    )


@given(clip=CLIPS, t=st.integers(1, 42), limit=st.integers(1, 3), number=st.integers(2, 16))
@settings(max_examples=150, deadline=None)
def test_the_walk_finds_the_pointers_that_the_branchless_selection_finds_in_the_whole_clip(
    clip: Clip, t: int, limit: int, number: int
) -> None:
    tracker = SelectionTracker(pinned(), limit, 6, number)
    clip.fill(tracker)
    frames, conditioning, accepted = clip.tensors()
    selection = select_accepted_pointers(
        torch.tensor(t, dtype=torch.int32), frames, conditioning, accepted, limit, number - 1, tracker.earliest
    )
    found = tracker.pointer_frames(t)
    prompted = [c for c in tracker.memory_frames(t)[0] if c <= t]
    assert found[: len(prompted)] == prompted
    distances = tracker.pointer_distances(t, found)
    assert distances[: len(prompted)] == [t - c for c in prompted]
    others = list(zip(found, distances, strict=True))[len(prompted) :]
    assert others == listed(frames, selection)


# What the originals do and what is mended


def test_frame_one_is_samurais_memory_at_frame_two_alone() -> None:
    tracker, other = SamuraiTracker(pinned(), None, 6, 0), SelectionTracker(pinned(), None, 6, 0)
    for one in (tracker, other):
        Clip({0: (True, False)} | dict.fromkeys(range(1, 5), (False, True))).fill(one)
    assert [tracker.memory_frames(t)[1] for t in (1, 2, 3, 4)] == [[], [1], [2], [2, 3]]
    assert [other.memory_frames(t)[1] for t in (1, 2, 3, 4)] == [[], [1], [1, 2], [1, 2, 3]]


def test_ranks_close_the_gaps_that_rejected_frames_leave() -> None:
    tracker = SamuraiTracker(pinned(), None, 6, 0)
    Clip({0: (True, False)} | {t: (False, t in (3, 7)) for t in range(1, 12)}).fill(tracker)
    memory, position, _, _ = tracker.memory_inputs(12)
    assert memory[0, :, 0, 0].tolist() == [0, 3, 7, 11]
    assert torch.equal(position[0], pinned().memory_position(torch.tensor([6, 2, 1, 0])))


def test_a_conditioning_frame_just_before_takes_the_rank_and_lends_its_map_once() -> None:
    tracker = SamuraiTracker(pinned(), None, 6, 0)
    Clip({0: (True, False), 3: (False, True), 4: (True, True)}).fill(tracker)
    assert tracker.memory_frames(5) == ([0, 4], [3])
    assert tracker.ages(5, [3]) == [1]


def test_sam_3s_pointers_leave_out_the_oldest_frame_walked_and_count_places() -> None:
    tracker = SelectionTracker(pinned(), None, 6, 0)
    Clip({0: (True, False)} | {t: (False, t in (2, 5, 7)) for t in range(1, 10)}).fill(tracker)
    assert tracker.pointer_frames(10) == [0, 9, 7, 5]
    assert tracker.pointer_distances(10, [0, 9, 7, 5]) == [10, 1, 2, 3]
    _, _, pointer, position = tracker.memory_inputs(10)
    assert pointer[0, :: WIDTH // MEMORY, 0].tolist() == [0, 9, 7, 5]
    distance = torch.tensor([[10, 1, 2, 3]], dtype=torch.int32)
    assert torch.equal(position, pinned().pointer_position(distance, torch.tensor(15)))


def test_memory_frames_are_not_fewer_because_there_are_fewer_pointers() -> None:
    tracker = SelectionTracker(pinned(), None, 6, 0, max_pointers=3)
    Clip({0: (True, False)} | dict.fromkeys(range(1, 10), (False, True))).fill(tracker)
    assert tracker.memory_frames(10)[1] == [4, 5, 6, 7, 8, 9]
    assert tracker.pointer_frames(10) == [0, 9]


@pytest.mark.parametrize("policy", ["samurai", "selection"])
def test_where_every_frame_is_accepted_memory_is_of_the_recent_frames(policy: str) -> None:
    """A real clip: nothing is scripted."""
    model = pinned(2, presence_threshold=-1.0)
    tracker: ReferenceTracker = SelectionTracker(model, None, 6, 12, threshold=-1.0)
    if policy == "samurai":
        never_stable = MotionSpec(stable_frames_threshold=100, stable_ious_threshold=-1.0)
        all_of_them = MotionMemorySpec(-1.0, -100.0, -1.0)
        tracker = SamuraiTracker(model, None, 6, 12, choice=never_stable, memory=all_of_them)
    recent = ReferenceTracker(model, None, 6, 12)
    for t in range(12):
        maps, prompt = features(t, 2), points_of(*CLICK) if t == 0 else NOTHING
        with torch.inference_mode():
            found, expected = tracker.step(t, maps, prompt), recent.step(t, maps, prompt)
        assert found.accepted
        assert not expected.accepted
        tracked = [i for i in recent.memory_frames(t)[1] if i > 1 or policy == "selection" or t == 2]
        assert tracker.memory_frames(t)[1] == tracked
        if policy == "samurai" and not 3 <= t <= 7:  # where frame 1 is attended by both or by neither
            assert torch.equal(found.output.masks, expected.output.masks)
        recent.conditioning, recent.others = dict(tracker.conditioning), dict(tracker.others)


# The filter's state


def test_the_state_is_all_zeros_before_the_first_frame_and_stays_so_after_a_box() -> None:
    tracker = samurai()
    before = tracker.state_before(0)
    assert [tuple(part.shape) for part in before] == [(1, 8), (1, 8, 8), (1,)]
    assert [part.dtype for part in before] == [torch.float32, torch.float32, torch.int32]
    assert not any(part.any() for part in before)
    step(tracker, 0, points_of(*BOX))
    assert same_state(tracker.state_before(1), before)
    record = step(tracker, 1)
    assert int(seen(record).phase) == START
    assert same_state(tracker.state_before(2), seen(record).state)


def test_a_single_click_starts_the_filter_and_several_points_or_a_mask_leave_it() -> None:
    tracker = samurai()
    assert int(seen(step(tracker, 0, points_of(*CLICK))).phase) == START
    state = tracker.state_before(1)
    for t, prompt in ((1, points_of(*CLICK, *CLICK)), (2, FramePrompt(mask=ellipse()))):
        motion = seen(step(tracker, t, prompt))
        assert (int(motion.choice), int(motion.phase), bool(motion.motion_score_valid)) == (-1, UNTOUCHED, False)
        assert same_state(motion.state, state)
    assert int(seen(step(tracker, 3)).phase) == WARM_UP


def test_a_frame_run_again_starts_from_the_state_before_it() -> None:
    tracker = samurai()
    records = [step(tracker, t, points_of(*CLICK) if t == 0 else NOTHING) for t in range(8)]
    assert int(seen(records[7]).phase) == STABLE
    again = step(tracker, 5)
    assert same_state(seen(again).state, seen(records[5]).state)
    assert same_state(tracker.state_before(5), seen(records[4]).state)
    corrected = step(tracker, 5, points_of(*CLICK), attend_memory=False)
    assert same_state(seen(corrected).state, seen(records[5]).state)
    boxed = step(tracker, 5, points_of(*BOX), attend_memory=False)
    assert same_state(seen(boxed).state, seen(records[4]).state)
    assert same_state(tracker.state_before(6), seen(records[4]).state)
    assert same_state(tracker.state_before(8), seen(records[7]).state)


def test_the_state_is_that_after_the_latest_earlier_frame_over_gaps() -> None:
    tracker = samurai()
    last = [step(tracker, t, points_of(*CLICK) if t == 3 else NOTHING) for t in (3, 4, 9)][-1]
    assert same_state(tracker.state_before(20), seen(last).state)
    assert not tracker.state_before(3).stable_frames.any()
    assert int(tracker.state_before(9).stable_frames) == 2
    assert tracker.memory_frames(10)[1] == [4, 9]


def test_an_absent_object_is_measured_as_an_empty_box() -> None:
    tracker = samurai()
    step(tracker, 15, points_of(*CLICK))
    state = seen(step(tracker, 16)).state
    assert (script()[16].logits[0, 1] > 0).any()
    assert float(state.mean[0, 3]) < float(tracker.state_before(16).mean[0, 3])


def test_the_recent_policy_accepts_nothing_and_has_no_motion() -> None:
    record = step(ReferenceTracker(pinned(), None, 6, 0), 0, points_of(*CLICK))
    assert (record.accepted, record.motion) == (False, None)
