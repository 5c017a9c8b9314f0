"""The policy `recent` against plain Python, and the law of the bounded bank: it selects what unbounded dictionaries
would."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from samonnx.models.memory_policy import SlotSelection, select_slots, slot_to_write
from samonnx.models.reference_tracker import closest_conditioning_frames

Slots = list[tuple[int, bool]]
"""Frame (-1: empty) and flag "conditioning frame" of each slot."""


@st.composite
def banks(draw: st.DrawFn, min_slots: int = 1) -> Slots:
    """Different frames in any order, some slots empty (with any flag)."""
    frames = draw(st.lists(st.integers(0, 24), min_size=0, max_size=8, unique=True))
    empty = draw(st.integers(max(0, min_slots - len(frames)), 4))
    order = draw(st.permutations(frames + [-1] * empty))
    return [(frame, draw(st.booleans())) for frame in order]


def tensors(*rows: Slots) -> tuple[Tensor, Tensor]:
    """frames i32 [O, N], conditioning bool [O, N]."""
    frames = torch.tensor([[frame for frame, _ in row] for row in rows], dtype=torch.int32)
    return frames, torch.tensor([[flag for _, flag in row] for row in rows])


def scalar(value: int) -> Tensor:
    return torch.tensor(value, dtype=torch.int32)


def selected(selection: SlotSelection, row: int = 0) -> tuple[set[int], set[int]]:
    """Places of the conditioning and of the recent slots."""
    conditioning, recent = selection.conditioning[row], selection.recent[row]
    return set(conditioning.nonzero().flatten().tolist()), set(recent.nonzero().flatten().tolist())


def plainly_selected(frame: int, slots: Slots, limit: int, window: int) -> tuple[set[int], set[int]]:
    prompted = [t for t, flag in slots if flag and t >= 0]
    closest = set(closest_conditioning_frames(frame, prompted, limit))
    chosen = {i for i, (t, _) in enumerate(slots) if t in closest}
    recent = {i for i, (t, _) in enumerate(slots) if t >= 0 and i not in chosen and frame - window <= t < frame}
    return chosen, recent


FRAMES, LIMITS, WINDOWS = st.integers(0, 26), st.integers(1, 5), st.integers(0, 8)


@given(frame=FRAMES, slots=banks(), limit=LIMITS, window=WINDOWS)
@settings(max_examples=200, deadline=None)
def test_it_selects_the_closest_conditioning_frames_and_the_recent_ones(
    frame: int, slots: Slots, limit: int, window: int
) -> None:
    selection = select_slots(scalar(frame), *tensors(slots), limit, window)
    assert selected(selection) == plainly_selected(frame, slots, limit, window)
    as_tensor = select_slots(scalar(frame), *tensors(slots), limit, scalar(window))
    assert torch.equal(as_tensor.valid, selection.valid)


@given(frame=FRAMES, slots=banks(), limit=LIMITS, window=WINDOWS)
@settings(deadline=None)
def test_conditioning_and_recent_slots_are_disjoint_and_their_distances_are_frames_back(
    frame: int, slots: Slots, limit: int, window: int
) -> None:
    selection = select_slots(scalar(frame), *tensors(slots), limit, window)
    assert not (selection.conditioning & selection.recent).any()
    assert torch.equal(selection.valid, selection.conditioning | selection.recent)
    expected = [frame - t if valid else 0 for (t, _), valid in zip(slots, selection.valid[0].tolist(), strict=True)]
    assert selection.distance.tolist() == [expected]
    assert selection.distance.dtype == torch.int32


@given(frame=FRAMES, slots=banks(), limit=LIMITS, window=WINDOWS, more=st.integers(1, 3), flag=st.booleans())
@settings(deadline=None)
def test_empty_slots_are_never_selected_and_adding_some_changes_nothing(
    frame: int, slots: Slots, limit: int, window: int, more: int, flag: bool
) -> None:
    empty = [i for i, (t, _) in enumerate(slots) if t < 0]
    selection = select_slots(scalar(frame), *tensors(slots), limit, window)
    assert not selection.valid[0, empty].any()
    padded = select_slots(scalar(frame), *tensors(slots + [(-1, flag)] * more), limit, window)
    assert torch.equal(padded.valid[:, : len(slots)], selection.valid)
    assert not padded.valid[:, len(slots) :].any()


@given(frame=FRAMES, slots=banks(), limit=LIMITS, window=WINDOWS, data=st.data())
@settings(deadline=None)
def test_a_permutation_of_the_slots_permutes_the_selection(
    frame: int, slots: Slots, limit: int, window: int, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(slots))))
    selection = select_slots(scalar(frame), *tensors(slots), limit, window)
    permuted = select_slots(scalar(frame), *tensors([slots[i] for i in order]), limit, window)
    for name in ("conditioning", "recent", "distance"):
        assert torch.equal(getattr(permuted, name), getattr(selection, name)[:, order])


@given(frame=FRAMES, one=banks(), other=banks(), limit=LIMITS, window=WINDOWS)
@settings(deadline=None)
def test_objects_are_selected_for_each_alone(frame: int, one: Slots, other: Slots, limit: int, window: int) -> None:
    length = max(len(one), len(other))
    rows = [row + [(-1, True)] * (length - len(row)) for row in (one, other)]
    together = select_slots(scalar(frame), *tensors(*rows), limit, window)
    for index, row in enumerate(rows):
        assert selected(together, index) == plainly_selected(frame, row, limit, window)


@pytest.mark.parametrize(
    ("slots", "limit", "chosen"),
    [
        ([(2, True), (7, True), (14, True), (11, True)], 1, {7}),  # the nearest before comes first
        ([(2, True), (7, True), (14, True), (11, True)], 2, {7, 11}),  # then the nearest at or after
        ([(2, True), (7, True), (14, True), (11, True)], 3, {7, 11, 14}),  # then by distance
        ([(1, True), (9, True), (19, True), (11, True)], 3, {9, 11, 1}),  # the earlier one on ties
        ([(10, True), (12, True), (3, True)], 2, {3, 10}),  # this frame itself counts as after
        ([(2, False), (12, True)], 4, {12}),  # a conditioning frame that is still to come
    ],
)
def test_the_order_of_conditioning_frames_by_hand(slots: Slots, limit: int, chosen: set[int]) -> None:
    selection = select_slots(scalar(10), *tensors(slots), limit, 0)
    assert {slots[i][0] for i in selected(selection)[0]} == chosen


def test_a_conditioning_frame_left_out_of_the_closest_counts_as_a_recent_one() -> None:
    slots = [(8, True), (9, True), (7, False)]
    selection = select_slots(scalar(10), *tensors(slots), 1, 3)
    assert selected(selection) == ({1}, {0, 2})


def test_this_frame_and_later_ones_are_not_recent() -> None:
    selection = select_slots(scalar(10), *tensors([(10, False), (11, False), (9, False)]), 1, 6)
    assert selected(selection) == (set(), {2})


# Writing


def written(frame: int, slots: Slots, prompted: bool, limit: int) -> int:
    chosen = slot_to_write(scalar(frame), *tensors(slots), torch.tensor([prompted]), limit)
    assert chosen.dtype == torch.bool
    (place,) = chosen[0].nonzero().flatten().tolist()
    return int(place)


@given(frame=FRAMES, slots=banks(), prompted=st.booleans(), limit=LIMITS)
@settings(max_examples=200, deadline=None)
def test_exactly_one_slot_is_written_the_same_frames_first_then_an_empty_one(
    frame: int, slots: Slots, prompted: bool, limit: int
) -> None:
    place = written(frame, slots, prompted, limit)
    frames = [t for t, _ in slots]
    if frame in frames:
        assert frames[place] == frame
    elif -1 in frames:
        assert frames[place] == -1


def kept_frames(frame: int, slots: Slots, prompted: bool, limit: int) -> set[int]:
    """Conditioning frames that must stay: the closest, this one counted if it is one."""
    others = [t for t, flag in slots if flag and t >= 0 and t != frame]
    return set(closest_conditioning_frames(frame, others, limit - prompted)) if limit - prompted else set()


@given(frame=st.integers(0, 26), slots=banks(), prompted=st.booleans(), limit=LIMITS)
@settings(max_examples=200, deadline=None)
def test_a_full_bank_loses_its_farthest_frame_that_is_not_a_kept_conditioning_frame(
    frame: int, slots: Slots, prompted: bool, limit: int
) -> None:
    slots = [(t, flag) for t, flag in slots if t not in (-1, frame)]
    kept = kept_frames(frame, slots, prompted, limit)
    losable = [t for t, _ in slots if t not in kept]
    if not losable:
        return
    lost = slots[written(frame, slots, prompted, limit)][0]
    assert lost not in kept
    # a frame still to come is farther than any that has passed: those are what a later frame attends
    assert lost == max(losable, key=lambda t: (t > frame, abs(frame - t)))


def test_rows_take_each_their_own_slot() -> None:
    rows: tuple[Slots, Slots, Slots] = (
        [(3, False), (4, False), (5, False)],
        [(3, True), (-1, False), (5, False)],
        [(3, True), (4, False), (5, False)],
    )
    chosen = slot_to_write(scalar(6), *tensors(*rows), torch.tensor([False, False, False]), 1)
    assert chosen.int().argmax(1).tolist() == [0, 1, 1]
    assert chosen.sum(1).tolist() == [1, 1, 1]


# The law of the bounded bank


@dataclass
class Dictionaries:
    """The original's memory: frame indices alone, without bound."""

    conditioning: set[int] = field(default_factory=set)
    others: set[int] = field(default_factory=set)

    def chosen(self, frame: int, limit: int, window: int) -> tuple[set[int], set[int]]:
        closest = set(closest_conditioning_frames(frame, sorted(self.conditioning), limit))
        available = self.others | (self.conditioning - closest)
        return closest, {t for t in range(frame - window, frame) if t in available}

    def add(self, frame: int, prompted: bool) -> None:
        self.conditioning.discard(frame)
        self.others.discard(frame)
        (self.conditioning if prompted else self.others).add(frame)


@dataclass
class BoundedBank:
    """As `WriteBank` and `ReadBank` keep it, frame indices and flags alone."""

    frames: Tensor
    flags: Tensor
    limit: int

    @classmethod
    def empty(cls, capacity: int, limit: int) -> BoundedBank:
        return cls(torch.full((1, capacity), -1, dtype=torch.int32), torch.zeros(1, capacity, dtype=torch.bool), limit)

    def chosen(self, frame: int, window: int) -> tuple[set[int], set[int]]:
        selection = select_slots(scalar(frame), self.frames, self.flags, self.limit, window)
        conditioning, recent = (self.frames[part].tolist() for part in (selection.conditioning, selection.recent))
        assert len(conditioning) == len(set(conditioning))
        return set(conditioning), set(recent)

    def add(self, frame: int, prompted: bool) -> None:
        flag = torch.tensor([prompted])
        slot = slot_to_write(scalar(frame), self.frames, self.flags, flag, self.limit)
        self.frames = torch.where(slot, scalar(frame), self.frames)
        self.flags = torch.where(slot, flag[:, None], self.flags)


@given(
    start=st.integers(0, 5),
    prompts=st.lists(st.sampled_from(["none"] * 5 + ["prompt", "correction"]), min_size=29, max_size=29),
    skipped=st.sets(st.integers(1, 29), max_size=6),
    limit=st.integers(1, 4),
    window=st.integers(1, 7),
)
@settings(max_examples=60, deadline=None)
def test_a_bounded_bank_visited_in_order_selects_what_unbounded_dictionaries_select(
    start: int, prompts: list[str], skipped: set[int], limit: int, window: int
) -> None:
    """For memory maps `window` is recent_slots, for pointers pointer_slots - 1; the capacity is limit + window in both.

    A correction tracks the frame, and writes it a second time with its prompt.
    """
    bank, dictionaries = BoundedBank.empty(limit + window, limit), Dictionaries()
    for step, event in enumerate(["prompt", *prompts]):
        frame = start + step
        if step in skipped:
            continue
        assert bank.chosen(frame, window) == dictionaries.chosen(frame, limit, window)
        for prompted in {"none": [False], "prompt": [True], "correction": [False, True]}[event]:
            bank.add(frame, prompted)
            dictionaries.add(frame, prompted)


@given(
    prompts=st.lists(st.sampled_from([False] * 4 + [True]), min_size=24, max_size=24),
    limit=st.integers(1, 3),
    memory_window=st.integers(1, 4),
    pointer_window=st.integers(1, 9),
    shorter=st.integers(0, 8),
)
@settings(max_examples=25, deadline=None)
def test_pointers_of_a_short_clip_reach_less_far_back_from_the_same_bank(
    prompts: list[bool], limit: int, memory_window: int, pointer_window: int, shorter: int
) -> None:
    memory = BoundedBank.empty(limit + memory_window, limit)
    pointers = BoundedBank.empty(limit + pointer_window, limit)
    dictionaries = Dictionaries()
    window = max(pointer_window - shorter, 0)
    for frame, prompted in enumerate([True, *prompts]):
        assert memory.chosen(frame, memory_window) == dictionaries.chosen(frame, limit, memory_window)
        assert pointers.chosen(frame, window) == dictionaries.chosen(frame, limit, window)
        for bank in (memory, pointers, dictionaries):
            bank.add(frame, prompted)
