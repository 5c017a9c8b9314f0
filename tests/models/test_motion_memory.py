"""Memory that frames must earn, against walks over the whole clip in plain Python."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from samonnx.graph_session import GraphSession
from samonnx.models.memory_policy import SlotSelection
from samonnx.models.motion_memory import (
    MotionMemorySpec,
    accepted_by_motion,
    accepted_by_score,
    accepted_slot_to_write,
    select_accepted_pointers,
    select_accepted_slots,
)
from samonnx.models.reference_tracker import closest_conditioning_frames
from samonnx.programs.program import Component
from samonnx.trace import trace
from tests.models import numpy_samurai as numpy_reference
from tests.models.numpy_samurai import FIRST, Frame

WINDOW, POINTERS, SCORE_THRESHOLD = 6, 16, 0.01

SCORES = st.sampled_from([0.0, 0.5, 0.51, 0.9])
FRAMES = st.builds(
    Frame,
    iou=SCORES,
    object_score=st.sampled_from([-3.0, -0.5, 0.0, 0.005, 2.0]),
    motion_score=st.none() | st.sampled_from([0.0, 0.001, 0.8]),
)


@st.composite
def clips(draw: st.DrawFn, longest: int = 60) -> list[Frame]:
    """Frame 0 is prompted; stretches of good frames and of bad ones follow."""
    good = st.just(Frame(0.9, 2.0, 0.8))
    stretches = draw(st.lists(st.lists(FRAMES, min_size=1, max_size=4) | st.lists(good, max_size=9), max_size=12))
    return [Frame(0.9, 2.0, conditioning=True), *(frame for part in stretches for frame in part)][:longest]


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def accepted(frame: Frame, policy: str) -> Tensor:
    """bool [1]"""
    iou, score = torch.tensor([frame.iou]), torch.tensor([frame.object_score])
    if policy == "selection":
        return accepted_by_score(iou, score, SCORE_THRESHOLD)
    motion, valid = torch.tensor([frame.motion_score or 0.0]), torch.tensor([frame.motion_score is not None])
    return accepted_by_motion(iou, score, motion, valid, MotionMemorySpec())


@dataclass
class BoundedBank:
    """The bank of one object: frame indices and flags."""

    frames: Tensor
    conditioning: Tensor
    accepted: Tensor
    policy: str
    limit: int
    window: int

    @classmethod
    def empty(cls, policy: str, limit: int = 1, window: int = WINDOW, spare: int = 0) -> BoundedBank:
        slots = (1, limit + window + spare)
        flags = torch.zeros(slots, dtype=torch.bool)
        return cls(torch.full(slots, -1, dtype=torch.int32), flags, flags, policy, limit, window)

    def selection(self, t: int) -> SlotSelection:
        return select_accepted_slots(
            scalar(t), self.frames, self.conditioning, self.accepted, self.limit, self.window, FIRST[self.policy]
        )

    def attended(self, t: int) -> list[tuple[int, int]]:
        """(frame, t_pos), oldest first."""
        return [(frame, WINDOW + 1 - distance) for frame, distance in reversed(self.listed(self.selection(t)))]

    def pointers(self, t: int, number: int) -> list[tuple[int, int]]:
        """(frame, distance), newest first."""
        selection = select_accepted_pointers(
            scalar(t), self.frames, self.conditioning, self.accepted, self.limit, scalar(number - 1), 1
        )
        return self.listed(selection)

    def listed(self, selection: SlotSelection) -> list[tuple[int, int]]:
        """(frame, distance) of the slots without a prompt, nearest first."""
        found = zip(self.frames[selection.recent].tolist(), selection.distance[selection.recent].tolist(), strict=True)
        return sorted(found, key=lambda one: one[1])

    def add(self, t: int, frame: Frame) -> None:
        flag, good = torch.tensor([frame.conditioning]), accepted(frame, self.policy)
        slot = accepted_slot_to_write(
            scalar(t),
            self.frames,
            self.conditioning,
            self.accepted,
            flag,
            self.limit,
            self.window,
            FIRST[self.policy],
        )
        assert slot.sum(1).tolist() == [1]
        self.frames = torch.where(slot, scalar(t), self.frames)
        self.conditioning = (slot & flag) | (~slot & self.conditioning)
        self.accepted = (slot & good) | (~slot & self.accepted)


# Acceptance


@given(frame=FRAMES)
@settings(deadline=None)
def test_a_frame_is_accepted_strictly_above_every_threshold(frame: Frame) -> None:
    assert accepted(frame, "samurai").item() == frame.accepted_by_motion()
    assert accepted(frame, "selection").item() == frame.accepted_by_score()


def test_a_motion_score_counts_only_in_the_stable_phase() -> None:
    assert accepted(Frame(0.6, 1.0, None), "samurai").item()
    assert not accepted(Frame(0.6, 1.0, 0.0), "samurai").item()
    assert accepted(Frame(0.6, 1.0, 1e-6), "samurai").item()


# The law of the bounded bank


@pytest.mark.parametrize("policy", ["samurai", "selection"])
@given(clip=clips(), spare=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_six_slots_and_the_prompt_attend_what_a_walk_over_the_whole_clip_attends(
    policy: str, clip: list[Frame], spare: int
) -> None:
    bank = BoundedBank.empty(policy, spare=spare)
    for t, frame in enumerate(clip):
        assert bank.attended(t) == (numpy_reference.attended(t, clip[:t], policy) if t else [])
        assert bank.frames[bank.selection(t).conditioning].tolist() == ([0] if t else [])
        bank.add(t, frame)


@pytest.mark.parametrize("policy", ["samurai", "selection"])
@given(seed=st.integers(0, 2**31), good=st.floats(0, 1))
@settings(max_examples=6, deadline=None)
def test_two_hundred_frames_of_any_luck_are_remembered_alike(policy: str, seed: int, good: float) -> None:
    random = np.random.default_rng(seed)
    bank, clip = BoundedBank.empty(policy), [Frame(0.9, 2.0, conditioning=True)]
    bank.add(0, clip[0])
    for t in range(1, 200):
        assert bank.attended(t) == numpy_reference.attended(t, clip, policy)
        lucky = random.random() < good
        clip.append(Frame(0.9 if lucky else 0.4, 2.0 if lucky else -1.0, 0.5 if random.random() < 0.5 else None))
        bank.add(t, clip[t])


@given(clip=clips(50), number=st.integers(2, POINTERS))
@settings(max_examples=40, deadline=None)
def test_sixteen_places_hold_the_pointers_of_score_based_selection(clip: list[Frame], number: int) -> None:
    """A clip shorter than 16 frames reaches less far back from the same bank."""
    bank = BoundedBank.empty("selection", window=POINTERS)
    for t, frame in enumerate(clip):
        assert bank.pointers(t, number) == numpy_reference.pointers(t, clip[:t], number)
        bank.add(t, frame)


@pytest.mark.parametrize("policy", ["samurai", "selection"])
@given(
    clip=clips(),
    prompts=st.sets(st.integers(0, 59), max_size=8),
    corrections=st.sets(st.integers(0, 59), max_size=5),
    skipped=st.sets(st.integers(0, 59), max_size=5),
    limit=st.integers(1, 3),
)
@settings(max_examples=40, deadline=None)
def test_prompts_corrections_and_gaps_anywhere_are_passed_over_alike(
    policy: str, clip: list[Frame], prompts: set[int], corrections: set[int], skipped: set[int], limit: int
) -> None:
    """SAMURAI's own code raises KeyError here; its walk is taken to pass over such frames, as SAM 3's does.

    A correction writes its frame a second time, prompted.
    """
    bank, pointers = BoundedBank.empty(policy, limit), BoundedBank.empty("selection", limit, POINTERS)
    history: list[Frame | None] = []
    for t, frame in enumerate(clip):
        if t in skipped:
            history.append(None)
            continue
        assert bank.attended(t) == (numpy_reference.attended(t, history, policy) if t else [])
        assert pointers.pointers(t, POINTERS) == numpy_reference.pointers(t, history, POINTERS)
        prompted = [i for i, one in enumerate(history) if one is not None and one.conditioning]
        closest = closest_conditioning_frames(t, prompted, limit)
        assert set(bank.frames[bank.selection(t).conditioning].tolist()) == set(closest)
        for flag in [False, True] if t in corrections else [t in prompts or frame.conditioning]:
            written = replace(frame, conditioning=flag)
            bank.add(t, written)
            pointers.add(t, written)
        history.append(written)


def test_frame_one_is_samurais_memory_at_frame_two_alone() -> None:
    good = Frame(0.9, 2.0, 0.8)
    for policy, at_three in (("samurai", [(2, 6)]), ("selection", [(1, 5), (2, 6)])):
        bank = BoundedBank.empty(policy)
        for t, frame in enumerate([Frame(0.9, 2.0, conditioning=True), good, good]):
            bank.add(t, frame)
            assert bank.attended(t + 1) == [[], [(1, 6)], at_three][t]


def test_a_rejected_frame_is_attended_once_and_then_gives_way() -> None:
    good, bad = Frame(0.9, 2.0, 0.8), Frame(0.1, 2.0, 0.8)
    bank = BoundedBank.empty("samurai")
    for t, frame in enumerate([Frame(0.9, 2.0, conditioning=True), *[good] * 9, bad, bad, good]):
        bank.add(t, frame)
        if t == 10:
            assert bank.attended(11) == [(5, 1), (6, 2), (7, 3), (8, 4), (9, 5), (10, 6)]
    assert bank.attended(13) == [(5, 1), (6, 2), (7, 3), (8, 4), (9, 5), (12, 6)]
    assert set(bank.frames[0].tolist()) == {0, 5, 6, 7, 8, 9, 12}


# The other laws of the bank


@st.composite
def banks(draw: st.DrawFn) -> list[tuple[int, bool, bool]]:
    """(frame, conditioning, accepted) of slots in any order, some empty with any flags."""
    frames = draw(st.lists(st.integers(0, 20), max_size=9, unique=True)) + [-1] * draw(st.integers(1, 3))
    return [(frame, draw(st.booleans()), draw(st.booleans())) for frame in draw(st.permutations(frames))]


def tensors(*rows: Sequence[tuple[int, bool, bool]]) -> tuple[Tensor, Tensor, Tensor]:
    values = torch.tensor([[[int(one) for one in slot] for slot in row] for row in rows], dtype=torch.int32)
    return values[..., 0], values[..., 1] > 0, values[..., 2] > 0


@given(t=st.integers(0, 22), slots=banks(), limit=st.integers(1, 3), data=st.data())
@settings(max_examples=60, deadline=None)
def test_frames_rule_not_slots_and_what_an_empty_slot_says_is_of_no_account(
    t: int, slots: list[tuple[int, bool, bool]], limit: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(slots))))
    permuted = [slots[i] for i in order]
    cleared = [slot if slot[0] >= 0 else (-1, False, False) for slot in permuted]
    for select, window in ((select_accepted_slots, WINDOW), (select_accepted_pointers, POINTERS - 1)):
        first = select(scalar(t), *tensors(slots), limit, window, 2)
        other = select(scalar(t), *tensors(cleared), limit, window, 2)
        assert not (first.conditioning & first.recent).any()
        assert not first.distance[~first.valid].any()
        assert first.distance.dtype == torch.int32
        for name in ("conditioning", "recent", "distance"):
            assert torch.equal(getattr(other, name), getattr(first, name)[:, order])


def test_objects_choose_each_alone() -> None:
    """Accepted frames 3, 5; 4 and 5; none: at 7, with 6 in each bank."""
    yes, no = True, False
    rows = [
        [(3, no, a), (4, no, b), (5, no, c), (6, no, no)] for a, b, c in [(yes, no, yes), (no, yes, yes), (no, no, no)]
    ]
    selection = select_accepted_slots(scalar(7), *tensors(*rows), 1, WINDOW, 2)
    assert selection.distance.tolist() == [[3, 0, 2, 1], [0, 3, 2, 1], [0, 0, 0, 1]]
    written = accepted_slot_to_write(scalar(7), *tensors(*rows), torch.tensor([False] * 3), 1, 3, 2)
    assert written.int().argmax(1).tolist() == [1, 0, 0]


class Remember(nn.Module):
    """All of it for two objects, one policy a row of results."""

    def forward(
        self,
        frame_index: Tensor,
        frames: Tensor,
        conditioning: Tensor,
        iou: Tensor,
        object_score: Tensor,
        motion_score: Tensor,
        motion_score_valid: Tensor,
        is_conditioning: Tensor,
        pointers: Tensor,
    ) -> tuple[Tensor, ...]:
        good = accepted_by_motion(iou, object_score, motion_score, motion_score_valid, MotionMemorySpec())
        other = accepted_by_score(iou, object_score, SCORE_THRESHOLD)
        one = select_accepted_slots(frame_index, frames, conditioning, good, 1, WINDOW, 2)
        two = select_accepted_pointers(frame_index, frames, conditioning, other, 1, pointers, 1)
        slot = accepted_slot_to_write(frame_index, frames, conditioning, good, is_conditioning, 1, WINDOW, 2)
        return good, other, one.valid, one.recent, one.distance, two.valid, two.recent, two.distance, slot


def test_the_graph_equals_the_module() -> None:
    random = torch.Generator().manual_seed(3)
    names = [f"output_{i}" for i in range(9)]
    session = None
    for t in (0, 3, 9, 12):
        frames = torch.stack([torch.randperm(12, generator=random)[:7] for _ in range(2)]).to(torch.int32)
        ports = {
            "frame_index": scalar(t),
            "frames": torch.where(frames < 9, frames, -1),
            "conditioning": torch.rand(2, 7, generator=random) < 0.3,
            "iou": torch.rand(2, 7, generator=random),
            "object_score": torch.randn(2, 7, generator=random),
            "motion_score": torch.rand(2, 7, generator=random) - 0.3,
            "motion_score_valid": torch.rand(2, 7, generator=random) < 0.5,
            "is_conditioning": torch.tensor([True, False]),
            "pointers": scalar(5),
        }
        if session is None:
            component = Component("remember", Remember().eval(), ports, tuple(names))
            session = GraphSession(trace(component).model, threads=1)
        found = session.run({name: port.numpy() for name, port in ports.items()})
        for name, value in zip(names, Remember()(**ports), strict=True):
            assert found[name].dtype == value.numpy().dtype
            np.testing.assert_array_equal(found[name], value.numpy())
