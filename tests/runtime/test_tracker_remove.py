"""Objects come and go mid-clip: each is tracked as it would be alone, for as long as it is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.bank import Bank
from samonnx.runtime.prompts import Box, MaskPrompt, Points, Prompts
from samonnx.runtime.tracker import FrameResult, Tracker, TrackerError
from tests.runtime.hand_made_artifact import clip
from tests.runtime.test_tracker import assert_equal

FRAMES = 7


def click(x: float, y: float, label: int = 1) -> Prompts:
    return Prompts(points=Points(((x, y),), (label,)))


def a_mask() -> Prompts:
    mask = np.zeros((30, 44), dtype=bool)
    mask[4:12, 4:20] = True
    return Prompts(mask=MaskPrompt(mask))


KINDS = (click(5, 6), Prompts(boxes=(Box(3, 3, 20, 20),)), a_mask(), click(30, 9, 0))


@pytest.fixture(params=["artifact", "single_artifact", "motion_artifact"])
def tracker(request: pytest.FixtureRequest) -> Tracker:
    """Two rows a graph; one; two, and a bank with more in it."""
    return Tracker(request.getfixturevalue(request.param))


def logits_of(results: list[FrameResult], number: int) -> dict[int, np.ndarray]:
    """An object's logits by frame, of the frames on which it was there."""
    there = [result for result in results if number in result.objects]
    return {result.frame_index: result.low_res_logits[result.objects.index(number)] for result in there}


def assert_same_logits(found: dict[int, np.ndarray], expected: dict[int, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for frame, logits in found.items():
        np.testing.assert_array_equal(logits, expected[frame], err_msg=f"frame {frame}")


def test_the_others_go_on_as_if_nothing_had_happened(tracker: Tracker) -> None:
    prompts = {0: {1: KINDS[0], 2: KINDS[1]}, 1: {3: KINDS[2]}}
    whole = list(tracker.track(clip(FRAMES), prompts))
    tracker.reset()
    found = []
    for result in tracker.track(clip(FRAMES), prompts):
        found.append(result)
        if result.frame_index == 3:
            tracker.remove(2)
    assert [result.objects for result in found] == [(1, 2), *[(1, 2, 3)] * 3, *[(1, 3)] * 3]
    for number in (1, 3):
        assert_same_logits(logits_of(found, number), logits_of(whole, number))


def test_a_number_that_comes_again_starts_from_nothing(tracker: Tracker) -> None:
    late = {0: {1: KINDS[0]}, 5: {2: KINDS[1]}}
    expected = list(tracker.track(clip(FRAMES), late))
    tracker.reset()
    again = {0: {1: KINDS[0], 2: KINDS[2]}, 5: {2: KINDS[1]}}
    for result in tracker.track(clip(FRAMES), again):
        if result.frame_index == 3:
            tracker.remove(2)
        if result.frame_index >= 4:
            assert_equal(result, expected[result.frame_index])


def test_a_freed_row_is_empty_and_goes_to_the_next_object(tracker: Tracker) -> None:
    for t, frame in enumerate(clip(3)):
        tracker.step(frame, {1: KINDS[0], 2: KINDS[1]} if t in (0, 2) else None)
    group, row = tracker._seating.place(1)
    groups = len(tracker._seating.groups)
    tracker.remove(1)
    for bank in group._banks:  # the one before the last frame too: a correction of object 2 goes back to it
        for pair in tracker.manifest.bank:
            assert np.all(bank[pair.input].array[row] == pair.empty), pair.input
    assert np.all(group._inputs["point_labels"].array[row] == -1), "nor is the row prompted again by a correction"
    tracker.correct({3: KINDS[2]})
    assert len(tracker._seating.groups) == groups
    assert tracker.objects == (2, 3)


@pytest.mark.parametrize("again", [False, True])
def test_removing_and_correcting_on_one_frame_go_together(tracker: Tracker, again: bool) -> None:
    """The frame is run again for those that are left, and for the removed one's number as a new object."""
    corrected = {1: click(9, 9), 2: KINDS[1]} if again else {1: click(9, 9)}
    results = []
    for others in ({}, {2: KINDS[2]}):
        tracker.reset()
        tracker.step(clip(1)[0], {1: KINDS[0], **others})
        tracker.step(clip(2)[1], {number: click(5, 9) for number in others})
        for number in others:
            tracker.remove(number)
        results.append([tracker.correct(corrected), *(tracker.step(frame) for frame in clip(5)[2:])])
    for one, other in zip(*results, strict=True):
        assert_equal(one, other)


def test_a_removed_object_is_in_no_later_result_of_its_frame(tracker: Tracker) -> None:
    tracker.step(clip(1)[0], {1: KINDS[0], 2: KINDS[1]})
    tracker.remove(2)
    result = tracker.correct({1: KINDS[0]})
    assert (result.objects, result.prompted, len(result.masks)) == ((1,), (1,), 1)


def test_without_the_last_object_frames_are_empty_until_another_comes(tracker: Tracker) -> None:
    expected = list(tracker.track(clip(FRAMES), {4: {8: KINDS[1]}}))
    tracker.reset()
    for result in tracker.track(clip(FRAMES), {0: {1: KINDS[0]}, 4: {8: KINDS[1]}}):
        if result.frame_index == 1:
            tracker.remove(1)
            assert tracker.objects == ()
            assert tracker.bank().objects == ()
        if result.frame_index >= 2:
            assert_equal(result, expected[result.frame_index])


def test_a_saved_bank_holds_the_objects_that_are_left(tracker: Tracker, tmp_path: Path) -> None:
    prompts = {0: {1: KINDS[0], 2: KINDS[1], 3: KINDS[2]}, 5: {2: KINDS[3]}}
    found = []
    for result in tracker.track(clip(FRAMES), prompts):
        found.append(result)
        if result.frame_index == 2:
            tracker.remove(2)
            tracker.bank().save(tmp_path / "bank.npz")
    bank = Bank.load(tmp_path / "bank.npz", tracker.manifest)
    assert bank.objects == (1, 3)
    tracker.restore(bank)
    for one, other in zip(tracker.track(clip(FRAMES)[3:], prompts), found[3:], strict=True):
        assert_equal(one, other)
    tracker.restore(bank)
    tracker.remove(1)
    for frame, other in zip(clip(FRAMES)[3:5], found[3:], strict=False):
        np.testing.assert_array_equal(tracker.step(frame).low_res_logits[0], other.low_res_logits[1])


@pytest.mark.parametrize("fixture", ["artifact", "single_artifact"])
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_whoever_comes_and_goes_each_object_is_tracked_as_it_is_alone(
    data: st.DataObject, fixture: str, request: pytest.FixtureRequest
) -> None:
    spans: dict[int, tuple[int, int]] = {}
    for number in data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True)):
        first = data.draw(st.integers(0, FRAMES - 1))
        spans[number] = first, data.draw(st.integers(first + 1, FRAMES))
    kinds = {number: KINDS[number % len(KINDS)] for number in spans}
    tracker = Tracker(request.getfixturevalue(fixture), keep_sessions=True)

    def run(chosen: dict[int, tuple[int, int]]) -> list[FrameResult]:
        tracker.reset()
        results = []
        for t, frame in enumerate(clip(FRAMES)):
            for number, (_, last) in chosen.items():
                if t == last:
                    tracker.remove(number)
            results.append(tracker.step(frame, {n: kinds[n] for n, (first, _) in chosen.items() if t == first}))
        return results

    together = run(spans)
    for number, span in spans.items():
        alone = run({number: span})
        assert_same_logits(logits_of(together, number), logits_of(alone, number))
        assert list(logits_of(together, number)) == list(range(*span))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((), "object 7 cannot be removed, as it is not tracked; tracked objects: none"),
        ((4, 2), "object 7 cannot be removed, as it is not tracked; tracked objects: 4, 2"),
    ],
)
def test_removing_what_is_not_tracked_lists_what_is(artifact: Path, numbers: tuple[int, ...], message: str) -> None:
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {number: click(5, 6) for number in numbers})
    with pytest.raises(TrackerError) as caught:
        tracker.remove(7)
    assert str(caught.value) == message
    assert tracker.objects == numbers
