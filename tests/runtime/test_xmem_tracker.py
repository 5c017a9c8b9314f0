from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.prompts import Prompts
from samonnx.runtime.tracker import TrackerError
from samonnx.runtime.xmem_prompts import GivenObject
from samonnx.runtime.xmem_result import XMemResult
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_xmem import build
from tests.runtime.xmem_by_hand import ByHand, box_mask, by_mask, click

LATER = {0: {1: by_mask(5, 5, 12, 15)}, 5: {2: by_mask(2, 25, 10, 12)}, 9: {1: by_mask(8, 8, 10, 10)}}
"""Object 1 at frame 0, and given once more at 9; object 2 joins at 5."""


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build(folder)
    return folder


def same(found: XMemResult, expected: XMemResult) -> None:
    assert (found.frame_index, found.objects, found.prompted) == (
        expected.frame_index,
        expected.objects,
        expected.prompted,
    )
    for name in ("masks", "probabilities", "scores", "boxes"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_the_tracker_gives_what_a_loop_over_track_and_consolidate_gives(artifact: Path) -> None:
    """Over several consolidations, an object that joins later and a mask given again."""
    tracker, by_hand = XMemTracker(artifact), ByHand(artifact)
    consolidated = 0
    for index, frame in enumerate(clip(40)):
        given = LATER.get(index, {})
        result = tracker.step(frame, given)
        masks = {number - 1: prompt.mask.mask for number, prompt in given.items() if prompt.mask is not None}
        before = int(by_hand.bank["bank.long_count"])
        expected = by_hand.step(frame, masks)
        consolidated += int(by_hand.bank["bank.long_count"]) > before
        np.testing.assert_array_equal(result.probabilities, expected[: 1 + len(tracker.objects)])
        assert result.objects == ((1,) if index < 5 else (1, 2))
        assert result.prompted == tuple(given)
    assert consolidated == 3  # the long-term memory is full then
    assert by_hand.bank["bank.working_frame"].min() == -1  # or the two would not be at the same point
    bank = tracker.bank()
    for name, expected_tensor in by_hand.bank.items():
        np.testing.assert_array_equal(bank.tensors[name], expected_tensor, err_msg=name)


def test_a_bank_restored_elsewhere_goes_on_as_if_nothing_had_happened(artifact: Path) -> None:
    frames = clip(24)
    whole = list(XMemTracker(artifact).track(frames, LATER))
    for at in (1, 6, 7, 8, 15):  # among them one with a full working memory
        first, second = XMemTracker(artifact), XMemTracker(artifact)
        for _ in first.track(frames[:at], {f: p for f, p in LATER.items() if f < at}):
            pass
        second.restore(first.bank())
        assert (second.next_frame, second.objects) == (at, whole[at - 1].objects)
        rest = {f: p for f, p in LATER.items() if f >= at}
        for found, expected in zip(second.track(frames[at:], rest), whole[at:], strict=True):
            same(found, expected)


def test_a_bank_is_a_copy(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    frames = clip(4)
    tracker.step(frames[0], LATER[0])
    bank = tracker.bank()
    kept = {name: tensor.copy() for name, tensor in bank.tensors.items()}
    for frame in frames[1:]:
        tracker.step(frame)
    for name, tensor in bank.tensors.items():
        np.testing.assert_array_equal(tensor, kept[name], err_msg=name)


def test_frames_before_the_first_object_pass_without_a_call_and_change_nothing(artifact: Path) -> None:
    tracker, by_hand = XMemTracker(artifact), ByHand(artifact)
    frames = clip(6)
    for frame in frames[:4]:
        result = tracker.step(frame)
        by_hand.step(frame, {})
        assert result.masks.shape == (0, 30, 44)
        assert tracker.open_programs == ()
    result, expected = tracker.step(frames[4], LATER[0]), by_hand.step(frames[4], {0: box_mask(5, 5, 12, 15)})
    np.testing.assert_array_equal(result.probabilities, expected[:2])
    for name, tensor in tracker.bank().tensors.items():
        np.testing.assert_array_equal(tensor, by_hand.bank[name], err_msg=name)


def test_a_click_is_the_mask_that_sam_finds_given_to_track(artifact: Path) -> None:
    """On the first frame, and for an object that joins later."""
    frames = clip(8)
    clicked, painted = XMemTracker(artifact, keep_sessions=True), XMemTracker(artifact)
    prompts = {0: {4: click(20, 12)}, 5: {2: click(9, 20)}}
    for index, frame in enumerate(frames):
        given = prompts.get(index, {})
        found = clicked.step(frame, given)
        masks = {}
        for number in given:
            row = found.objects.index(number) + 1
            network = found.probabilities[row] > 0.5  # a given mask comes out as it went in
            masks[number] = network
        expected = painted.step(frame, {}) if not masks else _step_with_network_masks(painted, frame, masks)
        np.testing.assert_array_equal(found.probabilities, expected.probabilities)
        assert tuple(found.prompt_ious) == tuple(given)
    assert found.objects == (4, 2)


def _step_with_network_masks(tracker: XMemTracker, frame: np.ndarray, masks: dict[int, np.ndarray]) -> XMemResult:
    """Masks at the size of the network's frame, put in behind the resizing."""
    given = {number: GivenObject(mask=mask.astype(np.float32)) for number, mask in masks.items()}
    return tracker._run(frame, given)


def test_a_click_and_a_mask_on_one_frame_are_both_given(artifact: Path) -> None:
    frame = clip(1)[0]
    both = XMemTracker(artifact).step(frame, {1: by_mask(5, 5, 12, 15), 2: click(30, 20)})
    alone = XMemTracker(artifact).step(frame, {2: click(30, 20)})
    assert both.prompted == both.objects == (1, 2)
    assert tuple(both.prompt_ious) == (2,)
    disjoint = both.probabilities[1] < 0.5
    np.testing.assert_array_equal(both.probabilities[2][disjoint] > 0.5, (alone.probabilities[1] > 0.5)[disjoint])
    assert both.masks[0].any()
    assert both.masks[1].any()


def test_the_session_of_start_is_closed_on_the_next_frame_unless_it_is_kept(artifact: Path) -> None:
    for keep in (False, True):
        tracker = XMemTracker(artifact, keep_sessions=keep)
        tracker.step(clip(1)[0], {1: click(20, 12)})
        sessions = weakref.ref(tracker._sessions._sessions["start"])
        assert tracker.open_programs == ("start",)
        tracker.step(clip(2)[1])
        assert ("start" in tracker.open_programs) == keep
        assert (sessions() is not None) == keep


def test_a_correction_is_the_frame_with_the_new_prompt_from_the_bank_before_it(artifact: Path) -> None:
    frames = clip(12)
    for at in (0, 3, 6, 8, 9):  # first frame; plain; memory; after a consolidation; with a prompt of its own
        corrected, straight = XMemTracker(artifact), XMemTracker(artifact)
        for index, frame in enumerate(frames):
            given = LATER.get(index, {})
            found = corrected.step(frame, given)
            if index == at:
                corrected.correct({1: by_mask(0, 0, 5, 5)})
                found = corrected.correct({1: by_mask(3, 4, 14, 18)})
                given = given | {1: by_mask(3, 4, 14, 18)}
            same(found, straight.step(frame, given))


def test_a_correction_may_add_an_object_even_the_first_one(artifact: Path) -> None:
    frames = clip(5)
    corrected, straight = XMemTracker(artifact), XMemTracker(artifact)
    for index, frame in enumerate(frames):
        corrected.step(frame)
        given: dict[int, Prompts] = {1: {3: by_mask(5, 5, 12, 15)}, 3: {1: click(30, 20)}}.get(index, {})
        found = corrected.correct(given)
        same(found, straight.step(frame, given))
    assert found.objects == (3, 1)


def test_no_correction_without_a_frame(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    with pytest.raises(TrackerError, match="there is no frame to correct: step a frame first"):
        tracker.correct({1: by_mask(5, 5, 12, 15)})
    tracker.step(clip(1)[0], LATER[0])
    tracker.restore(tracker.bank())
    with pytest.raises(TrackerError, match="a saved bank does not hold one"):
        tracker.correct({1: by_mask(5, 5, 12, 15)})


def test_reset_starts_another_clip_of_another_size(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    for _ in tracker.track(clip(10), LATER):
        pass
    tracker.reset()
    assert (tracker.next_frame, tracker.objects) == (0, ())
    again, fresh = (list(one.track(clip(5, 20, 20), {0: {1: click(8, 8)}})) for one in (tracker, XMemTracker(artifact)))
    for found, expected in zip(again, fresh, strict=True):
        same(found, expected)
    assert again[0].masks.shape == (1, 20, 20)


def test_a_thousand_frames_keep_to_their_buffers(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    frames = clip(10)
    tracker.step(frames[0], LATER[0])
    for index in range(1, 40):
        tracker.step(frames[index % 10])
    places = {name: [b.array.ctypes.data for b in both] for name, both in tracker._memory._buffers.items()}
    for index in range(40, 1000):
        result = tracker.step(frames[index % 10])
    assert places == {name: [b.array.ctypes.data for b in both] for name, both in tracker._memory._buffers.items()}
    assert np.isfinite(result.probabilities).all()
    assert tracker.next_frame == 1000
