from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.tracker import TrackerError
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_xmem import build
from tests.runtime.test_xmem_tracker import same
from tests.runtime.xmem_by_hand import by_mask


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build(folder)
    return folder


FRAMES = clip(30)
TWO = {0: {1: by_mask(5, 5, 12, 15)}, 4: {2: by_mask(2, 25, 10, 12)}}


def tracked_to(artifact: Path, frames: int) -> XMemTracker:
    tracker = XMemTracker(artifact)
    for _ in tracker.track(FRAMES[:frames], {f: p for f, p in TWO.items() if f < frames}):
        pass
    return tracker


def test_an_object_that_stays_reads_what_it_would_have_read_and_has_the_pixels_of_the_other(artifact: Path) -> None:
    """Its own probability before aggregation is a function of its row alone."""
    for at in (6, 9, 13):
        before, after = tracked_to(artifact, at), tracked_to(artifact, at)
        after.remove(1)
        with_both, alone = before.step(FRAMES[at]), after.step(FRAMES[at])
        assert (with_both.objects, alone.objects) == ((1, 2), (2,))
        found, expected = (one.probabilities[-1] / one.probabilities[0] for one in (alone, with_both))
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # soft aggregation divides both by one sum
        assert (alone.probabilities[1] >= with_both.probabilities[2]).all()


def test_memory_that_the_others_cannot_read_makes_room(artifact: Path) -> None:
    tracker = tracked_to(artifact, 9)
    held = tracker.bank().tensors
    assert sorted(held["bank.working_frame"].tolist()) == [-1, 0, 6, 8]
    assert held["bank.long_frame"][:2].tolist() == [6, 6]  # the hand-made graph notes the latest frame
    tracker.remove(1)
    held = tracker.bank().tensors
    assert sorted(held["bank.working_frame"].tolist()) == [-1, -1, 6, 8]
    assert np.all(
        np.asarray(held["bank.long_use"], dtype=np.float32)[:2] > 0
    )  # object 2 has been there since frame 4, and reads these
    assert held["bank.object_since"].tolist() == [-1, 4]
    assert not held["bank.sensory"][0].any()


def test_long_term_elements_that_nobody_reads_any_more_lose_their_usage(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    for _ in tracker.track(FRAMES[:14], {0: TWO[0], 11: {2: by_mask(2, 25, 10, 12)}}):
        pass
    held = tracker.bank().tensors
    unread = np.asarray(held["bank.long_frame"], dtype=np.int32) < 11
    assert held["bank.long_use"][: int(held["bank.long_count"])].any()
    tracker.remove(1)
    assert not tracker.bank().tensors["bank.long_use"][unread].any()


def test_the_last_object_takes_all_memory_with_it(artifact: Path) -> None:
    """An object after it is as one in a fresh tracker that has passed over as many frames."""
    tracker, fresh = tracked_to(artifact, 11), XMemTracker(artifact)
    tracker.remove(2)
    tracker.remove(1)
    assert tracker.objects == ()
    for frame in FRAMES[:11]:
        fresh.step(frame)
    for index in range(11, 20):
        given = {12: {7: by_mask(4, 4, 9, 9)}}.get(index, {})
        same(tracker.step(FRAMES[index], given), fresh.step(FRAMES[index], given))


def test_a_number_may_come_again_for_an_object_that_starts_from_nothing(artifact: Path) -> None:
    again, other = tracked_to(artifact, 8), tracked_to(artifact, 8)
    again.remove(1)
    other.remove(1)
    again.step(FRAMES[8], {1: by_mask(10, 10, 8, 8)})
    other.step(FRAMES[8], {3: by_mask(10, 10, 8, 8)})
    for frame in FRAMES[9:16]:
        first, second = again.step(frame), other.step(frame)
        assert (first.objects, second.objects) == ((2, 1), (2, 3))  # in the order in which they came
        np.testing.assert_array_equal(first.probabilities, second.probabilities)


def test_a_correction_after_a_removal_leaves_the_removed_one_out(artifact: Path) -> None:
    tracker, straight = tracked_to(artifact, 9), tracked_to(artifact, 8)
    tracker.remove(1)
    straight.remove(1)
    same(tracker.correct({2: by_mask(3, 3, 9, 9)}), straight.step(FRAMES[8], {2: by_mask(3, 3, 9, 9)}))
    same(tracker.step(FRAMES[9]), straight.step(FRAMES[9]))


def test_an_object_that_is_not_there_cannot_be_removed(artifact: Path) -> None:
    tracker = tracked_to(artifact, 5)
    with pytest.raises(TrackerError, match="object 3 cannot be removed, as it is not tracked; tracked objects: 1, 2"):
        tracker.remove(3)
