"""`Tracker.track` takes files, folders and frames, a box or prompts; and an error in the middle loses nothing."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from samonnx.runtime.clip import prompts_of
from samonnx.runtime.mask_boxes import mask_boxes
from samonnx.runtime.preprocessing import FrameError
from samonnx.runtime.prompts import Box, Points, PromptError, Prompts
from samonnx.runtime.tracker import FrameResult, Tracker
from samonnx.runtime.video import VideoError, open_frames
from samonnx.runtime.video_writer import VideoWriter
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_both import build as build_both
from tests.runtime.test_tracker import assert_equal

BOX = (4, 5, 20, 15)
AROUND = Prompts(boxes=(Box(4, 5, 24, 20),))


def click(x: float, y: float, label: int = 1) -> Prompts:
    return Prompts(points=Points(((x, y),), (label,)))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven frames of 44 x 30 pixels."""
    path = tmp_path_factory.mktemp("video") / "clip.mp4"
    with VideoWriter(path, Fraction(25)) as writer:
        for frame in clip(7):
            writer.write(frame)
    return path


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five frames of 44 x 30 pixels."""
    folder = tmp_path_factory.mktemp("images")
    for index, frame in enumerate(clip(5)):
        Image.fromarray(frame).save(folder / f"{index}.png")
    return folder


def gather(results: Iterator[FrameResult], into: list[FrameResult]) -> None:
    """As `list` does, but what came before an error is kept."""
    into.extend(results)


def all_equal(found: list[FrameResult], expected: list[FrameResult]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize("source", ["video", "images"])
def test_a_path_says_how_frames_are_resized_and_how_many_there_are(
    source: str, artifact: Path, request: pytest.FixtureRequest
) -> None:
    path: Path = request.getfixturevalue(source)
    kind, frames = ("video", 7) if source == "video" else ("images", 5)
    tracker = Tracker(artifact)
    found = list(tracker.track(str(path), box=BOX))
    told = Tracker(artifact, kind=kind, num_frames=frames)
    all_equal(found, list(told.track(list(open_frames(path)), {0: {1: AROUND}})))
    assert (tracker.num_frames, tracker.next_frame) == (frames, frames)
    tracker.reset()
    all_equal(list(tracker.track(open_frames(path), box=BOX)), found)


def test_what_the_constructor_was_told_stands(artifact: Path, images: Path) -> None:
    frames = list(open_frames(images))
    told = list(Tracker(artifact, kind="video", num_frames=99).track(images, box=BOX))
    all_equal(told, list(Tracker(artifact, num_frames=99).track(frames, box=BOX)))
    followed = list(Tracker(artifact).track(images, box=BOX))
    assert not np.array_equal(told[-1].low_res_logits, followed[-1].low_res_logits)


def test_a_reset_forgets_the_clip_that_a_path_was(artifact: Path, images: Path) -> None:
    tracker = Tracker(artifact)
    list(tracker.track(images, box=BOX))
    tracker.reset()
    assert tracker.num_frames == 0
    all_equal(list(tracker.track(clip(3), box=BOX)), list(Tracker(artifact).track(clip(3), box=BOX)))


def test_the_detector_is_told_what_the_frames_are_too(tmp_path: Path, images: Path, video: Path) -> None:
    build_both(tmp_path / "both")
    prompts = {0: {1: Prompts(text="a dog")}}
    tracker = Tracker(tmp_path / "both")
    for path, kind in ((images, "images"), (video, "video"), (images, "images")):
        expected = Tracker(tmp_path / "both", kind=kind).track(open_frames(path), prompts)
        (search,) = next(tracker.track(path, prompts)).searches
        assert search.scores == next(expected).searches[0].scores
        tracker.reset()


def test_a_box_is_object_1_on_the_first_frame_beside_other_prompts(artifact: Path) -> None:
    others = {0: {2: click(30, 9)}, 2: {3: click(20, 20), 1: click(9, 9)}}
    together = {0: {1: AROUND, 2: click(30, 9)}, 2: others[2]}
    all_equal(list(Tracker(artifact).track(clip(5), others, box=BOX)), list(Tracker(artifact).track(clip(5), together)))


def test_a_box_in_a_clip_that_goes_on_is_on_its_next_frame(artifact: Path) -> None:
    tracker, other = Tracker(artifact), Tracker(artifact)
    for one in (tracker, other):
        one.step(clip(1)[0], {4: click(30, 9)})
    found = list(tracker.track(clip(4)[1:], box=BOX))
    all_equal(found, list(other.track(clip(4)[1:], {1: {1: AROUND}})))
    assert [result.objects for result in found] == [(4, 1)] * 3


def test_a_restored_tracker_needs_no_prompts(artifact: Path) -> None:
    whole = list(Tracker(artifact).track(clip(6), box=BOX))
    before, after = Tracker(artifact), Tracker(artifact)
    list(before.track(clip(3), box=BOX))
    after.restore(before.bank())
    all_equal(list(after.track(clip(6)[3:])), whole[3:])


def test_prompts_added_while_tracking_are_heard(artifact: Path) -> None:
    prompts = {0: {1: click(5, 6)}}
    objects = []
    for result in Tracker(artifact).track(clip(4), prompts):
        objects.append(result.objects)
        if result.frame_index == 1:
            prompts[2] = {2: click(20, 9)}
    assert objects == [(1,), (1,), (1, 2), (1, 2)]


def test_results_have_boxes_around_the_masks_and_the_iou_of_the_mask_taken(artifact: Path) -> None:
    for result in Tracker(artifact).track(clip(4), {0: {1: AROUND, 2: click(9, 9)}}):
        np.testing.assert_array_equal(result.boxes, mask_boxes(result.masks))
        assert (result.boxes.shape, result.iou.shape) == ((2, 4), (2,))
        assert result.frame_index > 0 or result.boxes[:, 2:].min() > 0
        taken = result.mask_choice >= 0
        np.testing.assert_array_equal(result.iou[taken], result.ious[taken, result.mask_choice[taken]])


@pytest.mark.parametrize(
    ("prompts", "box", "objects", "message"),
    [
        (None, None, (), "nothing to track: give box=(x, y, width, height) for one object on the first frame, or"),
        ({2: {1: AROUND}}, BOX, (), "box is object 1 on frame 2, and prompts have that object on that frame too"),
        (None, BOX, (3, 1), "object 1 is tracked already: call reset() before another clip, or correct"),
        (None, (1, 2, 3), (), "box has 3 numbers; expected four: x, y, width, height in pixels of the frame"),
        ({}, (9, 2, 3, -4), (), "box 9,2,3,-4 has the height -4: expected left, top, width and height"),
    ],
)
def test_prompts_that_are_missing_or_contradict_each_other_are_refused(
    prompts: dict[int, dict[int, Prompts]] | None, box: tuple[int, ...] | None, objects: tuple[int, ...], message: str
) -> None:
    with pytest.raises(PromptError) as caught:
        prompts_of(prompts, box, first=2, objects=objects)
    assert message in str(caught.value)


def test_what_is_wrong_is_said_at_the_call_and_not_at_the_first_frame(artifact: Path, tmp_path: Path) -> None:
    tracker = Tracker(artifact)
    with pytest.raises(PromptError, match="nothing to track"):
        tracker.track(clip(3))
    with pytest.raises(VideoError, match=r"nowhere\.mp4 does not exist"):
        tracker.track(tmp_path / "nowhere.mp4", box=BOX)


def test_a_box_that_may_be_corners_says_where_corners_go(artifact: Path) -> None:
    tracker = Tracker(artifact)
    with pytest.raises(PromptError) as caught:
        list(tracker.track(clip(3), box=(20, 10, 40, 25)))
    assert str(caught.value) == (
        "box 20,10,40,25 (left, top, width, height) goes from (20, 10) to (60, 35), beyond the frame, which is 44 x 30 "
        "pixels. Corners go into prompts={0: {1: Prompts(boxes=(Box(x0, y0, x1, y1),))}}"
    )
    assert (tracker.objects, tracker.next_frame) == ((), 0)


def test_no_frame_is_no_frame_for_a_box_either(artifact: Path) -> None:
    with pytest.raises(FrameError, match="expected uint8"):
        list(Tracker(artifact).track(["clip.mp4"], box=BOX))  # type: ignore[list-item]  # what is tested


class Failing:
    """Frames of a file that is damaged in the middle."""

    def __init__(self, frames: list[npt.NDArray[np.uint8]], good: int) -> None:
        self.frames, self.good = frames, good

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        yield from self.frames[: self.good]
        raise VideoError(f"frame {self.good} cannot be decoded")


@pytest.mark.parametrize("good", [0, 1, 4])
def test_a_frame_that_cannot_be_read_loses_none_before_it_and_tracking_goes_on(artifact: Path, good: int) -> None:
    prompts = {0: {1: AROUND}, 2: {2: click(9, 9)}}
    whole = list(Tracker(artifact).track(clip(7), prompts))
    tracker, found = Tracker(artifact), list[FrameResult]()
    with pytest.raises(VideoError, match="cannot be decoded"):
        gather(tracker.track(Failing(clip(7), good), prompts), found)
    assert tracker.next_frame == len(found) == good
    all_equal([*found, *tracker.track(clip(7)[good:], prompts)], whole)


def test_a_correction_that_is_refused_is_refused_before_its_frame_is_tracked(artifact: Path) -> None:
    """Otherwise the frame would be tracked, and its result given to nobody."""
    frames, prompts = clip(5), {0: {1: AROUND}, 2: {1: click(90, 9)}}
    tracker, found = Tracker(artifact), list[FrameResult]()
    with pytest.raises(PromptError, match=r"object 1: point \(90, 9\) lies outside the frame"):
        gather(tracker.track(frames, prompts), found)
    assert tracker.next_frame == len(found) == 2
    prompts[2] = {1: click(9, 9)}
    all_equal([*found, *tracker.track(frames[2:], prompts)], list(Tracker(artifact).track(frames, prompts)))


def test_a_frame_of_another_size_in_the_middle_is_refused_and_the_next_one_is_tracked(artifact: Path) -> None:
    frames = clip(4)
    tracker, found = Tracker(artifact), list[FrameResult]()
    with pytest.raises(FrameError, match="frame 2 is 20 x 10 pixels"):
        gather(tracker.track([*frames[:2], clip(1, 10, 20)[0], *frames[2:]], box=BOX), found)
    all_equal([*found, *tracker.track(frames[2:])], list(Tracker(artifact).track(frames, box=BOX)))


def test_the_clip_may_be_longer_by_the_frames_before_it(artifact: Path, video: Path) -> None:
    tracker = Tracker(artifact)
    tracker.step(clip(1)[0], {1: AROUND})
    next(tracker.track(video))
    assert tracker.num_frames == 8
