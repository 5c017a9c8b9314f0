from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from samonnx.runtime.manifest import Manifest
from samonnx.runtime.preprocessing import FrameError
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.runtime.xmem_prompts import given_object, nearest_mask
from samonnx.runtime.xmem_tracker import XMemTracker
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_xmem import build
from tests.runtime.test_xmem_tracker import same
from tests.runtime.xmem_by_hand import by_mask, click


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact") / "sam_xmem"
    build(folder)
    return folder


@pytest.fixture(scope="module")
def plain_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XMem without SAM."""
    folder = tmp_path_factory.mktemp("artifact") / "xmem"
    build(folder, start=False)
    return folder


@given(old=st.tuples(st.integers(1, 40), st.integers(1, 40)), new=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(deadline=None)
def test_a_mask_is_resized_as_the_original_does_it(old: tuple[int, int], new: tuple[int, int]) -> None:
    mask = np.random.default_rng(0).random(old) > 0.5
    expected = F.interpolate(torch.from_numpy(mask)[None, None].float(), new, mode="nearest")[0, 0]
    np.testing.assert_array_equal(nearest_mask(mask, *new), expected.numpy() > 0)


def test_points_are_scaled_to_the_part_of_sams_frame_that_the_picture_fills(artifact: Path) -> None:
    """48 x 64 of 64 x 64 pixels, whatever the video's proportions; empty places are labelled -1, never 0."""
    prompts = Prompts(points=Points(((22.0, 10.0),), (0,)), boxes=(Box(0, 0, 44, 30),))
    clicks = given_object(Manifest.load(artifact), 1, prompts, width=44, height=30).clicks
    assert clicks is not None
    np.testing.assert_allclose(clicks.coordinates, [[0, 0], [64, 48], [32, 16]])
    assert clicks.labels.tolist() == [2, 3, 0]
    one = given_object(Manifest.load(artifact), 1, click(11, 15), width=44, height=30).clicks
    assert one is not None
    np.testing.assert_allclose(one.coordinates[0], [16, 24])
    assert one.labels.tolist() == [1, -1, -1]


WRONG: Mapping[str, tuple[dict[int, Prompts], str]] = {
    "words": ({1: Prompts(text="a dog")}, "object 1: words need a detector, .* give a click, a box or a mask"),
    "mask of another size": (
        {1: Prompts(mask=MaskPrompt(np.ones((31, 44), dtype=bool)))},
        "object 1: the mask is 44 x 31 pixels, the frame 44 x 30; expected the same size",
    ),
    "empty mask": (
        {1: Prompts(mask=MaskPrompt(np.zeros((30, 44), dtype=bool)))},
        "object 1: the mask prompt is empty: no pixel of it belongs to the object",
    ),
    "mask that vanishes": (
        {1: by_mask(2, 3, 1, 1)},
        "object 1: the mask of 1 pixels vanishes in the network's frame of 32 x 24; give a larger one",
    ),
    "no positive point": (
        {1: Prompts(points=Points(((5.0, 5.0),), (0,)))},
        r"object 1: all its points have label 0 \(not on it\); give one with label 1 on the object, or a box",
    ),
    "outside": ({1: click(45, 3)}, r"object 1: point \(45, 3\) lies outside the frame, which is 44 x 30 pixels"),
    "too many points": (
        {1: click(1, 1, (2, 2, 1), (3, 3, 1), (4, 4, 0))},
        "object 1: 4 points on one object, but the graph has 3 prompt places. .* --set programs.start.points=4",
    ),
    "too many objects": (
        {1: by_mask(0, 0, 9, 9), 5: click(9, 9), 6: by_mask(9, 9, 9, 9)},
        "object 6 is one too many: the graph has 2 rows for objects .*--set programs.track.objects=3",
    ),
    "nothing found": (
        {1: click(20, 12, (21, 12, 1), (22, 12, 1))},
        "object 1: SAM found no pixel for its prompt; give other points, a box, or the mask itself",
    ),
    "mask beside a click": (
        {1: Prompts(mask=by_mask(0, 0, 9, 9).mask, points=Points(((5.0, 5.0),), (1,)))},
        "object 1: a mask prompt stands alone",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_prompts_say_what_is_wrong_and_cost_nothing(artifact: Path, case: str) -> None:
    prompts, message = WRONG[case]
    frames, tracker, straight = clip(7), XMemTracker(artifact), XMemTracker(artifact)
    for index, frame in enumerate(frames):
        if index in (0, 3):
            with pytest.raises(PromptError, match=message):
                tracker.step(frame, prompts)
        joins = {1: {1: click(12, 12)}}.get(index, {})
        found = tracker.step(frame, joins)
        if index == 5:
            with pytest.raises(PromptError, match=message):
                tracker.correct(prompts)
        same(found, straight.step(frame, joins))
    assert tracker.next_frame == 7


def test_a_row_that_is_taken_counts(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    tracker.step(clip(1)[0], {1: by_mask(0, 0, 9, 9)})
    message = r"object 4 is one too many: the graph has 2 rows for objects \(tracked: 1\). Remove one, or .*objects=3"
    with pytest.raises(PromptError, match=message):
        tracker.step(clip(1)[0], {3: by_mask(0, 0, 9, 9), 4: by_mask(9, 9, 9, 9)})


def test_a_click_without_sam_says_what_to_give_instead(plain_artifact: Path) -> None:
    tracker = XMemTracker(plain_artifact)
    for prompt, what in ((click(5, 5), "a click"), (Prompts(boxes=(Box(1, 1, 9, 9),)), "a box")):
        with pytest.raises(PromptError) as raised:
            tracker.step(clip(1)[0], {1: prompt})
        said = str(raised.value)
        assert f"object 1: {what} needs SAM to find the object" in said
        assert "--mask FILE" in said
        assert "recipes/sam_xmem.yaml" in said
    with pytest.raises(PromptError, match=r"words need a detector, .* give a mask \(--mask FILE\)"):
        tracker.check_prompts({1: Prompts(text="a dog")}, width=44, height=30)
    assert tracker.step(clip(1)[0], {1: by_mask(0, 0, 9, 9)}).objects == (1,)


def test_nothing_to_track_and_prompts_beyond_the_clip_are_said(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    with pytest.raises(PromptError, match="nothing to track: give box="):
        tracker.track(clip(2))
    with pytest.raises(PromptError, match="there is a prompt on frame 2, but the clip has 2 frames"):
        list(tracker.track(clip(2), {0: {1: click(5, 5)}, 2: {1: click(5, 5)}}))


def test_a_box_of_the_porting_guide_works_where_sam_is_there(artifact: Path, plain_artifact: Path) -> None:
    boxed = next(XMemTracker(artifact).track(clip(2), box=(4, 5, 12, 10)))
    prompted = XMemTracker(artifact).step(clip(2)[0], {1: Prompts(boxes=(Box(4, 5, 16, 15),))})
    same(boxed, prompted)
    with pytest.raises(PromptError, match="object 1: a box needs SAM"):
        next(XMemTracker(plain_artifact).track(clip(2), box=(4, 5, 12, 10)))


def test_a_frame_of_another_size_is_refused(artifact: Path) -> None:
    tracker = XMemTracker(artifact)
    tracker.step(clip(1)[0], {1: click(12, 12)})
    with pytest.raises(FrameError, match="frame 1 is 40 x 30 pixels, the frames before it 44 x 30"):
        tracker.step(clip(1, 30, 40)[0])
    assert tracker.step(clip(2)[1]).frame_index == 1
