"""The memory policies as banks of fixed size, against the eager trackers' walks over dictionaries without bound."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.bank_policies import BankFrames, FrameScores, MemoryPolicy, Recent, Samurai, Selection
from samonnx.models.memory_policy import SlotSelection
from samonnx.models.motion_memory import MotionMemorySpec
from samonnx.models.motion_selection import MotionSpec
from samonnx.models.reference_policies import SamuraiTracker, SelectionTracker
from samonnx.models.reference_tracker import FrameRecord, ReferenceTracker
from samonnx.models.tracker import FrameOutput, TrackedModel

POLICIES = {"recent": Recent, "selection": Selection, "samurai": Samurai}
TRACKERS: dict[type[MemoryPolicy], type[ReferenceTracker]] = {
    Recent: ReferenceTracker,
    Selection: SelectionTracker,
    Samurai: SamuraiTracker,
}


@dataclass(frozen=True)
class Frame:
    """`prompted`: a conditioning frame; `accepted`: what the policy makes of its scores; `corrected`: it is written a
    second time, then with a prompt."""

    prompted: bool = False
    accepted: bool = True
    corrected: bool = False


History = list[Frame | None]
"""Frames in the order in which they are visited; None: not visited."""

ORDINARY = st.builds(Frame, accepted=st.booleans())
ANY = st.builds(Frame, st.booleans(), st.booleans(), st.booleans())
HISTORIES = st.builds(
    lambda stretches: [Frame(prompted=True), *(frame for stretch in stretches for frame in stretch)][:40],
    st.lists(
        st.lists(ORDINARY, max_size=9) | st.lists(st.just(Frame()), max_size=9) | st.lists(ANY | st.none(), max_size=3),
        max_size=9,
    ),
)
PLACES = st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(2, 6))
"""Conditioning slots, recent slots, pointer slots."""

UNSEEN = cast(FrameOutput, None)
"""No output: `memory_frames` and `pointer_frames` look at the flags of a record alone."""


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def flag(value: bool) -> Tensor:
    return torch.tensor([value])


class Bank:
    """Slots (or places) of one object, empty at first."""

    def __init__(self, count: int) -> None:
        nothing = torch.zeros(1, count, dtype=torch.bool)
        self.frames = BankFrames(torch.full((1, count), -1, dtype=torch.int32), nothing, nothing)

    def write(self, slot: Tensor, t: int, frame: Frame, prompted: bool) -> None:
        assert slot.dtype == torch.bool
        assert slot.sum(1).tolist() == [1]
        known = self.frames
        self.frames = BankFrames(
            torch.where(slot, scalar(t), known.index),
            torch.where(slot, flag(prompted), known.conditioning),
            torch.where(slot, flag(frame.accepted), known.accepted),
        )

    def conditioning(self, selection: SlotSelection) -> set[int]:
        return set(self.frames.index[selection.conditioning].tolist())

    def recent(self, selection: SlotSelection) -> dict[int, int]:
        """Frame → distance."""
        index, distance = (tensor[selection.recent].tolist() for tensor in (self.frames.index, selection.distance))
        return dict(zip(index, distance, strict=True))


def tracker_of(policy: MemoryPolicy, num_frames: int) -> ReferenceTracker:
    places = policy.conditioning_slots, policy.recent_slots, num_frames, policy.pointer_slots
    return TRACKERS[type(policy)](cast(TrackedModel, _NoModel()), *places)


class _NoModel:
    """The trackers only look for the attribute; no frame is run."""

    tracker = None


def remember(tracker: ReferenceTracker, t: int, frame: Frame, prompted: bool) -> None:
    """A frame that has a prompt is a conditioning frame from then on."""
    record = FrameRecord(UNSEEN, torch.zeros(0), None, frame.accepted)
    tracker.others.pop(t, None)
    (tracker.conditioning if prompted else tracker.others)[t] = record


def difference(
    policy: MemoryPolicy, history: History, num_frames: int = 0, fewer: tuple[int, int] = (0, 0)
) -> str | None:
    """The first frame at which the bounded bank attends others than the walk does, in words; None if there is none.
    `fewer`: how many slots and places the bank lacks of those that the policy asks for."""
    tracker = tracker_of(policy, num_frames)
    slots, places = Bank(policy.slots - fewer[0]), Bank(policy.pointer_places - fewer[1])
    window = scalar(tracker.pointer_window)
    for t, frame in enumerate([*history, Frame()]):
        if frame is None:
            continue
        memories = policy.memories(scalar(t), slots.frames)
        pointers = policy.pointers(scalar(t), places.frames, window)
        chosen, walked = tracker.memory_frames(t)
        expected = set(chosen), {t: age + 1 for t, age in zip(walked, tracker.ages(t, walked), strict=True)}
        if (found := (slots.conditioning(memories), slots.recent(memories))) != expected:
            return f"memories of frame {t}: {found}, {expected} expected"
        frames = tracker.pointer_frames(t)
        distances = dict(zip(frames, tracker.pointer_distances(t, frames), strict=True))
        behind = {c for c in places.conditioning(pointers) if c <= t}
        both = places.recent(pointers) | {c: t - c for c in behind}
        if both != distances or behind != {c for c in chosen if c <= t}:
            return f"pointers of frame {t}: {both}, {distances} expected"
        for prompted in (False, True) if frame.corrected else (frame.prompted,):
            slots.write(policy.memory_slot(scalar(t), slots.frames, flag(prompted)), t, frame, prompted)
            places.write(policy.pointer_place(scalar(t), places.frames, flag(prompted)), t, frame, prompted)
            remember(tracker, t, frame, prompted)
    return None


# The law of the bounded bank


@pytest.mark.parametrize("name", POLICIES)
@given(history=HISTORIES, places=PLACES, num_frames=st.sampled_from([0, 3, 40]))
@settings(max_examples=40, deadline=None)
def test_the_bounded_bank_attends_what_the_walk_over_everything_attends(
    name: str, history: History, places: tuple[int, int, int], num_frames: int
) -> None:
    assert difference(POLICIES[name](*places), history, num_frames) is None


GOOD_ONES = cast(History, [Frame(prompted=True), *[Frame()] * 20])


@pytest.mark.parametrize(("name", "frame"), [("recent", 7), ("selection", 7), ("samurai", 8)])
def test_one_slot_fewer_forgets_a_frame_that_is_attended(name: str, frame: int) -> None:
    """Where all frames are good, each slot of the bank holds one that is attended; SAMURAI never walks to frame 1."""
    policy = POLICIES[name](1, 6, 16)
    assert difference(policy, GOOD_ONES) is None
    said = difference(policy, GOOD_ONES, fewer=(1, 0))
    assert said is not None
    assert said.startswith(f"memories of frame {frame}: ")


@pytest.mark.parametrize(("name", "frame"), [("recent", 16), ("selection", 17), ("samurai", 16)])
def test_one_place_fewer_forgets_a_pointer_that_is_attended(name: str, frame: int) -> None:
    said = difference(POLICIES[name](1, 6, 16), GOOD_ONES, fewer=(0, 1))
    assert said is not None
    assert said.startswith(f"pointers of frame {frame}: ")


# What a policy keeps


@pytest.mark.parametrize(
    ("policy", "slots", "places", "flags"),
    [
        (Recent(2, 3, 5), 5, 6, (False, False, False)),
        (Selection(2, 3, 5), 5, 7, (True, True, False)),
        (Samurai(2, 3, 5), 5, 6, (True, False, True)),
    ],
)
def test_the_places_of_the_bank_and_what_it_keeps_beside_the_frames(
    policy: MemoryPolicy, slots: int, places: int, flags: tuple[bool, bool, bool]
) -> None:
    assert (policy.slots, policy.pointer_places) == (slots, places)
    assert (policy.accepts_memories, policy.accepts_pointers, policy.chooses_by_motion) == flags


def test_policies_are_values() -> None:
    assert Samurai(1, 6, 16) == Samurai(1, 6, 16, choice=MotionSpec(), thresholds=MotionMemorySpec())
    assert Samurai(1, 6, 16) != Samurai(1, 6, 16, choice=MotionSpec(stable_frames_threshold=6))
    with pytest.raises(AttributeError):
        Recent(1, 6, 16).recent_slots = 5  # type: ignore[misc]  # frozen: that is what is tested


# Acceptance


def scores(iou: list[float], score: list[float], motion: list[float], counts: list[bool]) -> FrameScores:
    return FrameScores(
        torch.tensor(iou)[:, None], torch.tensor(score)[:, None], torch.tensor(motion), torch.tensor(counts)
    )


GOOD = scores([0.9, 0.9, 0.5, 0.9, 0.9], [4.0, 0.001, 4.0, 4.0, -0.5], [0.8, 0.8, 0.8, 0.0, 0.8], [True] * 5)


def test_recent_accepts_every_object_whatever_its_scores() -> None:
    assert Recent(1, 6, 16).accepted(GOOD).tolist() == [True] * 5


def test_selection_accepts_presence_times_iou_above_its_threshold() -> None:
    """2 sigmoid(0.001) − 1 is 0.0005."""
    assert Selection(1, 6, 16).accepted(GOOD).tolist() == [True, False, True, True, False]
    assert Selection(1, 6, 16, mf_threshold=0.0).accepted(GOOD).tolist() == [True, True, True, True, False]
    assert Selection(1, 6, 16, mf_threshold=0.6).accepted(GOOD).tolist() == [True, False, False, True, False]


def test_samurai_accepts_strictly_above_its_three_thresholds_and_motion_where_it_counts() -> None:
    assert Samurai(1, 6, 16).accepted(GOOD).tolist() == [True, True, False, False, False]
    without = replace(GOOD, motion_score_valid=torch.zeros(5, dtype=torch.bool))
    assert Samurai(1, 6, 16).accepted(without).tolist() == [True, True, False, True, False]
    lenient = MotionMemorySpec(0.4, -1.0, -1.0)
    assert Samurai(1, 6, 16, thresholds=lenient).accepted(GOOD).tolist() == [True] * 5


# By hand


def bank(*frames: tuple[int, bool, bool]) -> BankFrames:
    """One object's (frame, conditioning, accepted)."""
    index, conditioning, accepted = zip(*frames, strict=True)
    return BankFrames(torch.tensor([index], dtype=torch.int32), torch.tensor([conditioning]), torch.tensor([accepted]))


NO, YES = False, True
SOME = bank((0, YES, YES), (3, NO, YES), (6, NO, NO), (7, NO, YES), (8, NO, NO), (1, NO, YES), (-1, YES, YES))


@pytest.mark.parametrize(
    ("policy", "memories", "pointers"),
    [
        (Recent(1, 3, 16), [9, 0, 3, 2, 1, 0, 0], [9, 6, 3, 2, 1, 8, 0]),
        (Selection(1, 3, 16), [9, 3, 0, 2, 1, 0, 0], [9, 3, 0, 2, 1, 0, 0]),
        (Samurai(1, 3, 16), [9, 3, 0, 2, 1, 0, 0], [9, 6, 3, 2, 1, 8, 0]),
    ],
)
def test_what_frame_nine_attends_by_hand(policy: MemoryPolicy, memories: list[int], pointers: list[int]) -> None:
    """Distances; 0 is not attended. Ranks close the gaps that rejected frames leave; the walk of `selection` leaves out
    the oldest frame that it finds, here frame 1, among the pointers."""
    assert policy.memories(scalar(9), SOME).distance.tolist() == [memories]
    assert policy.pointers(scalar(9), SOME, scalar(15)).distance.tolist() == [pointers]


@pytest.mark.parametrize(
    ("policy", "slot", "place"),
    [(Recent(1, 3, 3), 1, 1), (Selection(1, 3, 3), 2, 2), (Samurai(1, 3, 3), 2, 1)],
)
def test_which_slot_and_place_give_way_by_hand(policy: MemoryPolicy, slot: int, place: int) -> None:
    """Of a full bank the oldest other frame; under a policy of acceptance one that was not accepted goes first."""
    full = bank((0, YES, YES), (3, NO, YES), (5, NO, NO), (6, NO, YES))
    assert policy.memory_slot(scalar(7), full, flag(NO)).int().argmax().item() == slot
    assert policy.pointer_place(scalar(7), full, flag(NO)).int().argmax().item() == place


@pytest.mark.parametrize("name", POLICIES)
def test_a_prompt_takes_the_place_of_the_conditioning_frame_that_it_pushes_out(name: str) -> None:
    policy = POLICIES[name](1, 2, 3)
    for count, chosen in ((policy.slots, policy.memory_slot), (policy.pointer_places, policy.pointer_place)):
        full = bank((0, YES, YES), *((t, NO, YES) for t in range(8 - count, 7)))
        assert chosen(scalar(7), full, flag(YES)).int().argmax().item() == 0
        assert chosen(scalar(7), full, flag(NO)).int().argmax().item() == 1
