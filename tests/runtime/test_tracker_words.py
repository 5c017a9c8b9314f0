"""Words and exemplars in the tracker: what the detector finds on a frame is tracked from there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from samonnx.runtime.detections import DetectionError
from samonnx.runtime.instances import DOUBLES_IOU
from samonnx.runtime.manifest import ManifestError
from samonnx.runtime.prompts import Box, MaskPrompt, Points, PromptError, Prompts
from samonnx.runtime.segmenter import Segmenter
from samonnx.runtime.session import SessionError
from samonnx.runtime.tracker import FrameResult, Tracker
from tests.runtime.hand_made_artifact import clip
from tests.runtime.hand_made_both import build

DOG = Prompts(text="a dog")
CLICK = Prompts(points=Points(((5.0, 6.0),), (1,)))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact that tracks, two objects a call, and detects."""
    folder = tmp_path_factory.mktemp("artifact") / "both"
    build(folder)
    return folder


def assert_same_numbers(one: FrameResult, other: FrameResult) -> None:
    assert (one.frame_index, one.objects, one.prompted) == (other.frame_index, other.objects, other.prompted)
    for name in ("masks", "low_res_logits", "object_scores", "ious", "mask_choice"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def found_masks(folder: Path, frame: np.ndarray, prompts: Prompts = DOG) -> list[Prompts]:
    """The detector's masks, as prompts, best first."""
    found = Segmenter(folder, kind="video").segment(frame, prompts, nms=DOUBLES_IOU)
    return [Prompts(mask=MaskPrompt(mask)) for mask in found.masks]


@pytest.mark.parametrize("objects", [1, 2])
def test_words_track_what_the_detector_finds_by_its_masks(tmp_path: Path, objects: int) -> None:
    """Also when the graph has fewer rows than things were found."""
    build(tmp_path / "both", objects=objects)
    frames = clip(5)
    by_words = list(Tracker(tmp_path / "both").track(frames, {1: {1: DOG}}))
    first, second = found_masks(tmp_path / "both", frames[1])
    by_masks = Tracker(tmp_path / "both").track(frames, {1: {1: first, 2: second}})
    for one, other in zip(by_words, by_masks, strict=True):
        assert_same_numbers(one, other)
    assert [search.objects for search in by_words[1].searches] == [(1, 2)]
    assert all(result.searches == () for result in by_words if result.frame_index != 1)


def test_exemplars_do_the_same_and_count_for_what_is_found(both: Path) -> None:
    frame = clip(1)[0]
    liked, disliked = (Prompts(exemplars=(Box(2, 2, 40, 28, label),)) for label in (1, 0))
    results = [Tracker(both).step(frame, {1: prompts}) for prompts in (liked, disliked)]
    for prompts, result in zip((liked, disliked), results, strict=True):
        masks = dict(enumerate(found_masks(both, frame, prompts), start=1))
        assert_same_numbers(result, Tracker(both).step(frame, masks))
    assert results[0].searches[0].best_score > results[1].searches[0].best_score


def test_the_score_that_counts_is_the_threshold(both: Path) -> None:
    everything = Tracker(both).step(clip(1)[0], {1: DOG}).searches[0]
    assert everything.best_score == everything.scores[0]
    best = Tracker(both, threshold=(everything.scores[0] + everything.scores[1]) / 2).step(clip(1)[0], {1: DOG})
    assert best.objects == (1,)
    nothing = Tracker(both, threshold=0.99).step(clip(1)[0], {1: DOG})
    assert nothing.objects == nothing.prompted == ()
    assert nothing.searches == (replace(everything, objects=(), scores=()),)
    with pytest.raises(DetectionError, match="threshold is 7; expected a number from 0 to 1"):
        Tracker(both, threshold=7)


def test_two_searches_on_one_frame_keep_their_numbers_and_share_what_both_find(both: Path) -> None:
    result = Tracker(both).step(clip(1)[0], {1: DOG, 2: Prompts(text="cats and dogs")})
    assert [search.objects for search in result.searches] == [(1, 3), ()]
    assert result.searches[1].known == 2
    assert result.objects == (1, 3)


def test_an_object_shown_on_the_same_frame_is_known_and_keeps_its_number(both: Path) -> None:
    (dog, _) = found_masks(both, clip(1)[0])
    result = Tracker(both).step(clip(1)[0], {1: DOG, 2: dog})
    assert result.objects == (2, 1)
    assert (result.searches[0].objects, result.searches[0].known) == ((1,), 1)


def test_words_add_nothing_that_is_tracked_already(both: Path) -> None:
    tracker = Tracker(both)
    tracker.step(clip(1)[0], {4: DOG})
    again = tracker.correct({4: DOG})
    assert again.objects == (4, 5)
    assert (again.searches[-1].objects, again.searches[-1].known) == ((), 2)


def test_words_may_be_given_after_a_frame_has_been_seen(both: Path) -> None:
    frames = clip(4)
    late, at_once = Tracker(both), Tracker(both)
    for tracker in (late, at_once):
        tracker.step(frames[0], {7: CLICK})
    late.step(frames[1])
    assert_same_numbers(late.correct({1: DOG}), at_once.step(frames[1], {1: DOG}))
    for frame in frames[2:]:
        assert_same_numbers(late.step(frame), at_once.step(frame))


def test_a_number_that_words_gave_is_corrected_by_clicks_on_a_later_frame(both: Path) -> None:
    frames = clip(4)
    whole = list(Tracker(both).track(frames, {0: {1: DOG}, 2: {2: CLICK}}))
    tracker = Tracker(both)
    tracker.step(frames[0], {1: DOG})
    for frame in frames[1:3]:
        tracker.step(frame)
    np.testing.assert_array_equal(whole[2].low_res_logits, tracker.correct({2: CLICK}).low_res_logits)
    assert whole[2].objects == (1, 2)


def test_the_detector_is_opened_when_words_come(both: Path, tmp_path: Path) -> None:
    build(tmp_path / "both")
    for program in ("segment", "ground"):
        (tmp_path / "both" / f"{program}.onnx").unlink()
    tracker, other = Tracker(tmp_path / "both"), Tracker(both)
    frames = clip(3)
    assert_same_numbers(tracker.step(frames[0], {1: CLICK}), other.step(frames[0], {1: CLICK}))
    with pytest.raises(SessionError, match=r"ground\.onnx is missing"):
        tracker.step(frames[1], {2: DOG})
    assert (tracker.next_frame, tracker.objects) == (1, (1,))
    assert_same_numbers(tracker.step(frames[1]), other.step(frames[1]))


def test_an_artifact_that_only_tracks_says_so_and_what_to_compile(artifact: Path) -> None:
    tracker = Tracker(artifact)
    message = (
        "object 3: words and exemplars need the detector, but the artifact of recipe 'hand_made' has no program that "
        "detects; it has: track, track@first. Compile a recipe with `segment` under `programs:`"
    )
    for ask in (lambda: tracker.step(clip(1)[0], {3: DOG}), lambda: check(tracker, {3: DOG})):
        with pytest.raises(ManifestError) as caught:
            ask()
        assert str(caught.value) == message
    assert (tracker.next_frame, tracker.objects) == (0, ())


def check(tracker: Tracker, prompts: dict[int, Prompts]) -> None:
    tracker.check_prompts(prompts, width=44, height=30)


def test_an_artifact_that_only_detects_cannot_track(tmp_path: Path) -> None:
    manifest = build(tmp_path / "both")
    detects = tuple(program for program in manifest.programs if not program.name.startswith("track"))
    replace(manifest, programs=detects, bank=(), memory=None).save(tmp_path / "both" / "manifest.json")
    with pytest.raises(ManifestError, match="has no program that tracks; it has: segment, encode_text,"):
        Tracker(tmp_path / "both")


def test_found_things_need_a_graph_that_takes_masks(both: Path) -> None:
    tracker = Tracker(both)
    program = tracker.manifest.program("track")
    object.__setattr__(program, "inputs", tuple(port for port in program.inputs if "mask_prompt" not in port.name))
    with pytest.raises(PromptError, match=r"object 1: instances that words or exemplars find are handed on as mask"):
        tracker.step(clip(1)[0], {1: DOG})


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (Prompts(text="a dog", points=CLICK.points), "object 8: words stand for every instance on the frame"),
        (Prompts(exemplars=(Box(1, 1, 50, 9),)), "object 8: exemplar corner (50, 9) lies outside the frame, which is"),
        (Prompts("a dog", exemplars=(Box(1, 1, 9, 9),) * 3), "object 8: 3 boxes, exemplars among them, but the"),
        (Prompts(boxes=(Box(1, 1, 9, 9),) * 2), "object 8: 2 boxes on one object; expected one"),
        (Prompts(boxes=(Box(1, 1, 9, 9, 0),)), "object 8: box (1, 1, 9, 9) has label 0, but an object is tracked"),
    ],
)
def test_prompts_that_cannot_be_tracked_are_refused_before_anything_runs(
    both: Path, prompts: Prompts, message: str
) -> None:
    tracker = Tracker(both)
    for ask in (lambda: tracker.step(clip(1)[0], {2: CLICK, 8: prompts}), lambda: check(tracker, {8: prompts})):
        with pytest.raises(PromptError) as caught:
            ask()
        assert str(caught.value).startswith(message)
    assert (tracker.next_frame, tracker.objects) == (0, ())


def test_a_text_of_which_nothing_is_left_names_the_object(both: Path) -> None:
    with pytest.raises(PromptError, match="object 5: nothing is left of the text"):
        Tracker(both).step(clip(1)[0], {5: Prompts(text="&nbsp;")})


def test_the_detector_is_opened_once(both: Path) -> None:
    tracker = Tracker(both)
    tracker.step(clip(1)[0], {1: DOG})
    segmenter = tracker._finder._segmenter
    tracker.step(clip(2)[1], {1: DOG})
    assert tracker._finder._segmenter is segmenter is not None
